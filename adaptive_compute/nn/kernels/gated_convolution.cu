// The gated long convolution of sequences that fit in shared memory: short convolution, gates and transforms in one.
//
// Compiled for one LENGTH, a power of two from 256 on that is at least the sequence's length.

constexpr int N = LENGTH;
constexpr int P = N / 16;                 // threads of a sequence
constexpr int S = P < 128 ? 128 / P : 1;  // sequences of a block: of neighbouring channels

// Blocks that a multiprocessor should hold: registers are given out for that many
constexpr int RESIDENT_FORWARD = P > 256 ? 2 : 768 / (P * S), RESIDENT_BACKWARD = 512 / (P * S);

#define BLOCK                                                                                                          \
    extern __shared__ float4 memory[];                                                                                 \
    const int i = threadIdx.x % P;                                                                                     \
    const Alone<N> where = {(float2*)memory + threadIdx.x / P * Alone<N>::PLACES};                                     \
    const bool kept = (int)(blockIdx.x * S + threadIdx.x / P) < channels;                                              \
    const int channel = kept ? (int)(blockIdx.x * S + threadIdx.x / P) : channels - 1;                                 \
    const Angles<N> angles(i);

// Spectra (channels, 16, P), divided by N, of filters (channels, taps) whose first values have ``skip`` added
extern "C" __global__ void __launch_bounds__(P * S)
spectrum(float2* out, const float* h, const float* skip, int channels, int taps) {
    BLOCK
    float2 v[16];
    const float* row = h + (long long)channel * taps;
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = weighted(i + P * r < taps ? row[i + P * r] : 0.0f, r);
    if (skip && i == 0) v[0].x += skip[channel];
    forward<N, true>(v, where, angles, i);
    if (kept)
#pragma unroll
        for (int r = 0; r < 16; r++)
            out[(long long)channel * N + r * P + i] = make_float2(v[r].x * (1.0f / N), v[r].y * (1.0f / N));
}

// The gradient (channels, taps) of the filters from ``groups`` partial sums of their spectra's
extern "C" __global__ void __launch_bounds__(P * S)
filter_gradient(float* out, const float2* partial, int channels, int taps, int groups) {
    BLOCK
    float2 v[16];
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = make_float2(0.0f, 0.0f);
    for (int group = 0; group < groups; group++)
#pragma unroll
        for (int r = 0; r < 16; r++)
            v[r] = plus(v[r], partial[((long long)group * channels + channel) * N + r * P + i]);
    inverse<N, true>(v, where, angles, i);
    if (kept)
#pragma unroll
        for (int r = 0; r < 16; r++)
            if (i + P * r < taps) out[(long long)channel * taps + i + P * r] = real_part(v[r], r) * (1.0f / N);
}

// out = x1 (h * (x2 v)), where x1, x2, v are the short convolution of z
extern "C" __global__ void __launch_bounds__(P * S, RESIDENT_FORWARD)
gated(Element* out, long long out_channel, long long out_batch, const Element* z, long long z_channel,
      long long z_batch, const float* weight, const float2* filter, int channels, int length) {
    BLOCK
    const int item = blockIdx.y;
    const Rows rows = {z, z_channel, z_batch, weight};
    float* real = (float*)where.shared;
    {
        Part a = part(rows, 1, channels, channel, item), b = part(rows, 2, channels, channel, item);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            int t = 8 * (i + P * m);
            float x[8];
            gate_in(a, b, t, length, x);
            stage8(real, t, x);
        }
    }
    where.wait<P>();
    float2 v[16];
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = weighted(real[spot<P>(i, P * r)], r);
    forward<N, true>(v, where, angles, i);
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = times(v[r], filter[(long long)channel * N + r * P + i]);
    inverse<N, true>(v, where, angles, anew(i));
    where.wait<P>();
#pragma unroll
    for (int r = 0; r < 16; r++) real[spot<P>(i, P * r)] = real_part(v[r], r);
    where.wait<P>();
    Part gate = part(rows, 0, channels, channel, item);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        int t = 8 * (i + P * m);
        float x[8];
        unstage8(real, t, x);
        gate_out(gate, t, length, x);
        if (kept) store8(out + channel * out_channel + item * out_batch, t, length, x);
    }
}

// Gradients: of z; of the filter's spectrum, a partial sum for each group of items; of the short convolution's weights,
// (groups, 3, channels, TAPS), likewise. The convolution is made anew, not kept.
extern "C" __global__ void __launch_bounds__(P * S, RESIDENT_BACKWARD)
gated_gradient(Element* dz, long long dz_channel, long long dz_batch, float2* partial, float* sums, const Element* dout,
               long long out_channel, long long out_batch, const Element* z, long long z_channel, long long z_batch,
               const float* weight, const float2* filter, int channels, int length, int items) {
    BLOCK
    const Rows rows = {z, z_channel, z_batch, weight};
    float *first = (float*)where.shared, *second = first + N;
    float2* total = (float2*)memory + S * Alone<N>::PLACES + threadIdx.x;  // this thread's: too much for registers
    float sum[3][TAPS];
#pragma unroll
    for (int r = 0; r < 16; r++) total[r * P * S] = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int n = 0; n < 3 * TAPS; n++) sum[n / TAPS][n % TAPS] = 0.0f;
    for (int item = blockIdx.y; item < items; item += gridDim.y) {
        const Element* g_row = dout + channel * out_channel + item * out_batch;
        where.wait<P>();
        {
            Part gate = part(rows, 0, channels, channel, item), a = part(rows, 1, channels, channel, item),
                 b = part(rows, 2, channels, channel, item);
#pragma unroll 1
            for (int m = 0; m < 2; m++) {
                int t = 8 * (i + P * m);
                float x[8];
                gate_in(a, b, t, length, x);
                stage8(first, t, x);
                read<8>(g_row, t, length, x);
                gate_out(gate, t, length, x);
                stage8(second, t, x);
            }
        }
        where.wait<P>();
        float2 u[16], g[16];
#pragma unroll
        for (int r = 0; r < 16; r++) {
            u[r] = weighted(first[spot<P>(i, P * r)], r);
            g[r] = weighted(second[spot<P>(i, P * r)], r);
        }
#pragma unroll 1
        for (int n = 0; n < 2; n++) {  // the code once: a multiprocessor waits for instructions that its cache lacks
            forward<N, true>(u, where, angles, anew(i));
            swap(u, g);
        }
#pragma unroll
        for (int r = 0; r < 16; r++) {
            total[r * P * S] = plus(total[r * P * S], times_conjugate(g[r], u[r]));
            float2 f = filter[(long long)channel * N + r * P + i];
            u[r] = times(u[r], f);
            g[r] = times_conjugate(g[r], f);
        }
#pragma unroll 1
        for (int n = 0; n < 2; n++) {
            inverse<N, true>(u, where, angles, anew(i));
            where.wait<P>();  // its last step read from everywhere, and the next transform's first writes near by
            swap(u, g);
        }
#pragma unroll
        for (int r = 0; r < 16; r++) {
            first[spot<P>(i, P * r)] = real_part(u[r], r);
            second[spot<P>(i, P * r)] = real_part(g[r], r);
        }
        where.wait<P>();
        Part parts[3];
        Element* out[3];
#pragma unroll
        for (int n = 0; n < 3; n++) {
            parts[n] = part(rows, n, channels, channel, item);
            out[n] = dz + ((long long)n * channels + channel) * dz_channel + item * dz_batch;
        }
#pragma unroll 1
        for (int m = 0; m < 2; m++) {
            int t = 8 * (i + P * m);
            float y[8 + HALO], du[8 + HALO];
            unstage8(first, t, y);
            unstage8(second, t, du);
#pragma unroll
            for (int n = 8; n < 8 + HALO; n++) {  // behind the last position there is memory, whose values do not count
                y[n] = first[spot(t + n)];
                du[n] = second[spot(t + n)];
            }
            gate_gradient(parts, g_row, out, t, length, kept, y, du, sum);
        }
    }
    if (kept)
#pragma unroll
        for (int r = 0; r < 16; r++)
            partial[((long long)blockIdx.y * channels + channel) * N + r * P + i] = total[r * P * S];
    where.wait<P>();
    add_up<P>(sum, first, where, i, kept, sums + (long long)blockIdx.y * 3 * channels * TAPS, channels, channel);
}
