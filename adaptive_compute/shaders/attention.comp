#version 450
#extension GL_GOOGLE_include_directive : require
// Attention, tile by tile with a running maximum and sum: out = softmax(scale q k^T + bias, where kept) v, and the
// logsumexp. (Milakov and Gimelshein 2018 for the running softmax, Dao et al. 2022 for the tiles.)
// A workgroup owns BQ queries of one head and visits the key tiles that the mask keeps. Each thread holds SR x 4 SG
// scores (rows ROW(r), keys 4 (tx + TX g) + x) and SR x 4 OC elements of the result. Scores and products of a tile are
// summed afresh and then added to the result, which keeps the rounding of long sums small.
// Shared memory: a stage for chunks of q and k, then of v, and the weights. Quads are swizzled by the row's low bits so
// that eight rows read at once lie in different banks. TURNED variants stage q and k column by column, so that a thread
// multiplies four rows by four keys with two reads; AHEAD ones read what is staged next while they compute.
// Bindings: 0 q, 1 k, 2 v, 3 boolean operand, 4 bias, 5 places (offset in the boolean operand and in the bias, for each
// head), 6 compiled mask (order of tiles, starts, keys, patterns, bits), 7 out, 8 logsumexp.
// Constants: attention.glsl, where SCALE includes log2(e) and OPTION says that the logsumexp is wanted; 8, 9 chunks of
// the head axis and quads in each.
// Left to the driver to optimise (-O0): glslc's own optimiser drops `precise` from what it unrolls.
// variant: attention_small32 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=1 -DK4=8 -DVC=32 -DSHUFFLE
// variant: attention_small64 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=2 -DK4=8 -DVC=32 -DSHUFFLE
// variant: attention_small128 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=4 -DK4=8 -DVC=16 -DSHUFFLE
// variant: attention_small256 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=8 -DK4=8 -DVC=8 -DSHUFFLE
// variant: attention_turned64 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=2 -DOG=2 -DK4=8 -DVC=32 -DTURNED -DAHEAD -DUNROLL=2 -DSHUFFLE
// variant: attention_plain32 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=1 -DK4=8 -DVC=32
// variant: attention_plain64 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=2 -DK4=8 -DVC=32
// variant: attention_plain128 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=4 -DK4=8 -DVC=16
// variant: attention_plain256 -O0 -DBQ=32 -DBK=32 -DTX=8 -DTY=8 -DOC=8 -DK4=8 -DVC=8
// variant: attention_a256 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=16 -DOC=4 -DK4=8 -DVC=16 -DSHUFFLE
// variant: attention_a64 -O0 -DBQ=128 -DBK=64 -DTX=16 -DTY=16 -DOC=1 -DOG=1 -DK4=4 -DVC=64 -DTURNED -DAHEAD -DUNROLL=4 -DSHUFFLE
// variant: attention_b64 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=16 -DOC=1 -DOG=1 -DK4=8 -DVC=64 -DTURNED -DAHEAD -DUNROLL=2 -DSHUFFLE
// variant: attention_c64 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=8 -DOC=1 -DK4=16 -DVC=64 -DQ4=16 -DSHUFFLE
// variant: attention_d64 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=8 -DOC=1 -DK4=16 -DVC=64 -DSHUFFLE
// variant: attention_a128 -O0 -DBQ=128 -DBK=64 -DTX=16 -DTY=16 -DOC=2 -DOG=2 -DK4=4 -DVC=32 -DTURNED -DAHEAD -DUNROLL=4 -DSHUFFLE
// variant: attention_b128 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=16 -DOC=2 -DOG=2 -DK4=16 -DVC=64 -DAHEAD -DUNROLL=4 -DSHUFFLE
// variant: attention_c128 -O0 -DBQ=64 -DBK=64 -DTX=16 -DTY=16 -DOC=2 -DOG=2 -DK4=8 -DVC=32 -DAHEAD -DUNROLL=4 -DSHUFFLE
// variant: attention_d128 -O0 -DBQ=64 -DBK=64 -DTX=8 -DTY=16 -DOC=4 -DOG=2 -DK4=16 -DVC=64 -DSHUFFLE
#include "attention.glsl"
#ifndef Q4
#define Q4 0
#endif
#ifndef UNROLL
#define UNROLL 1
#endif
#ifndef OG
#define OG 1
#endif
#define SR (BQ / TY)
#define SG (BK / TX / 4)
#define W4 (OC * TX)  // quads of a row of v that the workgroup covers
#define P4 (BK / 4)
#define LARGER(A, B) ((A) > (B) ? (A) : (B))
#if Q4
#define KEYS 0        // where keys begin in the stage
#else
#define KEYS (BQ * K4)
#endif
layout(constant_id = 8) const uint CHUNKS = 1;
layout(constant_id = 9) const uint QUADS = 1;
READER(query, 0)
READER(key, 1)
READER(value, 2)
READER(bias, 4)
layout(set = 0, binding = 3) readonly buffer Kept { uint kept[]; };
layout(set = 0, binding = 5) readonly buffer Places { uint places[]; };
layout(set = 0, binding = 6) readonly buffer Table { int table[]; };
WRITER(write_out, 7)
layout(set = 0, binding = 8) writeonly buffer Logs { float logs[]; };

shared vec4 stage[LARGER(KEYS + BK * K4, VC * W4)];
shared vec4 weights[BQ * P4];
#if Q4
shared vec4 queries[BQ * Q4];
#endif
#ifndef SHUFFLE
shared float row_parts[BQ * TX];
#endif

#ifdef TURNED  // a quad of the stage holds one element of four rows; a thread's rows are neighbours in fours
#define ROW(R) (4u * (ty + TY * ((R) / 4u)) + (R) % 4u)
#define TURN(K) ((K) * LARGER(8 / K4, 1) & 7u)
#else
#define ROW(R) (ty + TY * (R))
#endif
#define EACH_ROW [[unroll]] for (uint r = 0u; r < SR; r++)
#define EACH_GROUP [[unroll]] for (uint g = 0u; g < SG; g++)
#define EACH_COLUMN [[unroll]] for (uint x = 0u; x < 4u; x++)

// What the stage holds next, on its way: with AHEAD it is read while the stage before is computed with.
#if Q4
#define SCORES_STAGED (BK * K4)
#else
#define SCORES_STAGED ((BQ + BK) * K4)
#endif
#define SCORE_LOADS (SCORES_STAGED / THREADS)
#define VALUE_LOADS (VC * W4 / THREADS)
vec4 coming[LARGER(SCORE_LOADS, VALUE_LOADS)];

void read_scores(uint thread, uint query_row, uint i0, uint key_row, uint j0, uint start) {
    [[unroll]] for (uint n = 0u; n < SCORE_LOADS; n++) {
        uint at = n * THREADS + thread, row = at / K4, k = at % K4;
#if !Q4
        if (n < BQ * K4 / THREADS)
            coming[n] =
                k < QUADS && i0 + row < LQ ? query(query_row + i0 + row, 4u * (start + k), D) * SCALE : vec4(0.0);
        else
            row -= BQ;
        if (n >= BQ * K4 / THREADS)
#endif
            coming[n] = k < QUADS && j0 + row < LK ? key(key_row + j0 + row, 4u * (start + k), D) : vec4(0.0);
    }
}

void set_scores(uint thread) {
    [[unroll]] for (uint n = 0u; n < SCORE_LOADS; n++) {
        uint at = n * THREADS + thread, row = at / K4, k = at % K4;
#ifdef TURNED
        bool own = n < BQ * K4 / THREADS;
        uint begin = own ? 0u : uint(KEYS), across = own ? BQ / 4 : BK / 4;
        if (!own) row -= BQ;
        [[unroll]] for (uint x = 0u; x < 4u; x++)
            stage[begin + (4u * k + x) * across + (row / 4u ^ TURN(k))][row % 4u] = coming[n][x];
#else
        uint twist = !(KEYS == 0) && n < BQ * K4 / THREADS ? row : row >> 2;
        stage[row * K4 + (k ^ (twist & 7u))] = coming[n];
#endif
    }
}

void read_values(uint thread, uint key_row, uint j0) {
    [[unroll]] for (uint n = 0u; n < VALUE_LOADS; n++) {
        uint at = n * THREADS + thread, j = j0 + at / W4, o = at % W4;
        coming[n] = j < LK ? value(key_row + j, 4u * o, DV) : vec4(0.0);
    }
}

void set_values(uint thread) {
    [[unroll]] for (uint n = 0u; n < VALUE_LOADS; n++) stage[n * THREADS + thread] = coming[n];
}

void main() {
    uint number = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
    if (number >= COUNT) return;
    uint thread = thread_number(), tx = thread % TX, ty = thread / TX;
    uint head = number / TILES, tile = number % TILES;
    uint first = 0u, last = (LK + BK - 1u) / BK;
    if (COMPILED != 0u) {
        tile = uint(table[tile]);
        first = uint(table[TILES + tile]);
        last = uint(table[TILES + tile + 1u]);
    }
    uint visits = TILES + TILES + 1u, patterns = visits + VISITED, bits = patterns + VISITED;
    uint key_head = head / HEADS * KEY_HEADS + head % HEADS * KEY_HEADS / HEADS;
    uint query_row = head * LQ, key_row = key_head * LK, i0 = tile * BQ;
    uint mask_place = MASKED != 0u ? places[2u * head] : 0u, bias_place = BIASED != 0u ? places[2u * head + 1u] : 0u;
    uint twist_x = tx & 7u, twist_y = ty & 7u;

    vec4 result[SR][OC];
    float top[SR], total[SR];
    EACH_ROW {
        top[r] = NEGATIVE_INFINITY;
        total[r] = 0.0;
        [[unroll]] for (uint o = 0u; o < OC; o++) result[r][o] = vec4(0.0);
    }
#if Q4
    [[unroll]] for (uint n = 0u; n < BQ * Q4 / THREADS; n++) {
        uint at = n * THREADS + thread, row = at / Q4, k = at % Q4;
        queries[row * Q4 + (k ^ (row & 7u))] =
            i0 + row < LQ ? query(query_row + i0 + row, 4u * k, D) * SCALE : vec4(0.0);
    }
#endif
#ifdef AHEAD
    if (first < last)
        read_scores(thread, query_row, i0, key_row, (COMPILED != 0u ? uint(table[visits + first]) : first) * BK, 0u);
#endif
    for (uint visit = first; visit < last; visit++) {
        uint j0 = (COMPILED != 0u ? uint(table[visits + visit]) : visit) * BK;
        vec4 score[SR][SG];
        EACH_ROW EACH_GROUP score[r][g] = vec4(0.0);
        for (uint chunk = 0u; chunk < CHUNKS; chunk++) {
            uint start = chunk * QUADS;
#ifdef AHEAD
            barrier();
            set_scores(thread);
            barrier();
            if (chunk + 1u < CHUNKS)
                read_scores(thread, query_row, i0, key_row, j0, start + QUADS);
            else
                read_values(thread, key_row, j0);
#else
            barrier();
            read_scores(thread, query_row, i0, key_row, j0, start);
            set_scores(thread);
            barrier();
#endif
            for (uint quad = 0u; quad < QUADS; quad += UNROLL) [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
                uint k = quad + u;  // zeros lie beyond the last one
#ifdef TURNED
                [[unroll]] for (uint c = 0u; c < 4u; c++) {
                    vec4 own[SR / 4], other[SG];
                    [[unroll]] for (uint h = 0u; h < SR / 4; h++)
                        own[h] = stage[(4u * k + c) * (BQ / 4) + (ty + TY * h ^ TURN(k))];
                    EACH_GROUP other[g] = stage[KEYS + (4u * k + c) * (BK / 4) + (tx + TX * g ^ TURN(k))];
                    EACH_ROW EACH_GROUP score[r][g] = fma(vec4(own[r / 4u][r % 4u]), other[g], score[r][g]);
                }
#else
                vec4 q[SR];
#if Q4
                EACH_ROW q[r] = queries[ROW(r) * Q4 + ((start + k) ^ twist_y)];
#else
                EACH_ROW q[r] = stage[ROW(r) * K4 + (k ^ twist_y)];
#endif
                EACH_GROUP EACH_COLUMN {
                    vec4 other = stage[KEYS + (4u * (tx + TX * g) + x) * K4 + (k ^ twist_x)];
                    EACH_ROW {
                        float sum = fma(q[r].x, other.x, score[r][g][x]);
                        sum = fma(q[r].y, other.y, sum);
                        sum = fma(q[r].z, other.z, sum);
                        score[r][g][x] = fma(q[r].w, other.w, sum);
                    }
                }
#endif
            }
        }
        if (BIASED != 0u) {
            EACH_ROW EACH_GROUP EACH_COLUMN {
                uint i = i0 + ROW(r), j = j0 + 4u * (tx + TX * g) + x;
                if (i < LQ && j < LK)
                    score[r][g][x] = fma(bias_at(bias_place + i * BIAS_QUERY + j * BIAS_KEY), LOG2_E, score[r][g][x]);
            }
        }
        if (MASKED != 0u) {
            EACH_ROW EACH_GROUP EACH_COLUMN {
                uint i = i0 + ROW(r), j = j0 + 4u * (tx + TX * g) + x;
                uint e = mask_place + i * MASK_QUERY + j * MASK_KEY;
                if (i < LQ && j < LK && (kept[e >> 2] >> 8u * (e & 3u) & 255u) == 0u)
                    score[r][g][x] = NEGATIVE_INFINITY;
            }
        }
        if (COMPILED != 0u) {
            int pattern = table[patterns + visit];
            if (pattern >= 0) {
                EACH_ROW EACH_GROUP {
                    uint row = uint(pattern) * BQ + ROW(r), quad = tx + TX * g;
                    uint word = uint(table[bits + row * (BK / 32) + (quad >> 3)]) >> 4u * (quad & 7u);
                    EACH_COLUMN if ((word >> x & 1u) == 0u) score[r][g][x] = NEGATIVE_INFINITY;
                }
            }
        }
        if (LK % BK != 0u && j0 + BK > LK) {
            EACH_GROUP EACH_COLUMN {
                if (j0 + 4u * (tx + TX * g) + x >= LK) EACH_ROW score[r][g][x] = NEGATIVE_INFINITY;
            }
        }

        float highest[SR], shrink[SR];
        EACH_ROW {
            vec4 most = score[r][0];
            [[unroll]] for (uint g = 1u; g < SG; g++) most = max(most, score[r][g]);
            highest[r] = max(max(most.x, most.y), max(most.z, most.w));
        }
#ifdef SHUFFLE
        EACH_ROW {
            [[unroll]] for (uint step = 1u; step < TX; step *= 2u)
                highest[r] = max(highest[r], subgroupShuffleXor(highest[r], step));
        }
#else
        EACH_ROW row_parts[ROW(r) * TX + tx] = highest[r];
        barrier();
        EACH_ROW for (uint x = 0u; x < TX; x++) highest[r] = max(highest[r], row_parts[ROW(r) * TX + x]);
#endif
        EACH_ROW {
            float now = max(highest[r], top[r]);
            float finite = now == NEGATIVE_INFINITY ? 0.0 : now;
            shrink[r] = exp2_negative(top[r] - finite);
            top[r] = now;
            vec4 sums = vec4(0.0);
            EACH_GROUP {
                vec4 weight;
                EACH_COLUMN weight[x] = exp2_negative(score[r][g][x] - finite);
                sums += weight;
                weights[ROW(r) * P4 + ((tx + TX * g) ^ twist_y)] = weight;
            }
            total[r] = fma(total[r], shrink[r], (sums.x + sums.y) + (sums.z + sums.w));
        }
        [[unroll]] for (uint part = 0u; part < BK / VC; part++) {
            barrier();
#ifdef AHEAD
            set_values(thread);
            barrier();
            if (part + 1u < BK / VC) {
                read_values(thread, key_row, j0 + (part + 1u) * VC);
            } else if (visit + 1u < last) {
                uint next = COMPILED != 0u ? uint(table[visits + visit + 1u]) : visit + 1u;
                read_scores(thread, query_row, i0, key_row, next * BK, 0u);
            }
#else
            read_values(thread, key_row, j0 + part * VC);
            set_values(thread);
            barrier();
#endif
            [[unroll]] for (uint o = 0u; o < OC; o += OG) {
                vec4 sums[SR][OG];
#ifdef DIRECT
                EACH_ROW [[unroll]] for (uint c = 0u; c < OG; c++)
                    sums[r][c] = result[r][o + c] * (part == 0u ? shrink[r] : 1.0);
#else
                EACH_ROW [[unroll]] for (uint c = 0u; c < OG; c++) sums[r][c] = vec4(0.0);
#endif
                for (uint four = 0u; four < VC / 4; four += UNROLL) [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
                    uint j = four + u;
                    vec4 w[SR];
                    EACH_ROW w[r] = weights[ROW(r) * P4 + ((part * (VC / 4) + j) ^ twist_y)];
                    [[unroll]] for (uint x = 0u; x < 4u; x++) {
                        [[unroll]] for (uint c = 0u; c < OG; c++) {
                            vec4 other = stage[(4u * j + x) * W4 + (o + c) * TX + tx];
                            EACH_ROW sums[r][c] = fma(vec4(w[r][x]), other, sums[r][c]);
                        }
                    }
                }
                EACH_ROW [[unroll]] for (uint c = 0u; c < OG; c++)
#ifdef DIRECT
                    result[r][o + c] = sums[r][c];
#else
                    result[r][o + c] = fma(result[r][o + c], vec4(part == 0u ? shrink[r] : 1.0), sums[r][c]);
#endif
            }
        }
    }
#ifdef SHUFFLE
    EACH_ROW {
        [[unroll]] for (uint step = 1u; step < TX; step *= 2u) total[r] += subgroupShuffleXor(total[r], step);
    }
#else
    barrier();
    EACH_ROW row_parts[ROW(r) * TX + tx] = total[r];
    barrier();
    EACH_ROW {
        total[r] = 0.0;
        for (uint x = 0u; x < TX; x++) total[r] += row_parts[ROW(r) * TX + x];
    }
#endif
    EACH_ROW {
        uint i = i0 + ROW(r);
        if (i < LQ) {
            float factor = total[r] == 0.0 ? 0.0 : 1.0 / total[r];
            [[unroll]] for (uint o = 0u; o < OC; o++)
                write_out(query_row + i, 4u * (o * TX + tx), DV, result[r][o] * factor);
            if (OPTION != 0u && tx == 0u)
                logs[query_row + i] = total[r] == 0.0 ? NEGATIVE_INFINITY : (top[r] + log2_positive(total[r])) * LN_2;
        }
    }
}
