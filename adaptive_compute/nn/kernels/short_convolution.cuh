// Rows of elements in memory, the short convolution along them, and the gates: eight positions a thread.
//
// Compiled for one ELEMENT (0 float32, 1 bfloat16) and one number of TAPS. Rows lie along time: neighbours in time are
// neighbours in memory. Everything is computed in float32.

constexpr int HALO = TAPS - 1;

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

// The elements of a pack from x[at] on
DEVICE Pack narrowed(const float (&x)[8], int at) {
    Pack pack;
#if ELEMENT == 1 && __CUDA_ARCH__ >= 800
#pragma unroll
    for (int n = 0; n < 4; n++)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(((unsigned*)&pack)[n]) : "f"(x[2 * n + 1]), "f"(x[2 * n]));
#else
#pragma unroll
    for (int n = 0; n < 16 / sizeof(Element); n++) pack.at[n] = narrow(x[at + n]);
#endif
    return pack;
}

// Whether position t + n is in the sequence, for a t that is a multiple of 8 and n from -HALO to 8 + HALO. Where rows are
// PACKED (lengths and strides are multiples of 8, addresses of 16 bytes), eight positions are there together or not at all
DEVICE bool inside(int t, int n, int length) {
#if PACKED
    return n < 0 ? t > 0 && t <= length : n < 8 ? t < length : t + 8 < length;
#else
    return t + n >= 0 && t + n < length;
#endif
}

// COUNT values from t on; those behind the sequence are zero
template <int COUNT> DEVICE void read(const Element* row, int t, int length, float (&x)[COUNT]) {
    constexpr int SIZE = 16 / sizeof(Element);
    int first = 0;
#if PACKED
    first = 8;
#pragma unroll
    for (int at = 0; at < 8; at += SIZE) {
        Pack pack = {};
        if (inside(t, 0, length)) pack = *(const Pack*)(row + t + at);
#pragma unroll
        for (int n = 0; n < SIZE; n++) x[at + n] = wide(pack.at[n]);
    }
#endif
#pragma unroll
    for (int n = first; n < COUNT; n++) x[n] = inside(t, n, length) ? wide(row[t + n]) : 0.0f;
}

// The short convolution's input at t - HALO ... t + COUNT - 1, and its output at t ... t + COUNT - 1
template <int COUNT> DEVICE void short_convolution(
    const Element* row, int t, int length, const float* weight, float (&z)[COUNT + HALO],
    float (&x)[COUNT]) {
    float now[COUNT];
    read<COUNT>(row, t, length, now);
#pragma unroll
    for (int k = 0; k < HALO; k++) z[k] = inside(t, k - HALO, length) ? wide(row[t + k - HALO]) : 0.0f;
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

DEVICE void store8(Element* row, int t, int length, const float (&x)[8]) {
#if PACKED
    if (inside(t, 0, length))
#pragma unroll
        for (int at = 0; at < 8; at += 16 / sizeof(Element)) *(Pack*)(row + t + at) = narrowed(x, at);
#else
#pragma unroll
    for (int n = 0; n < 8; n++)
        if (inside(t, n, length)) row[t + n] = narrow(x[n]);
#endif
}

// The short convolution's gradient at t ... t + 7, from that of its output at t ... t + 7 + HALO; adds to the weights'
DEVICE void short_gradient(const float (&grad)[8 + HALO], const float (&z)[8 + 2 * HALO], const float* weight,
                           float (&back)[8], float (&sum)[TAPS]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        back[n] = 0.0f;
#pragma unroll
        for (int k = 0; k < TAPS; k++) {
            back[n] += weight[k] * grad[n + HALO - k];
            sum[k] += grad[n] * z[n + k];
        }
    }
}

// The gradient of z for one channel at t ... t + 7: from the convolution y and the gradient du of what went into it,
// both at t ... t + 7 + HALO
DEVICE void gate_gradient(const Part (&parts)[3], const Element* g_row, Element* const (&out)[3], int t, int length, bool kept, float (&y)[8 + HALO], float (&du)[8 + HALO], float (&sum)[3][TAPS]) {
    constexpr int MORE = 8 + HALO;
    float back[8], d[MORE], z[MORE + HALO], x[MORE];
    read<MORE>(g_row, t, length, d);
    short_convolution<MORE>(parts[0].row, t, length, parts[0].weight, z, x);
#pragma unroll
    for (int n = 0; n < MORE; n++) {
        y[n] = inside(t, n, length) ? y[n] * d[n] : 0.0f;
        du[n] = inside(t, n, length) ? du[n] : 0.0f;
    }
    short_gradient(y, z, parts[0].weight, back, sum[0]);
    if (kept) store8(out[0], t, length, back);
    float other[MORE + HALO], v[MORE];
    short_convolution<MORE>(parts[1].row, t, length, parts[1].weight, z, x);
    short_convolution<MORE>(parts[2].row, t, length, parts[2].weight, other, v);
#pragma unroll
    for (int n = 0; n < MORE; n++) {
        v[n] *= du[n];
        x[n] *= du[n];
    }
    short_gradient(v, z, parts[1].weight, back, sum[1]);
    if (kept) store8(out[1], t, length, back);
    short_gradient(x, other, parts[2].weight, back, sum[2]);
    if (kept) store8(out[2], t, length, back);
}

// u = x2 v at t ... t + 7
DEVICE void gate_in(const Part& a, const Part& b, int t, int length, float (&x)[8]) {
    float old[8 + HALO], v[8];
    short_convolution<8>(a.row, t, length, a.weight, old, x);
    short_convolution<8>(b.row, t, length, b.weight, old, v);
#pragma unroll
    for (int n = 0; n < 8; n++) x[n] = inside(t, n, length) ? x[n] * v[n] : 0.0f;
}

// x times x1 at t ... t + 7
DEVICE void gate_out(const Part& a, int t, int length, float (&x)[8]) {
    float old[8 + HALO], gate[8];
    short_convolution<8>(a.row, t, length, a.weight, old, gate);
#pragma unroll
    for (int n = 0; n < 8; n++) x[n] *= gate[n];
}

// The sums of COUNT threads, added up in a fixed order, so that gradients are the same every time, through COUNT / 32
// times 3 TAPS floats of shared memory
template <int COUNT, class Where> DEVICE void add_up(
    float (&sum)[3][TAPS], float* real, const Where& where, int i, bool kept, float* out, int channels, int channel) {
    constexpr int SUMS = 3 * TAPS, SIDE = COUNT < 32 ? COUNT : 32, WARPS = COUNT / SIDE;
#pragma unroll
    for (int n = 0; n < SUMS; n++) {
        float& x = sum[n / TAPS][n % TAPS];
#pragma unroll
        for (int by = SIDE / 2; by > 0; by /= 2) x += __shfl_down_sync(0xffffffffu, x, by);
        if (i % SIDE == 0) real[n * WARPS + i / SIDE] = x;
    }
    where.template wait<COUNT>();
    for (int n = i; n < SUMS; n += COUNT) {
        float x = 0.0f;
        for (int warp = 0; warp < WARPS; warp++) x += real[n * WARPS + warp];
        if (kept) out[((long long)n / TAPS * channels + channel) * TAPS + HALO - n % TAPS] = x;
    }
}
