// RESULT[r][o] += the weights of row ty + TY r times the other tile's rows, VC of which are staged at a time. Included
// with RESULT and OTHER_QUAD(row, at) defined; the weights in shared memory may have been written just before.
[[unroll]] for (uint part = 0u; part < OTHER / VC; part++) {
    barrier();
    [[unroll]] for (uint n = 0u; n < VC * W4 / THREADS; n++) {
        uint at = n * THREADS + thread;
        stage[at] = OTHER_QUAD(part * VC + at / W4, 4u * (at % W4));
    }
    barrier();
    [[unroll]] for (uint o = 0u; o < OC; o++) {
        vec4 sums[SR];
        EACH_ROW sums[r] = vec4(0.0);
        for (uint j = 0u; j < VC / 4; j++) {
            vec4 w[SR];
            EACH_ROW w[r] = weights[(ty + TY * r) * (OTHER / 4) + ((part * (VC / 4) + j) ^ twist_y)];
            [[unroll]] for (uint x = 0u; x < 4u; x++) {
                vec4 other = stage[(4u * j + x) * W4 + o * TX + tx];
                EACH_ROW sums[r] = fma(vec4(w[r][x]), other, sums[r]);
            }
        }
        EACH_ROW RESULT[r][o] += sums[r];
    }
}
#undef RESULT
#undef OTHER_QUAD
