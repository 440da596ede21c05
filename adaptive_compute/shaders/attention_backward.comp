#version 450
#extension GL_GOOGLE_include_directive : require
// The gradient of attention, with the weights recomputed from the logsumexp (Dao et al. 2022): where g is the incoming
// gradient, delta_i = sum_c g_ic out_ic - dlse_i, P = exp(score - lse), dS = P (g v^T - delta),
//     dq = scale dS k,    dk = scale dS^T q,    dv = P^T g.
// QUERIES: a workgroup owns OWN queries of a head and visits the key tiles that the mask keeps; gives dq, delta, and dS
// where the bias has a gradient. KEYS: it owns OWN keys of a key head and visits the query tiles of every query head
// that shares it; gives dk and dv. So that no sum is shared between workgroups, the scores are computed in both.
// The work of a tile is laid out as in attention.comp, with own rows and other rows.
// Bindings: 0 q, 1 k, 2 v, 3 boolean operand, 4 bias, 5 places, 6 compiled mask, 7 g, 8 lse, 9 delta, then
// QUERIES: 10 out, 11 dlse, 12 dq, 13 dS; KEYS: 10 dk, 11 dv.
// Constants: attention.glsl, where SCALE includes log2(e) and OPTION is 1 where dlse is given plus 2 where dS is wanted;
// 8, 9 chunks of the q and k axis and quads in each; 10, 11 of the v axis; 12 scale.
// variant: attention_dq_small64 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=2 -DK4=8 -DVC=32 -DSHUFFLE
// variant: attention_dq_small128 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=4 -DK4=8 -DVC=16 -DSHUFFLE
// variant: attention_dq_small256 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=8 -DK4=8 -DVC=8 -DSHUFFLE
// variant: attention_dq_plain64 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=2 -DK4=8 -DVC=32
// variant: attention_dq_plain128 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=4 -DK4=8 -DVC=16
// variant: attention_dq_plain256 -O0 -DQUERIES -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=8 -DK4=8 -DVC=8
// variant: attention_dq_a64 -O0 -DQUERIES -DOWN=64 -DOTHER=64 -DTX=16 -DTY=8 -DOC=1 -DK4=8 -DVC=64 -DSHUFFLE
// variant: attention_dq_b64 -O0 -DQUERIES -DOWN=64 -DOTHER=64 -DTX=16 -DTY=16 -DOC=1 -DK4=8 -DVC=64 -DSHUFFLE
// variant: attention_dq_a128 -O0 -DQUERIES -DOWN=64 -DOTHER=64 -DTX=16 -DTY=16 -DOC=2 -DK4=8 -DVC=32 -DSHUFFLE
// variant: attention_dq_a256 -O0 -DQUERIES -DOWN=64 -DOTHER=64 -DTX=16 -DTY=16 -DOC=4 -DK4=8 -DVC=16 -DSHUFFLE
// variant: attention_dkv_small64 -O0 -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=2 -DK4=8 -DVC=32
// variant: attention_dkv_small128 -O0 -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=4 -DK4=8 -DVC=16
// variant: attention_dkv_small256 -O0 -DOWN=32 -DOTHER=32 -DTX=8 -DTY=8 -DOC=8 -DK4=8 -DVC=8
// variant: attention_dkv_a64 -O0 -DOWN=64 -DOTHER=64 -DTX=16 -DTY=8 -DOC=1 -DK4=8 -DVC=64
// variant: attention_dkv_b64 -O0 -DOWN=64 -DOTHER=64 -DTX=16 -DTY=16 -DOC=1 -DK4=8 -DVC=64
// variant: attention_dkv_a128 -O0 -DOWN=64 -DOTHER=64 -DTX=16 -DTY=16 -DOC=2 -DK4=8 -DVC=32
// variant: attention_dkv_a256 -O0 -DOWN=64 -DOTHER=32 -DTX=8 -DTY=32 -DOC=8 -DK4=8 -DVC=16
#include "attention.glsl"
#define SR (OWN / TY)
#define SG (OTHER / TX / 4)
#define W4 (OC * TX)
#define LARGER(A, B) ((A) > (B) ? (A) : (B))
#define EACH_ROW [[unroll]] for (uint r = 0u; r < SR; r++)
#define EACH_GROUP [[unroll]] for (uint g = 0u; g < SG; g++)
#define EACH_COLUMN [[unroll]] for (uint x = 0u; x < 4u; x++)
#define INFINITY_ uintBitsToFloat(0x7f800000u)
layout(constant_id = 8) const uint CHUNKS = 1;
layout(constant_id = 9) const uint QUADS = 1;
layout(constant_id = 10) const uint VALUE_CHUNKS = 1;
layout(constant_id = 11) const uint VALUE_QUADS = 1;
layout(constant_id = 12) const float FACTOR = 1.0;
READER(query, 0)
READER(key, 1)
READER(value, 2)
READER(bias, 4)
READER(grad, 7)
layout(set = 0, binding = 3) readonly buffer Kept { uint kept[]; };
layout(set = 0, binding = 5) readonly buffer Places { uint places[]; };
layout(set = 0, binding = 6) readonly buffer Table { int table[]; };
layout(set = 0, binding = 8) readonly buffer Logs { float logs[]; };
#ifdef QUERIES
layout(set = 0, binding = 9) writeonly buffer Deltas { float deltas[]; };
READER(out_, 10)
layout(set = 0, binding = 11) readonly buffer LogGradient { float log_gradient[]; };
WRITER(write_query, 12)
layout(set = 0, binding = 13) writeonly buffer ScoreGradient { float score_gradient[]; };
#else
layout(set = 0, binding = 9) readonly buffer Deltas { float deltas[]; };
WRITER(write_key, 10)
WRITER(write_value, 11)
#endif

shared vec4 stage[LARGER((OWN + OTHER) * K4, VC * W4)];
shared vec4 weights[OWN * OTHER / 4];
#if defined(QUERIES) && !defined(SHUFFLE)
shared float row_parts[OWN * TX];
#endif

// The logsumexp to base 2; a query that keeps nothing, or is none, gets one that makes its weights zero.
float level(uint row, bool there) {
    float log_sum = there ? logs[row] : NEGATIVE_INFINITY;
    return log_sum == NEGATIVE_INFINITY ? INFINITY_ : log_sum * LOG2_E;
}

bool kept_by_operand(uint e) { return (kept[e >> 2] >> 8u * (e & 3u) & 255u) != 0u; }

void main() {
    uint number = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
    if (number >= COUNT) return;
    uint thread = thread_number(), tx = thread % TX, ty = thread / TX;
    uint twist_x = tx & 7u, twist_y = ty & 7u, owner = number / TILES, tile = number % TILES;
#ifdef QUERIES
    uint first = 0u, last = (LK + OTHER - 1u) / OTHER;
#else
    uint first = 0u, last = (LQ + OTHER - 1u) / OTHER;
#endif
    if (COMPILED != 0u) {
        tile = uint(table[tile]);
        first = uint(table[TILES + tile]);
        last = uint(table[TILES + tile + 1u]);
    }
    uint visits = TILES + TILES + 1u, patterns = visits + VISITED, bits = patterns + VISITED;
    vec4 result[SR][OC];
    EACH_ROW [[unroll]] for (uint o = 0u; o < OC; o++) result[r][o] = vec4(0.0);
#ifdef QUERIES
    uint head = owner, i0 = tile * OWN, query_row = head * LQ;
    uint key_row = (head / HEADS * KEY_HEADS + head % HEADS * KEY_HEADS / HEADS) * LK;
    float levels[SR], delta[SR];
    EACH_ROW {
        uint i = i0 + ty + TY * r;
        float sum = 0.0;
        if (i < LQ) {
            for (uint at = 4u * tx; at < DV; at += 4u * TX)
                sum += dot(grad(query_row + i, at, DV), out_(query_row + i, at, DV));
        }
        delta[r] = sum;
        levels[r] = level(query_row + i, i < LQ);
    }
#ifdef SHUFFLE
    EACH_ROW {
        [[unroll]] for (uint step = 1u; step < TX; step *= 2u) delta[r] += subgroupShuffleXor(delta[r], step);
    }
#else
    EACH_ROW row_parts[(ty + TY * r) * TX + tx] = delta[r];
    barrier();
    EACH_ROW {
        delta[r] = 0.0;
        for (uint n = 0u; n < TX; n++) delta[r] += row_parts[(ty + TY * r) * TX + n];
    }
#endif
    EACH_ROW {
        uint i = i0 + ty + TY * r;
        if (i < LQ) {
            if ((OPTION & 1u) != 0u) delta[r] -= log_gradient[query_row + i];
            if (tx == 0u) deltas[query_row + i] = delta[r];
        }
    }
#else
    uint key_row = owner * LK, j0 = tile * OWN, group = HEADS / KEY_HEADS;
    vec4 value_result[SR][OC];
    EACH_ROW [[unroll]] for (uint o = 0u; o < OC; o++) value_result[r][o] = vec4(0.0);
    for (uint member = 0u; member < group; member++) {
    uint head = owner / KEY_HEADS * HEADS + owner % KEY_HEADS * group + member, query_row = head * LQ;
#endif
    uint mask_place = MASKED != 0u ? places[2u * head] : 0u, bias_place = BIASED != 0u ? places[2u * head + 1u] : 0u;
    for (uint visit = first; visit < last; visit++) {
        uint other0 = (COMPILED != 0u ? uint(table[visits + visit]) : visit) * OTHER;
#ifdef QUERIES
        uint j0 = other0;
#define OWN_I(r) (i0 + ty + TY * (r))
#define OTHER_J(g, x) (j0 + 4u * (tx + TX * (g)) + (x))
#define ROW_I OWN_I(r)
#define COLUMN_J OTHER_J(g, x)
#else
        uint i0 = other0;
#define ROW_I (i0 + 4u * (tx + TX * g) + x)
#define COLUMN_J (j0 + ty + TY * r)
#endif
        vec4 score[SR][SG];
        EACH_ROW EACH_GROUP score[r][g] = vec4(0.0);
#define SUMS score
#define WIDTH D
#define CHUNK_COUNT CHUNKS
#define CHUNK_QUADS QUADS
#define QUERY_QUAD(row, at) (i0 + row < LQ ? query(query_row + i0 + row, at, D) : vec4(0.0))
#define KEY_QUAD(row, at) (j0 + row < LK ? key(key_row + j0 + row, at, D) : vec4(0.0))
#define GRAD_QUAD(row, at) (i0 + row < LQ ? grad(query_row + i0 + row, at, DV) : vec4(0.0))
#define VALUE_QUAD(row, at) (j0 + row < LK ? value(key_row + j0 + row, at, DV) : vec4(0.0))
#ifdef QUERIES
#define OWN_QUAD(row, at) QUERY_QUAD(row, at) * SCALE
#define OTHER_QUAD(row, at) KEY_QUAD(row, at)
#else
#define OWN_QUAD(row, at) KEY_QUAD(row, at) * SCALE
#define OTHER_QUAD(row, at) QUERY_QUAD(row, at)
#endif
#include "attention_scores.glsl"
        if (BIASED != 0u) {
            EACH_ROW EACH_GROUP EACH_COLUMN {
                uint i = ROW_I, j = COLUMN_J;
                if (i < LQ && j < LK)
                    score[r][g][x] = fma(bias_at(bias_place + i * BIAS_QUERY + j * BIAS_KEY), LOG2_E, score[r][g][x]);
            }
        }
        if (MASKED != 0u) {
            EACH_ROW EACH_GROUP EACH_COLUMN {
                uint i = ROW_I, j = COLUMN_J;
                if (i < LQ && j < LK && !kept_by_operand(mask_place + i * MASK_QUERY + j * MASK_KEY))
                    score[r][g][x] = NEGATIVE_INFINITY;
            }
        }
        if (COMPILED != 0u) {
            int pattern = table[patterns + visit];
            if (pattern >= 0) {
                EACH_ROW EACH_GROUP EACH_COLUMN {
#ifdef QUERIES
                    uint i = uint(pattern) * OWN + ty + TY * r, j = 4u * (tx + TX * g) + x, words = OTHER / 32;
#else
                    uint i = uint(pattern) * OTHER + 4u * (tx + TX * g) + x, j = ty + TY * r, words = OWN / 32;
#endif
                    if ((uint(table[bits + i * words + j / 32u]) >> j % 32u & 1u) == 0u)
                        score[r][g][x] = NEGATIVE_INFINITY;
                }
            }
        }
#ifdef QUERIES
        if (LK % OTHER != 0u && j0 + OTHER > LK) {
            EACH_GROUP EACH_COLUMN {
                if (OTHER_J(g, x) >= LK) EACH_ROW score[r][g][x] = NEGATIVE_INFINITY;
            }
        }
        EACH_ROW EACH_GROUP EACH_COLUMN score[r][g][x] = exp2_negative(score[r][g][x] - levels[r]);
#else
        EACH_GROUP EACH_COLUMN {
            float column_level = level(query_row + ROW_I, ROW_I < LQ);
            EACH_ROW score[r][g][x] = exp2_negative(score[r][g][x] - column_level);
        }
        EACH_ROW EACH_GROUP weights[(ty + TY * r) * (OTHER / 4) + ((tx + TX * g) ^ twist_y)] = score[r][g];
#define RESULT value_result
#define OTHER_QUAD(row, at) GRAD_QUAD(row, at)
#include "attention_rows.glsl"
#endif
        vec4 change[SR][SG];
        EACH_ROW EACH_GROUP change[r][g] = vec4(0.0);
#define SUMS change
#define WIDTH DV
#define CHUNK_COUNT VALUE_CHUNKS
#define CHUNK_QUADS VALUE_QUADS
#ifdef QUERIES
#define OWN_QUAD(row, at) GRAD_QUAD(row, at)
#define OTHER_QUAD(row, at) VALUE_QUAD(row, at)
#else
#define OWN_QUAD(row, at) VALUE_QUAD(row, at)
#define OTHER_QUAD(row, at) GRAD_QUAD(row, at)
#endif
#include "attention_scores.glsl"
#ifdef QUERIES
        EACH_ROW EACH_GROUP change[r][g] = score[r][g] * (change[r][g] - delta[r]);
        if ((OPTION & 2u) != 0u) {
            EACH_ROW EACH_GROUP EACH_COLUMN {
                uint i = OWN_I(r), j = OTHER_J(g, x);
                if (i < LQ && j < LK) score_gradient[(query_row + i) * LK + j] = change[r][g][x];
            }
        }
#else
        EACH_GROUP EACH_COLUMN {
            float column_delta = ROW_I < LQ ? deltas[query_row + ROW_I] : 0.0;
            EACH_ROW change[r][g][x] = score[r][g][x] * (change[r][g][x] - column_delta);
        }
#endif
        EACH_ROW EACH_GROUP weights[(ty + TY * r) * (OTHER / 4) + ((tx + TX * g) ^ twist_y)] = change[r][g];
#define RESULT result
#ifdef QUERIES
#define OTHER_QUAD(row, at) KEY_QUAD(row, at)
#else
#define OTHER_QUAD(row, at) QUERY_QUAD(row, at)
#endif
#include "attention_rows.glsl"
    }
#ifdef QUERIES
    EACH_ROW {
        uint i = i0 + ty + TY * r;
        if (i < LQ) {
            [[unroll]] for (uint o = 0u; o < OC; o++)
                write_query(query_row + i, 4u * (o * TX + tx), D, result[r][o] * FACTOR);
        }
    }
#else
    }
    EACH_ROW {
        uint j = j0 + ty + TY * r;
        if (j < LK) {
            [[unroll]] for (uint o = 0u; o < OC; o++) {
                write_key(key_row + j, 4u * (o * TX + tx), D, result[r][o] * FACTOR);
                write_value(key_row + j, 4u * (o * TX + tx), DV, value_result[r][o]);
            }
        }
    }
#endif
}
