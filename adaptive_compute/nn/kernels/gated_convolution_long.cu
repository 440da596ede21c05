// The gated long convolution of long sequences, in steps through memory, each of them one reading and one writing.
//
// A sequence of ROWS * COLUMNS points is a matrix, a row after the other. Its transform is that of every column, a
// factor for every point, and that of every row. Columns are taken WIDTH at a time, so that memory is read in runs.
// In between, the matrices (channels or items * channels, ROWS, COLUMNS) stay in memory, in float32.

constexpr int N = ROWS * COLUMNS;
constexpr int WIDTH = ROWS > 256 ? 16 : 32;   // columns of a block
constexpr int HIGH = ROWS / 16;               // threads of a column
constexpr int TILES = COLUMNS / WIDTH;        // blocks of a matrix, by columns
constexpr int ACROSS = COLUMNS / 16;          // threads of a row
constexpr int DEEP = 128 / ACROSS;            // rows of a block
constexpr int STACKS = ROWS / DEEP;           // blocks of a matrix, by rows
constexpr int PACKS = WIDTH / 8;              // runs of eight in a block's part of a row
constexpr int SPAN = 4096;                    // positions of a block that computes gradients of z

#define COLUMN_BLOCK                                                                                                   \
    extern __shared__ float4 memory[];                                                                                 \
    const int i = threadIdx.x / WIDTH, column = blockIdx.x % TILES * WIDTH + threadIdx.x % WIDTH;                      \
    const Beside<WIDTH> where = {(float2*)memory + threadIdx.x % WIDTH};                                               \
    float* real = (float*)memory;                                                                                      \
    const Angles<ROWS> angles(i);

#define ROW_BLOCK                                                                                                      \
    extern __shared__ float4 memory[];                                                                                 \
    const int i = threadIdx.x % ACROSS, row = blockIdx.x % STACKS * DEEP + threadIdx.x / ACROSS;                       \
    const Alone<COLUMNS> where = {(float2*)memory + threadIdx.x / ACROSS * Alone<COLUMNS>::PLACES};                    \
    const Angles<COLUMNS> angles(i);

// v[r] times exp(-SIGN 2 pi i column (frequency + 1/4) / N); a frequency is the sum of what i and each bit of r give
template <int SIGN> DEVICE void between(float2 (&v)[16], int i, int column) {
    float2 w[4], t[16];
    sincospif(column * (2 * frequency<ROWS>(i, 0) + 0.5f) * (1.0f / N), &t[0].y, &t[0].x);
    if (SIGN > 0) t[0].y = -t[0].y;
#pragma unroll
    for (int bit = 0; bit < 4; bit++) {
        sincospif(column * (2.0f * frequency<ROWS>(0, 1 << bit)) * (1.0f / N), &w[bit].y, &w[bit].x);
        if (SIGN > 0) w[bit].y = -w[bit].y;
    }
    v[0] = times(v[0], t[0]);
#pragma unroll
    for (int r = 1; r < 16; r++) {
        int bit = r >= 8 ? 3 : r >= 4 ? 2 : r >= 2 ? 1 : 0;
        t[r] = times(t[r - (1 << bit)], w[bit]);
        v[r] = times(v[r], t[r]);
    }
}

DEVICE void columns_in(float2 (&v)[16], const Beside<WIDTH>& where, const Angles<ROWS>& angles, int i, int column, float2* matrix) {
    forward<ROWS, true>(v, where, angles, i);
    between<1>(v, i, column);
#pragma unroll
    for (int r = 0; r < 16; r++) matrix[(long long)frequency<ROWS>(i, r) * COLUMNS + column] = v[r];
}

DEVICE void columns_back(float2 (&v)[16], const Beside<WIDTH>& where, const Angles<ROWS>& angles, int i, int column, const float2* matrix) {
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = matrix[(long long)frequency<ROWS>(i, r) * COLUMNS + column];
    between<-1>(v, i, column);
    inverse<ROWS, true>(v, where, angles, i);
}

DEVICE void load_row(float2 (&v)[16], int i, const float2* at, const Alone<COLUMNS>& where, const Angles<COLUMNS>& angles) {
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = at[i + ACROSS * r];
    forward<COLUMNS, false>(v, where, angles, anew(i));
}

DEVICE void store_row(float2 (&v)[16], int i, float2* at, const Alone<COLUMNS>& where, const Angles<COLUMNS>& angles) {
    inverse<COLUMNS, false>(v, where, angles, anew(i));
#pragma unroll
    for (int r = 0; r < 16; r++) at[i + ACROSS * r] = v[r];
}

// The place of a run of eight: its number in the block's shared memory, and its position in the sequence
DEVICE int run(int m) { return threadIdx.x + m * (WIDTH * HIGH); }
DEVICE int position(int m) { return run(m) / PACKS * COLUMNS + blockIdx.x % TILES * WIDTH + run(m) % PACKS * 8; }

DEVICE void unstage(const float* real, float2 (&v)[16], int i) {
#pragma unroll
    for (int r = 0; r < 16; r++) v[r] = weighted(real[spot<HIGH * WIDTH>(i * WIDTH + threadIdx.x % WIDTH, r * HIGH * WIDTH)], r);
}

// Matrices of filters (channels, taps) whose first values have ``skip`` added
extern "C" __global__ void __launch_bounds__(WIDTH * HIGH, 1024 / (WIDTH * HIGH))
filter_in(float2* out, const float* h, const float* skip, int taps) {
    COLUMN_BLOCK
    const long long channel = blockIdx.x / TILES;
    float2 v[16];
#pragma unroll
    for (int r = 0; r < 16; r++) {
        int t = (i + HIGH * r) * COLUMNS + column;
        v[r] = weighted(t < taps ? h[channel * taps + t] : 0.0f, r);
    }
    if (skip && i == 0 && column == 0) v[0].x += skip[channel];
    columns_in(v, where, angles, i, column, out + channel * N);
}

// Filters' gradients (channels, taps) from their matrices'
extern "C" __global__ void __launch_bounds__(WIDTH * HIGH, 1024 / (WIDTH * HIGH))
filter_back(float* out, const float2* matrix, int taps) {
    COLUMN_BLOCK
    const long long channel = blockIdx.x / TILES;
    float2 v[16];
    columns_back(v, where, angles, i, column, matrix + channel * N);
#pragma unroll
    for (int r = 0; r < 16; r++) {
        int t = (i + HIGH * r) * COLUMNS + column;
        if (t < taps) out[channel * taps + t] = real_part(v[r], r);
    }
}

// Matrices of x2 v, and, where dout is given, of dout x1
extern "C" __global__ void __launch_bounds__(WIDTH * HIGH, 1024 / (WIDTH * HIGH))
gated_in(float2* out, float2* second, const Element* dout, long long out_channel, long long out_batch,
         const Element* z, long long z_channel, long long z_batch, const float* weight, int channels, int length) {
    COLUMN_BLOCK
    const int channel = blockIdx.x / TILES % channels, item = blockIdx.x / TILES / channels;
    const Rows rows = {z, z_channel, z_batch, weight};
    const long long matrix = ((long long)item * channels + channel) * N;
    float2 v[16];
    {
        Part a = part(rows, 1, channels, channel, item), b = part(rows, 2, channels, channel, item);
#pragma unroll 1
        for (int m = 0; m < 2; m++) {
            float x[8];
            gate_in(a, b, position(m), length, x);
            stage8(real, 8 * run(m), x);
        }
    }
    __syncthreads();
    unstage(real, v, i);
    columns_in(v, where, angles, anew(i), column, out + matrix);
    if (!dout) return;
    __syncthreads();
    Part gate = part(rows, 0, channels, channel, item);
#pragma unroll 1
    for (int m = 0; m < 2; m++) {
        float x[8];
        read<8>(dout + channel * out_channel + item * out_batch, position(m), length, x);
        gate_out(gate, position(m), length, x);
        stage8(real, 8 * run(m), x);
    }
    __syncthreads();
    unstage(real, v, i);
    columns_in(v, where, angles, anew(i), column, second + matrix);
}

// Every matrix times its channel's filter
extern "C" __global__ void __launch_bounds__(128, 5)
rows(float2* matrices, const float2* filters, int channels) {
    ROW_BLOCK
    const int channel = blockIdx.x / STACKS % channels;
    const long long inside = (long long)row * COLUMNS, matrix = blockIdx.x / STACKS;
    float2 f[16], v[16];
    load_row(f, i, filters + (long long)channel * N + inside, where, angles);
    load_row(v, i, matrices + matrix * N + inside, where, angles);
#pragma unroll
    for (int r = 0; r < 16; r++) {
        v[r] = times(v[r], f[r]);
        v[r] = make_float2(v[r].x * (1.0f / N), v[r].y * (1.0f / N));
    }
    store_row(v, i, matrices + matrix * N + inside, where, angles);
}

// Matrices of u, of g and of the filters become those of h * u, of its adjoint for g, and of the filters' gradient
extern "C" __global__ void __launch_bounds__(128, 3)
gradient_rows(float2* us, float2* gs, float2* filters, int channels, int items) {
    ROW_BLOCK
    const int channel = blockIdx.x / STACKS;
    const long long inside = (long long)row * COLUMNS;
    float2* own = (float2*)memory + DEEP * Alone<COLUMNS>::PLACES + threadIdx.x;  // the filter: too much for registers
    float2 u[16], g[16], total[16];
    load_row(u, i, filters + (long long)channel * N + inside, where, angles);
#pragma unroll
    for (int r = 0; r < 16; r++) {
        own[128 * r] = make_float2(u[r].x * (1.0f / N), u[r].y * (1.0f / N));
        total[r] = make_float2(0.0f, 0.0f);
    }
    for (int item = 0; item < items; item++) {
        const long long at = ((long long)item * channels + channel) * N + inside;
        load_row(u, i, us + at, where, angles);
        load_row(g, i, gs + at, where, angles);
#pragma unroll
        for (int r = 0; r < 16; r++) {
            total[r] = plus(total[r], times_conjugate(g[r], u[r]));
            float2 f = own[128 * r];
            u[r] = times(u[r], f);
            g[r] = times_conjugate(g[r], f);
        }
        store_row(u, i, us + at, where, angles);
        store_row(g, i, gs + at, where, angles);
    }
#pragma unroll
    for (int r = 0; r < 16; r++) total[r] = make_float2(total[r].x * (1.0f / N), total[r].y * (1.0f / N));
    store_row(total, i, filters + (long long)channel * N + inside, where, angles);
}

// x1 times what the matrices stand for
extern "C" __global__ void __launch_bounds__(WIDTH * HIGH, 1024 / (WIDTH * HIGH))
gated_back(Element* out, long long out_channel, long long out_batch, const float2* matrices, const Element* z,
           long long z_channel, long long z_batch, const float* weight, int channels, int length) {
    COLUMN_BLOCK
    const int channel = blockIdx.x / TILES % channels, item = blockIdx.x / TILES / channels;
    const Rows rows = {z, z_channel, z_batch, weight};
    float2 v[16];
    columns_back(v, where, angles, i, column, matrices + ((long long)item * channels + channel) * N);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 16; r++) real[spot<HIGH * WIDTH>(i * WIDTH + threadIdx.x % WIDTH, r * HIGH * WIDTH)] = real_part(v[r], r);
    __syncthreads();
    Part gate = part(rows, 0, channels, channel, item);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        float x[8];
        unstage8(real, 8 * run(m), x);
        gate_out(gate, position(m), length, x);
        store8(out + channel * out_channel + item * out_batch, position(m), length, x);
    }
}

// What the matrices stand for, as sequences (items * channels, N)
extern "C" __global__ void __launch_bounds__(WIDTH * HIGH, 1024 / (WIDTH * HIGH))
sequences(float* out, const float2* matrices) {
    COLUMN_BLOCK
    const long long matrix = blockIdx.x / TILES;
    float2 v[16];
    columns_back(v, where, angles, i, column, matrices + matrix * N);
#pragma unroll
    for (int r = 0; r < 16; r++) out[matrix * N + (i + HIGH * r) * COLUMNS + column] = real_part(v[r], r);
}

// The gradient of z from y = h * u and du (items * channels, N), and partial sums (blocks of a channel, 3, channels,
// TAPS) of the short convolution's weights
extern "C" __global__ void __launch_bounds__(128, 5)
gated_gradient(Element* dz, long long dz_channel, long long dz_batch, float* sums, const float* ys, const float* dus,
               const Element* dout, long long out_channel, long long out_batch, const Element* z, long long z_channel,
               long long z_batch, const float* weight, int channels, int length) {
    extern __shared__ float4 memory[];
    const Alone<128> where = {nullptr};
    const int first = 8 * threadIdx.x, spans = (length + SPAN - 1) / SPAN;
    const int span = blockIdx.x % spans, channel = blockIdx.x / spans % channels, item = blockIdx.x / spans / channels;
    const Rows rows = {z, z_channel, z_batch, weight};
    const float* y_row = ys + ((long long)item * channels + channel) * N;
    const float* du_row = dus + ((long long)item * channels + channel) * N;
    float sum[3][TAPS];
    Part parts[3];
    Element* out[3];
#pragma unroll
    for (int n = 0; n < 3; n++) {
        parts[n] = part(rows, n, channels, channel, item);
        out[n] = dz + ((long long)n * channels + channel) * dz_channel + item * dz_batch;
#pragma unroll
        for (int k = 0; k < TAPS; k++) sum[n][k] = 0.0f;
    }
#pragma unroll 1
    for (int t = span * SPAN + first; t < (span + 1) * SPAN && t < length; t += 8 * 128) {
        float y[8 + HALO], du[8 + HALO];
#pragma unroll
        for (int n = 0; n < 8; n += 4) {  // the rows have N places, a multiple of 8
            float4 a = *(const float4*)(y_row + t + n), b = *(const float4*)(du_row + t + n);
            y[n] = a.x, y[n + 1] = a.y, y[n + 2] = a.z, y[n + 3] = a.w;
            du[n] = b.x, du[n + 1] = b.y, du[n + 2] = b.z, du[n + 3] = b.w;
        }
#pragma unroll
        for (int n = 8; n < 8 + HALO; n++) {
            y[n] = t + n < length ? y_row[t + n] : 0.0f;
            du[n] = t + n < length ? du_row[t + n] : 0.0f;
        }
        gate_gradient(parts, dout + channel * out_channel + item * out_batch, out, t, length, true, y, du, sum);
    }
    add_up<128>(sum, (float*)memory, where, threadIdx.x, true, sums + ((long long)item * spans + span) * 3 * channels * TAPS,
                channels, channel);
}
