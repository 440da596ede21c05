#version 450
#extension GL_GOOGLE_include_directive : require
// Reduces an array over some of its axes. A workgroup holds LANES results, each by ACROSS threads, which take four
// elements at a time; where results are few, each is cut into PARTS and a second dispatch brings these together. The
// order of every addition depends on the shape alone.
// Sums carry what each addition rounds off (D. E. Knuth, The Art of Computer Programming 2, 4.2.2). The logarithm of the
// sum of exponentials takes out the largest value so far (M. Milakov and N. Gimelshein, arXiv:1805.02867), the norm the
// power of two above it, so that nothing overflows.
// Bindings: 0 array, 1 result (a word an element, two for whole numbers of 64 bits), 2 what the parts have found.
// Constants: 0 results, 1 elements of each, 2 LANES, 3 ACROSS, 4 PARTS, 5 stage (0 all in one, 1 parts, 2 parts brought
// together), 6 parts that stage 2 reads, 7 how the array is stored, 8 elements are read in fours, 9 neighbouring threads
// take neighbouring elements of one result (else of neighbouring results), 10 function (see reduce_states.glsl), 11 words
// of a result, 12-19 lengths and strides of the kept axes, 20-27 of the reduced ones, innermost first, 28 words are
// signed.
// variant: reduce_sum -DSUM -O0
// variant: reduce_extreme -DEXTREME
// variant: reduce_exponential -DEXPONENTIAL -O0
// variant: reduce_norm -DNORM -O0
// variant: reduce_whole -DWHOLE
#define LOCAL 256
layout(local_size_x = LOCAL) in;
layout(constant_id = 0) const uint RESULTS = 1;
layout(constant_id = 1) const uint COUNT = 1;
layout(constant_id = 2) const uint LANES = 1;
layout(constant_id = 3) const uint ACROSS = 1;
layout(constant_id = 4) const uint PARTS = 1;
layout(constant_id = 5) const uint STAGE = 0;
layout(constant_id = 6) const uint READ = 1;
layout(constant_id = 7) const uint KIND = 1;
layout(constant_id = 8) const uint FOURS = 0;
layout(constant_id = 9) const uint ALONG = 1;
layout(constant_id = 10) const uint SECOND = 0;
layout(constant_id = 11) const uint WORDS = 1;
layout(constant_id = 12) const uint K0 = 1;
layout(constant_id = 13) const uint K1 = 1;
layout(constant_id = 14) const uint K2 = 1;
layout(constant_id = 15) const uint K3 = 1;
layout(constant_id = 16) const uint KS0 = 0;
layout(constant_id = 17) const uint KS1 = 0;
layout(constant_id = 18) const uint KS2 = 0;
layout(constant_id = 19) const uint KS3 = 0;
layout(constant_id = 20) const uint R0 = 1;
layout(constant_id = 21) const uint R1 = 1;
layout(constant_id = 22) const uint R2 = 1;
layout(constant_id = 23) const uint R3 = 1;
layout(constant_id = 24) const uint RS0 = 0;
layout(constant_id = 25) const uint RS1 = 0;
layout(constant_id = 26) const uint RS2 = 0;
layout(constant_id = 27) const uint RS3 = 0;
layout(constant_id = 28) const uint SIGNED = 0;
#include "elements.glsl"
layout(set = 0, binding = 0) readonly buffer Quads { uvec4 quads[]; };
layout(set = 0, binding = 0) readonly buffer Pairs { uvec2 pairs[]; };
layout(set = 0, binding = 0) readonly buffer Words { uint words[]; };
layout(set = 0, binding = 1) writeonly buffer Result { uint result[]; };
layout(set = 0, binding = 2) buffer Partial { uvec4 partial[]; };
shared uvec4 found[LOCAL];
#include "reduce_states.glsl"

uint kept_place(uint n) {
    uint place = n % K0 * KS0;
    n /= K0;
    place += n % K1 * KS1;
    n /= K1;
    return place + n % K2 * KS2 + n / K2 * KS3;
}

uvec4 reduced_place(uvec4 n) {
    uvec4 place = n % R0 * RS0;
    n /= R0;
    place += n % R1 * RS1;
    n /= R1;
    return place + n % R2 * RS2 + n / R2 * RS3;
}

// Four elements that lie together, the first at a multiple of four; `high` is the upper half of 64-bit numbers.
uvec4 together(uint at, out uvec4 high) {
    high = uvec4(0u);
    if (KIND == LONG) {
        uvec4 p = quads[2u * at], q = quads[2u * at + 1u];
        high = uvec4(p.yw, q.yw);
        return uvec4(p.xz, q.xz);
    }
    if (KIND == WORD) return quads[at];
    if (KIND <= UINT16) {
        uvec2 p = pairs[at];
        return decoded(KIND, uvec4(p.x, p.x >> 16, p.y, p.y >> 16) & 0xffffu);
    }
    return decoded(KIND, uvec4(words[at]) >> uvec4(0u, 8u, 16u, 24u) & 0xffu);
}

uvec4 apart(uvec4 at, out uvec4 high) {
    high = uvec4(0u);
    if (KIND == LONG) {
        uvec2 p = pairs[at.x], q = pairs[at.y], r = pairs[at.z], s = pairs[at.w];
        high = uvec4(p.y, q.y, r.y, s.y);
        return uvec4(p.x, q.x, r.x, s.x);
    }
    uint shift = KIND == WORD ? 0u : KIND <= UINT16 ? 1u : 2u, bits = 32u >> shift;
    uvec4 word = at >> shift;
    uvec4 raw = uvec4(words[word.x], words[word.y], words[word.z], words[word.w]);
    if (KIND == WORD) return raw;
    return decoded(KIND, raw >> (at & ((1u << shift) - 1u)) * bits & ((1u << bits) - 1u));
}

State reduced(uint row, uint part, uint across) {
    Four four = nothing();
    uint here = kept_place(row);
    uint units = (COUNT + 3u) / 4u, share = (units + PARTS - 1u) / PARTS;
    uint first = part * share, last = min(first + share, units);
    uvec4 high;
    if (FOURS != 0u) {
        for (uint n = first + across; n < last; n += ACROSS) {
            uvec4 number = 4u * n + uvec4(0u, 1u, 2u, 3u);
            uvec4 low = together((here + reduced_place(number).x) / 4u, high);
            four = added(four, low, high, lessThan(number, uvec4(COUNT)));
        }
    } else {
        // The four are ACROSS apart, so that neighbouring threads read neighbouring elements.
        uint begin = 4u * first, end = min(4u * last, COUNT);
        for (uint n = begin + across; n < end; n += 4u * ACROSS) {
            uint second = n + ACROSS, third = second + ACROSS;
            uvec4 number = uvec4(n, second, third, third + ACROSS);
            uvec4 low = apart(here + reduced_place(min(number, uvec4(COUNT - 1u))), high);
            four = added(four, low, high, lessThan(number, uvec4(end)));
        }
    }
    return joined(joined(one(four, 0), one(four, 1)), joined(one(four, 2), one(four, 3)));
}

void main() {
    uint thread = gl_LocalInvocationIndex;
    uint number = gl_WorkGroupID.x + gl_WorkGroupID.y * gl_NumWorkGroups.x;
    uint part = number % PARTS;
    uint across = ALONG != 0u ? thread % ACROSS : thread / LANES, lane = ALONG != 0u ? thread / ACROSS : thread % LANES;
    uint row = number / PARTS * LANES + lane, place = lane * ACROSS + across;
    State state = one(nothing(), 0);
    if (row < RESULTS) {
        if (STAGE == 2u) {
            for (uint n = across; n < READ; n += ACROSS) state = joined(state, unpacked(partial[row * READ + n]));
        } else {
            state = reduced(row, part, across);
        }
    }
    found[place] = packed(state);
    for (uint step = ACROSS / 2u; step > 0u; step /= 2u) {
        barrier();
        if (across < step) found[place] = packed(joined(unpacked(found[place]), unpacked(found[place + step])));
    }
    if (row < RESULTS && across == 0u) {
        if (STAGE == 1u) {
            partial[row * PARTS + part] = found[place];
        } else {
            uvec2 value = finished(unpacked(found[place]));
            if (WORDS == 2u) {
                result[2u * row] = value.x;
                result[2u * row + 1u] = value.y;
            } else {
                result[row] = value.x;
            }
        }
    }
}
