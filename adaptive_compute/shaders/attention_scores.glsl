// SUMS[r][g][x] += the product of row ty + TY r of the workgroup's own tile and row 4 (tx + TX g) + x of the other, over
// a head axis of WIDTH in CHUNK_COUNT chunks of CHUNK_QUADS quads. Included where a shader needs it, with those names and
//   OWN_QUAD(row, at)    a quad of the own tile's row, or zero beyond its end
//   OTHER_QUAD(row, at)  the same of the other tile
// Rows are swizzled in the stage so that eight of them read at once lie in different banks.
for (uint chunk = 0u; chunk < CHUNK_COUNT; chunk++) {
    uint start = chunk * CHUNK_QUADS;
    barrier();
    [[unroll]] for (uint n = 0u; n < OWN * K4 / THREADS; n++) {
        uint at = n * THREADS + thread, row = at / K4, k = at % K4;
        if (k < CHUNK_QUADS) stage[row * K4 + (k ^ (row & 7u))] = OWN_QUAD(row, 4u * (start + k));
    }
    [[unroll]] for (uint n = 0u; n < OTHER * K4 / THREADS; n++) {
        uint at = n * THREADS + thread, row = at / K4, k = at % K4;
        if (k < CHUNK_QUADS) stage[(OWN + row) * K4 + (k ^ (row >> 2 & 7u))] = OTHER_QUAD(row, 4u * (start + k));
    }
    barrier();
    for (uint k = 0u; k < CHUNK_QUADS; k++) {
        vec4 own[SR];
        EACH_ROW own[r] = stage[(ty + TY * r) * K4 + (k ^ twist_y)];
        EACH_GROUP EACH_COLUMN {
            vec4 other = stage[(OWN + 4u * (tx + TX * g) + x) * K4 + (k ^ twist_x)];
            EACH_ROW {
                float sum = fma(own[r].x, other.x, SUMS[r][g][x]);
                sum = fma(own[r].y, other.y, sum);
                sum = fma(own[r].z, other.z, sum);
                SUMS[r][g][x] = fma(own[r].w, other.w, sum);
            }
        }
    }
}
#undef SUMS
#undef WIDTH
#undef CHUNK_COUNT
#undef CHUNK_QUADS
#undef OWN_QUAD
#undef OTHER_QUAD
