#version 450
// Entries in the order of their slots, those of a slot in their own order: a stable radix sort by eight bits of the slot
// a pass, in three dispatches. Blocks of entries count their digits (COUNT); the counts become each block's first place
// of each digit (SCAN); each block moves its entries there (PLACE). In a block, a round takes one entry a thread; an
// entry's rank is the number of set bits before its own in the mask of threads that have the same digit.
// Bindings: 0 index (64-bit whole numbers), 1 entries in the order so far, 2 counts, a row of 256 for each block, 3 the
// new order.
// Constants: 0 entries, 1 rounds a block, 2 blocks, 3 shift of the digit, 4 the first pass, whose order is the entries'
// own.
// variant: gather_sort_count -DCOUNT
// variant: gather_sort_scan -DSCAN
// variant: gather_sort_place -DPLACE
#define LOCAL 256
layout(local_size_x = LOCAL) in;
layout(constant_id = 0) const uint ENTRIES = 1;
layout(constant_id = 1) const uint ROUNDS = 1;
layout(constant_id = 2) const uint BLOCKS = 1;
layout(constant_id = 3) const uint SHIFT = 0;
layout(constant_id = 4) const uint FIRST = 1;
layout(set = 0, binding = 0) readonly buffer Index { uvec2 entry_slot[]; };
layout(set = 0, binding = 1) readonly buffer Before { uint before[]; };
layout(set = 0, binding = 2) buffer Counts { uint counts[]; };
layout(set = 0, binding = 3) writeonly buffer After { uint after[]; };
shared uint digits[256];
#ifdef PLACE
shared uint same[256 * LOCAL / 32];
#endif

void main() {
    uint block = gl_WorkGroupID.x, thread = gl_LocalInvocationIndex;
#ifdef SCAN
    uint total = 0u;
    for (uint b = 0u; b < BLOCKS; b++) total += counts[b * 256u + thread];
    digits[thread] = total;
    barrier();
    for (uint step = 1u; step < 256u; step *= 2u) {
        uint sum = digits[thread] + (thread >= step ? digits[thread - step] : 0u);
        barrier();
        digits[thread] = sum;
        barrier();
    }
    uint place = digits[thread] - total;
    for (uint b = 0u; b < BLOCKS; b++) {
        uint here = counts[b * 256u + thread];
        counts[b * 256u + thread] = place;
        place += here;
    }
#else
#ifdef PLACE
    digits[thread] = counts[block * 256u + thread];
    for (uint n = 0u; n < LOCAL / 32; n++) same[thread * (LOCAL / 32) + n] = 0u;
#else
    digits[thread] = 0u;
#endif
    barrier();
    for (uint round = 0u; round < ROUNDS; round++) {
        uint at = (block * ROUNDS + round) * LOCAL + thread, entry = 0u, digit = 0u;
        bool there = at < ENTRIES;
        if (there) {
            entry = FIRST != 0u ? at : before[at];
            digit = entry_slot[entry].x >> SHIFT & 255u;
        }
#ifdef COUNT
        if (there) atomicAdd(digits[digit], 1u);
#else
        uint mask = digit * (LOCAL / 32), word = thread / 32u, bit = thread % 32u;
        if (there) atomicOr(same[mask + word], 1u << bit);
        barrier();
        if (there) {
            uint rank = bitCount(same[mask + word] & ((1u << bit) - 1u));
            for (uint n = 0u; n < word; n++) rank += bitCount(same[mask + n]);
            after[digits[digit] + rank] = entry;
        }
        barrier();
        for (uint n = 0u; n < LOCAL / 32; n++) {
            digits[thread] += bitCount(same[thread * (LOCAL / 32) + n]);
            same[thread * (LOCAL / 32) + n] = 0u;
        }
        barrier();
#endif
    }
#ifdef COUNT
    barrier();
    counts[block * 256u + thread] = digits[thread];
#endif
#endif
}
