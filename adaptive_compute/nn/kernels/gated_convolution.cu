// The gated long convolution on CUDA: short convolution, gates and a causal convolution of any length, in one pass.
//
// Compiled for one LENGTH (a power of two from 256 on, at least the sequence's), one ELEMENT (0 float32, 1 bfloat16)
// and one number of TAPS of the short convolution. Every row lies along time: neighbours in time are neighbours in
// memory.
//
// The method. For real sequences of at most N values, U[k] = sum_t u[t] z_k^t with z_k = exp(-2 pi i (k + 1/4) / N) is
// the sequence's polynomial at the N roots of X^N = -i. A product of two such spectra belongs to the product of the
// polynomials modulo X^N + i: low + X^N high becomes low - i high, and since both halves are real, the real part of
// the inverse is the causal convolution cut at N. So a complex transform of N points, not of 2N, does for a real
// sequence what zero padding is for, and every sequence is by itself. The transform is unitary but for 1/N, so
// correlations (gradients) are products with the conjugate.
//
// A thread holds 16 points. Steps of radix 16 (decimation in frequency) pass through shared memory; the spectrum stays
// in the order they leave it in, which the inverse undoes.

#define DEVICE __device__ __forceinline__

constexpr int N = LENGTH;
constexpr int P = N / 16;                   // threads of a sequence
constexpr int S = P < 128 ? 128 / P : 1;    // sequences of a block: of neighbouring channels
constexpr int PLACES = N + N / 16;          // of a sequence's points in shared memory, with gaps against bank conflicts
constexpr int HALO = TAPS - 1;

// Blocks that a multiprocessor should hold: registers are given out for that many
#ifndef RESIDENT_FORWARD
#define RESIDENT_FORWARD 640 / (P * S) + (P * S > 640)
#endif
#ifndef RESIDENT_BACKWARD
#define RESIDENT_BACKWARD 512 / (P * S) + (P * S > 512)
#endif


#if ELEMENT == 1
typedef unsigned short Element;
DEVICE float wide(Element x) { return __uint_as_float((unsigned)x << 16); }
DEVICE Element narrow(float x) {
    unsigned u = __float_as_uint(x);
    return x != x ? 0x7fc0 : (Element)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
#else
typedef float Element;
DEVICE float wide(Element x) { return x; }
DEVICE Element narrow(float x) { return x; }
#endif

struct alignas(16) Pack { Element at[16 / sizeof(Element)]; };

DEVICE float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
DEVICE float2 times_conjugate(float2 a, float2 b) {  // a times the conjugate of b
    return make_float2(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}
DEVICE float2 plus(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
DEVICE float2 minus(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }

// cos(2 pi m / 64): every constant angle of the transforms is a multiple of 1/64 of a turn
DEVICE constexpr float cosine(int m) {
    m = m & 63;
    m = m > 32 ? 64 - m : m;
    bool flip = m > 16;
    m = flip ? 32 - m : m;
    float value = m == 0 ? 1.0f : m == 1 ? 0.99518472667219693f : m == 2 ? 0.98078528040323043f :
        m == 3 ? 0.95694033573220882f : m == 4 ? 0.92387953251128674f : m == 5 ? 0.88192126434835505f :
        m == 6 ? 0.83146961230254524f : m == 7 ? 0.77301045336273699f : m == 8 ? 0.70710678118654752f :
        m == 9 ? 0.63439328416364549f : m == 10 ? 0.55557023301960218f : m == 11 ? 0.47139673682599764f :
        m == 12 ? 0.38268343236508977f : m == 13 ? 0.29028467725446233f : m == 14 ? 0.19509032201612825f :
        m == 15 ? 0.09801714032956060f : 0.0f;
    return flip ? -value : value;
}
DEVICE constexpr float sine(int m) { return cosine(m - 16); }

// a times exp(-SIGN 2 pi i m / 64)
template <int SIGN> DEVICE float2 turned(float2 a, int m) {
    if (m == 0) return a;
    if (m == 16) return SIGN > 0 ? make_float2(a.y, -a.x) : make_float2(-a.y, a.x);
    float c = cosine(m), s = SIGN > 0 ? -sine(m) : sine(m);
    return make_float2(a.x * c - a.y * s, a.x * s + a.y * c);
}

template <int SIGN> DEVICE void four(float2& a, float2& b, float2& c, float2& d) {
    float2 e = plus(a, c), f = minus(a, c), g = plus(b, d), h = turned<SIGN>(minus(b, d), 16);
    a = plus(e, g);
    b = plus(f, h);
    c = minus(e, g);
    d = minus(f, h);
}

template <int SIGN> DEVICE void sixteen(float2 (&v)[16]) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        four<SIGN>(v[r], v[r + 4], v[r + 8], v[r + 12]);
        v[r + 4] = turned<SIGN>(v[r + 4], 4 * r);
        v[r + 8] = turned<SIGN>(v[r + 8], 8 * r);
        v[r + 12] = turned<SIGN>(v[r + 12], 12 * r);
    }
#pragma unroll
    for (int q = 0; q < 16; q += 4) four<SIGN>(v[q], v[q + 1], v[q + 2], v[q + 3]);
    // v[4 q0 + q1] is output q0 + 4 q1
#pragma unroll
    for (int q = 0; q < 4; q++)
#pragma unroll
        for (int p = q + 1; p < 4; p++) {
            float2 x = v[4 * q + p];
            v[4 * q + p] = v[4 * p + q];
            v[4 * p + q] = x;
        }
}

// transforms of M = 2, 4 or 8 neighbours, 16 / M of them
template <int SIGN, int M> DEVICE void few(float2 (&v)[16]) {
#pragma unroll
    for (int at = 0; at < 16; at += M) {
        if constexpr (M == 2) {
            float2 a = v[at], b = v[at + 1];
            v[at] = plus(a, b);
            v[at + 1] = minus(a, b);
        } else if constexpr (M == 4) {
            four<SIGN>(v[at], v[at + 1], v[at + 2], v[at + 3]);
        } else {
            float2 a[4], b[4];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                a[r] = plus(v[at + r], v[at + r + 4]);
                b[r] = turned<SIGN>(minus(v[at + r], v[at + r + 4]), 8 * r);
            }
            four<SIGN>(a[0], a[1], a[2], a[3]);
            four<SIGN>(b[0], b[1], b[2], b[3]);
#pragma unroll
            for (int r = 0; r < 4; r++) {
                v[at + 2 * r] = a[r];
                v[at + 2 * r + 1] = b[r];
            }
        }
    }
}

// v[q] times exp(-SIGN 2 pi i j (q + SHIFT / 4) / M)
template <int SIGN, int M, int SHIFT> DEVICE void twiddle(float2 (&v)[16], int j) {
    float2 w[4];
    sincospif(2.0f * j / M, &w[0].y, &w[0].x);
    if (SIGN > 0) w[0].y = -w[0].y;
#pragma unroll
    for (int bit = 1; bit < 4; bit++) w[bit] = times(w[bit - 1], w[bit - 1]);
    float2 t[16];
    if (SHIFT) {
        sincospif(0.5f * j / M, &t[0].y, &t[0].x);
        if (SIGN > 0) t[0].y = -t[0].y;
        v[0] = times(v[0], t[0]);
    }
#pragma unroll
    for (int q = 1; q < 16; q++) {
        int bit = q >= 8 ? 3 : q >= 4 ? 2 : q >= 2 ? 1 : 0;
        int rest = q - (1 << bit);
        t[q] = rest == 0 && !SHIFT ? w[bit] : times(t[rest], w[bit]);
        v[q] = times(v[q], t[q]);
    }
}

template <int THREADS> DEVICE void wait() {  // for the threads that share a part of shared memory
    if constexpr (THREADS <= 32) __syncwarp();
    else __syncthreads();
}

// The same number, which the compiler takes for another: so that it computes factors and places again for every
// transform, and does not keep dozens of them in registers from one to the next.
DEVICE int anew(int i) {
#ifndef ON_HOST
    asm volatile("" : "+r"(i));
#endif
    return i;
}

DEVICE int place(int at) { return at + (at >> 4); }

// Where a thread finds, behind the step of size M, the point r of what it works on next
template <int M> DEVICE int next(int i, int r) {
    constexpr int Q = M / 16;
    int j = i & (Q - 1), base = (i / Q) * M;
    if constexpr (Q >= 16) {
        constexpr int R = Q / 16;
        return place(base + (j / R) * Q + (j & (R - 1)) + R * r);
    } else {
        return place(base + (j + Q * (r / Q)) * Q + r % Q);
    }
}

template <int M> DEVICE void forward(float2 (&v)[16], float2* shared, int i) {
    if constexpr (M < 16) {
        few<1, M>(v);
    } else {
        sixteen<1>(v);
        if constexpr (M > 16) {
            constexpr int Q = M / 16;
            int j = i & (Q - 1), base = (i / Q) * M;
            twiddle<1, M, M == N>(v, j);
            wait<Q>();
#pragma unroll
            for (int q = 0; q < 16; q++) shared[place(base + q * Q + j)] = v[q];
            wait<Q>();
#pragma unroll
            for (int r = 0; r < 16; r++) v[r] = shared[next<M>(i, r)];
            forward<Q>(v, shared, i);
        }
    }
}

template <int M> DEVICE void inverse(float2 (&v)[16], float2* shared, int i) {
    if constexpr (M < 16) {
        few<-1, M>(v);
    } else {
        if constexpr (M > 16) {
            constexpr int Q = M / 16;
            inverse<Q>(v, shared, i);
            int j = i & (Q - 1), base = (i / Q) * M;
            wait<Q>();
#pragma unroll
            for (int r = 0; r < 16; r++) shared[next<M>(i, r)] = v[r];
            wait<Q>();
#pragma unroll
            for (int q = 0; q < 16; q++) v[q] = shared[place(base + q * Q + j)];
            twiddle<-1, M, M == N>(v, j);
        }
        sixteen<-1>(v);
    }
}

// A real value's place in shared memory, so that packs of four and runs of single values are both free of conflicts
DEVICE int spot(int t) { return t ^ (((t >> 5) & 1) << 2); }

DEVICE void spread(const float* real, float2 (&v)[16], int i) {  // from shared memory, weighted by exp(-2 pi i r / 64)
#pragma unroll
    for (int r = 0; r < 16; r++) {
        float x = real[spot(i + P * r)];
        v[r] = make_float2(x * cosine(r), -x * sine(r));
    }
}

DEVICE float gathered(float2 a, int r) { return a.x * cosine(r) - a.y * sine(r); }

DEVICE void transform(const float* values, float2 (&v)[16], float2* shared, int i) {
    wait<P>();
    spread(values, v, i);
    forward<N>(v, shared, i);
}

// COUNT values from t on, as many as there are before ``length``; the others are zero
template <int COUNT> DEVICE void read(const Element* row, int t, int length, bool packed, float (&x)[COUNT]) {
    constexpr int SIZE = 16 / sizeof(Element);
    if (packed && t + COUNT / 8 * 8 <= length) {
#pragma unroll
        for (int at = 0; at + SIZE <= COUNT; at += SIZE) {
            Pack pack = *(const Pack*)(row + t + at);
#pragma unroll
            for (int n = 0; n < SIZE; n++) x[at + n] = wide(pack.at[n]);
        }
#pragma unroll
        for (int at = COUNT / SIZE * SIZE; at < COUNT; at++) x[at] = t + at < length ? wide(row[t + at]) : 0.0f;
    } else {
#pragma unroll
        for (int at = 0; at < COUNT; at++) x[at] = t + at < length ? wide(row[t + at]) : 0.0f;
    }
}

// The short convolution's input at t - HALO ... t + COUNT - 1, and its output at t ... t + COUNT - 1
template <int COUNT> DEVICE void short_convolution(
    const Element* row, int t, int length, bool packed, const float* weight, float (&z)[COUNT + HALO],
    float (&x)[COUNT]) {
    float now[COUNT];
    read<COUNT>(row, t, length, packed, now);
#pragma unroll
    for (int k = 0; k < HALO; k++) z[k] = t + k >= HALO && t + k - HALO < length ? wide(row[t + k - HALO]) : 0.0f;
#pragma unroll
    for (int n = 0; n < COUNT; n++) z[n + HALO] = now[n];
#pragma unroll
    for (int n = 0; n < COUNT; n++) {
        x[n] = 0.0f;
#pragma unroll
        for (int k = 0; k < TAPS; k++) x[n] += weight[k] * z[n + k];
    }
}

struct Rows {  // of z: (3, channels) rows by batch; strides in elements
    const Element* z;
    long long channel, batch;
    const float* weight;  // (3, channels, TAPS), of z[t], z[t - 1], ...
};

struct Part {  // one of the three parts of a channel
    const Element* row;
    float weight[TAPS];  // the last lag first
};

DEVICE Part part(const Rows& rows, int number, int channels, int channel, int item) {
    Part p;
    long long at = (long long)number * channels + channel;
    p.row = rows.z + at * rows.channel + item * rows.batch;
#pragma unroll
    for (int k = 0; k < TAPS; k++) p.weight[k] = rows.weight[at * TAPS + HALO - k];
    return p;
}

DEVICE void store8(Element* row, int t, int length, bool packed, const float (&x)[8]) {
    constexpr int SIZE = 16 / sizeof(Element);
    if (packed && t + 8 <= length) {
#pragma unroll
        for (int at = 0; at < 8; at += SIZE) {
            Pack pack;
#pragma unroll
            for (int n = 0; n < SIZE; n++) pack.at[n] = narrow(x[at + n]);
            *(Pack*)(row + t + at) = pack;
        }
    } else {
#pragma unroll
        for (int n = 0; n < 8; n++)
            if (t + n < length) row[t + n] = narrow(x[n]);
    }
}

DEVICE void stage8(float* real, int t, const float (&x)[8]) {
    *(float4*)(real + spot(t)) = make_float4(x[0], x[1], x[2], x[3]);
    *(float4*)(real + spot(t + 4)) = make_float4(x[4], x[5], x[6], x[7]);
}

#define BLOCK                                                                                                          \
    extern __shared__ float4 memory[];                                                                                 \
    const int i = threadIdx.x % P;                                                                                     \
    float2* shared = (float2*)memory + threadIdx.x / P * PLACES;                                                       \
    const bool real_channel = (int)(blockIdx.x * S + threadIdx.x / P) < channels;                                      \
    const int channel = real_channel ? (int)(blockIdx.x * S + threadIdx.x / P) : channels - 1;                         \
    float* real = (float*)shared;

// Spectra (channels, 16, P), divided by N, of filters (channels, taps)
extern "C" __global__ void __launch_bounds__(P * S)
spectrum(float2* out, const float* h, int channels, int taps) {
    BLOCK
    float2 v[16];
    const float* row = h + (long long)channel * taps;
#pragma unroll
    for (int r = 0; r < 16; r++) {
        int t = i + P * r;
        float x = t < taps ? row[t] : 0.0f;
        v[r] = make_float2(x * cosine(r), -x * sine(r));
    }
    forward<N>(v, shared, i);
    if (real_channel)
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
    inverse<N>(v, shared, anew(i));
    if (real_channel)
#pragma unroll
        for (int r = 0; r < 16; r++) {
            int t = i + P * r;
            if (t < taps) out[(long long)channel * taps + t] = gathered(v[r], r) * (1.0f / N);
        }
}

// out = x1 * (h conv (x2 * v)), where x1, x2, v are the short convolution of z
extern "C" __global__ void __launch_bounds__(P * S, RESIDENT_FORWARD)
gated(Element* out, long long out_channel, long long out_batch, const Element* z, long long z_channel,
      long long z_batch, const float* weight, const float2* filter, int channels, int length,
      int packed) {
    BLOCK
    const int item = blockIdx.y;
    const Rows rows = {z, z_channel, z_batch, weight};
    {
        Part a = part(rows, 1, channels, channel, item), b = part(rows, 2, channels, channel, item);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            int t = 8 * (i + P * m);
            float old[8 + HALO], x[8], v[8];
            short_convolution<8>(a.row, t, length, packed, a.weight, old, x);
            short_convolution<8>(b.row, t, length, packed, b.weight, old, v);
#pragma unroll
            for (int n = 0; n < 8; n++) x[n] = t + n < length ? x[n] * v[n] : 0.0f;
            stage8(real, t, x);
        }
    }
    float2 v[16];
    transform(real, v, shared, i);
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = times(v[r], filter[(long long)channel * N + r * P + i]);
    inverse<N>(v, shared, anew(i));
    wait<P>();
#pragma unroll
    for (int r = 0; r < 16; r++) real[spot(i + P * r)] = gathered(v[r], r);
    wait<P>();
    Part gate = part(rows, 0, channels, channel, item);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        int t = 8 * (i + P * m);
        float old[8 + HALO], x[8];
        short_convolution<8>(gate.row, t, length, packed, gate.weight, old, x);
#pragma unroll
        for (int n = 0; n < 8; n++) x[n] *= real[spot(t + n)];
        if (real_channel) store8(out + channel * out_channel + item * out_batch, t, length, packed, x);
    }
}

// Gradients: of z; of the filter's spectrum, a partial sum for each group of items; of the short convolution's weights,
// (groups, 3, channels, TAPS), likewise. The convolution is made anew, not kept.
extern "C" __global__ void __launch_bounds__(P * S, RESIDENT_BACKWARD)
gated_gradient(Element* dz, long long dz_channel, long long dz_batch, float2* partial, float* sums, const Element* dout,
               long long out_channel, long long out_batch, const Element* z, long long z_channel, long long z_batch,
               const float* weight, const float2* filter, int channels, int length, int items,
               int packed) {
    BLOCK
    const Rows rows = {z, z_channel, z_batch, weight};
#if TOTAL_SHARED
    float2* total = (float2*)memory + S * PLACES + threadIdx.x;
#define TOTAL(r) total[(r) * P * S]
#else
    float2 total[16];
#define TOTAL(r) total[r]
#endif
    float sum[3][TAPS];
#pragma unroll
    for (int r = 0; r < 16; r++) TOTAL(r) = make_float2(0.0f, 0.0f);
#pragma unroll
    for (int n = 0; n < 3 * TAPS; n++) sum[n / TAPS][n % TAPS] = 0.0f;
    for (int item = blockIdx.y; item < items; item += gridDim.y) {
        const Element* g_row = dout + channel * out_channel + item * out_batch;
        float* second = real + N;
        wait<P>();
        {
            Part gate = part(rows, 0, channels, channel, item), a = part(rows, 1, channels, channel, item),
                 b = part(rows, 2, channels, channel, item);
#pragma unroll 1
            for (int m = 0; m < 2; m++) {
                int t = 8 * (i + P * m);
                float old[8 + HALO], x[8], v[8];
                short_convolution<8>(a.row, t, length, packed, a.weight, old, x);
                short_convolution<8>(b.row, t, length, packed, b.weight, old, v);
#pragma unroll
                for (int n = 0; n < 8; n++) x[n] = t + n < length ? x[n] * v[n] : 0.0f;
                stage8(real, t, x);
                short_convolution<8>(gate.row, t, length, packed, gate.weight, old, x);
                read<8>(g_row, t, length, packed, v);
#pragma unroll
                for (int n = 0; n < 8; n++) x[n] *= v[n];
                stage8(second, t, x);
            }
        }
        wait<P>();
        float2 u[16], g[16];
        spread(real, u, i);
        spread(second, g, i);
        forward<N>(u, shared, anew(i));
        forward<N>(g, shared, anew(i));
#pragma unroll
        for (int r = 0; r < 16; r++) {
            TOTAL(r) = plus(TOTAL(r), times_conjugate(g[r], u[r]));
            float2 f = filter[(long long)channel * N + r * P + i];
            u[r] = times(u[r], f);
            g[r] = times_conjugate(g[r], f);
        }
        inverse<N>(u, shared, anew(i));
        inverse<N>(g, shared, anew(i));
        wait<P>();
#pragma unroll
        for (int r = 0; r < 16; r++) {
            real[spot(i + P * r)] = gathered(u[r], r);
            second[spot(i + P * r)] = gathered(g[r], r);
        }
        wait<P>();
        Part gate = part(rows, 0, channels, channel, item), a = part(rows, 1, channels, channel, item),
             b = part(rows, 2, channels, channel, item);
        constexpr int MORE = 8 + HALO;
#pragma unroll 1
        for (int m = 0; m < 2; m++) {
            int t = 8 * (i + P * m);
            float x2[MORE], v[MORE], d[MORE], du[MORE], old[MORE + HALO], old2[MORE + HALO], y[MORE];
            short_convolution<MORE>(a.row, t, length, packed, a.weight, old, x2);
            short_convolution<MORE>(b.row, t, length, packed, b.weight, old2, v);
            read<MORE>(g_row, t, length, packed, d);
#pragma unroll
            for (int n = 0; n < MORE; n++) {
                bool inside = t + n < length;
                y[n] = inside ? real[spot(t + n)] * d[n] : 0.0f;
                du[n] = inside ? second[spot(t + n)] : 0.0f;
                d[n] = du[n] * v[n];
                v[n] = du[n] * x2[n];
            }
#pragma unroll
            for (int which = 0; which < 3; which++) {
                const float(&grad)[MORE] = which == 0 ? y : which == 1 ? d : v;
                const Part& p = which == 0 ? gate : which == 1 ? a : b;
                float before[MORE + HALO];
                if (which == 0) {
                    float now[MORE];
                    short_convolution<MORE>(p.row, t, length, packed, p.weight, before, now);
                }
                const float(&input)[MORE + HALO] = which == 0 ? before : which == 1 ? old : old2;
                float back[8];
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    back[n] = 0.0f;
#pragma unroll
                    for (int k = 0; k < TAPS; k++) {
                        back[n] += p.weight[k] * grad[n + HALO - k];
                        sum[which][k] += grad[n] * input[n + k];
                    }
                }
                if (real_channel)
                    store8(dz + ((long long)which * channels + channel) * dz_channel + item * dz_batch, t, length,
                           packed, back);
            }
        }
    }
    if (real_channel)
#pragma unroll
        for (int r = 0; r < 16; r++)
            partial[((long long)blockIdx.y * channels + channel) * N + r * P + i] = TOTAL(r);
    // the threads' sums, added up in shared memory: in a fixed order, so that gradients are the same every time
    constexpr int SUMS = 3 * TAPS;
    wait<P>();
    for (int n = 0; n < SUMS; n++) {
        wait<P>();
        real[i] = sum[n / TAPS][n % TAPS];
        for (int half = P / 2; half > 0; half /= 2) {
            wait<P>();
            if (i < half) real[i] += real[i + half];
        }
        if (i == 0 && real_channel)
            sums[(((long long)blockIdx.y * 3 + n / TAPS) * channels + channel) * TAPS + HALO - n % TAPS] = real[0];
    }
}
