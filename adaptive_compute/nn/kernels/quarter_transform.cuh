// Transforms of real sequences for causal convolution, 16 points a thread, by steps of radix 16.
//
// The method. For real sequences of at most N values, U[k] = sum_t u[t] z_k^t with z_k = exp(-2 pi i (k + 1/4) / N) is
// the sequence's polynomial at the N roots of X^N = -i. A product of two such spectra belongs to the product of the
// polynomials modulo X^N + i: low + X^N high becomes low - i high, and since both halves are real, the real part of
// the inverse is the causal convolution cut at N. So a complex transform of N points, not of 2 N, does for a real
// sequence what zero padding is for, and every sequence is by itself. The transform is unitary but for 1/N, so
// correlations (gradients) are products with the conjugate.
//
// The steps (decimation in frequency) pass through shared memory; a spectrum stays in the order they leave it in,
// which the inverse undoes.

#define DEVICE __device__ __forceinline__

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

// The same number, which the compiler takes for another: so that it computes factors and places again for every
// transform, and does not keep dozens of them in registers from one to the next.
DEVICE int anew(int i) {
#ifndef ON_HOST
    asm volatile("" : "+r"(i));
#endif
    return i;
}
DEVICE float2 anew(float2 a) {
#ifndef ON_HOST
    asm volatile("" : "+f"(a.x), "+f"(a.y));
#endif
    return a;
}

DEVICE float2 conjugate(float2 a) { return make_float2(a.x, -a.y); }

// v[q] times shift step^q, or the conjugate of that where SIGN is negative
template <int SIGN, bool SHIFT> DEVICE void twiddle(float2 (&v)[16], float2 step, float2 shift) {
    float2 w[4], t[16];
    w[0] = SIGN > 0 ? step : conjugate(step);
#pragma unroll
    for (int bit = 1; bit < 4; bit++) w[bit] = times(w[bit - 1], w[bit - 1]);
    if (SHIFT) {
        t[0] = SIGN > 0 ? shift : conjugate(shift);
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

// Where N points of a sequence are exchanged: by neighbouring threads, with gaps against bank conflicts. The step of size
// 64 has a part of its own, because other gaps suit it
template <int N> struct Alone {
    static constexpr int FIRST = N + N / 16, PLACES = FIRST + (N == 1024 ? FIRST + N / 64 : 0);
    float2* shared;
    // point base + offset, where the two have no carry from their last bits, in the step of size M
    template <int M> DEVICE float2& at(int base, int offset) const {
        float2* own = shared + (base + (base >> 4)) + (offset + (offset >> 4));
        if constexpr (N == 1024 && M == 64) return own[FIRST + (base >> 6) + (offset >> 6)];
        else return *own;
    }
    template <int THREADS> DEVICE void wait() const {  // for the threads that exchange among themselves
        if constexpr (THREADS <= 32) __syncwarp();
        else __syncthreads();
    }
};

// ... or beside WIDTH - 1 other sequences, by threads that are WIDTH apart
template <int WIDTH> struct Beside {
    float2* shared;
    template <int M> DEVICE float2& at(int base, int offset) const { return shared[base * WIDTH + offset * WIDTH]; }
    template <int THREADS> DEVICE void wait() const { __syncthreads(); }
};

// Behind the step of size M, thread i has the points base + offset(r) as its numbers r
template <int M> struct Next {
    static constexpr int Q = M / 16, R = Q / 16;
    static DEVICE int base(int i) {
        int j = i & (Q - 1), start = (i / Q) * M;
        if constexpr (Q >= 16) return start + (j / R) * Q + (j & (R - 1));
        else return start + j * Q;
    }
    static DEVICE constexpr int offset(int r) { return Q >= 16 ? R * r : Q * Q * (r / Q) + r % Q; }
};

// The factors' angles for thread i: exp(-2 pi i j / M) of each step, and exp(-2 pi i j / 4 N) of the first
template <int M> struct Angles {
    float2 shift, step;
    Angles<M / 16> rest;
    DEVICE explicit Angles(int i) : rest(i) {
        int j = i & (M / 16 - 1);
        sincospif(j * (-2.0f / M), &step.y, &step.x);
        sincospif(j * (-0.5f / M), &shift.y, &shift.x);
    }
};
template <> struct Angles<16> { DEVICE explicit Angles(int) {} };
template <> struct Angles<8> { DEVICE explicit Angles(int) {} };
template <> struct Angles<4> { DEVICE explicit Angles(int) {} };
template <> struct Angles<2> { DEVICE explicit Angles(int) {} };

// The transform of M points, of which thread i has i + M / 16 r as its number r. SHIFT: at k + 1/4 instead of k, where
// the points have been weighted by exp(-2 pi i r / 64) (see ``weighted``)
template <int M, bool SHIFT, class Where> DEVICE void forward(
    float2 (&v)[16], const Where& where, const Angles<M>& angles, int i) {
    if constexpr (M < 16) {
        few<1, M>(v);
    } else {
        sixteen<1>(v);
        if constexpr (M > 16) {
            constexpr int Q = M / 16;
            int base = (i / Q) * M + (i & (Q - 1));
            twiddle<1, SHIFT>(v, anew(angles.step), anew(angles.shift));
            where.template wait<Q>();
#pragma unroll
            for (int q = 0; q < 16; q++) where.template at<M>(base, q * Q) = v[q];
            where.template wait<Q>();
#pragma unroll
            for (int r = 0; r < 16; r++) v[r] = where.template at<M>(Next<M>::base(i), Next<M>::offset(r));
            forward<Q, false>(v, where, angles.rest, i);
        }
    }
}

// Its inverse, times M
template <int M, bool SHIFT, class Where> DEVICE void inverse(
    float2 (&v)[16], const Where& where, const Angles<M>& angles, int i) {
    if constexpr (M < 16) {
        few<-1, M>(v);
    } else {
        if constexpr (M > 16) {
            constexpr int Q = M / 16;
            inverse<Q, false>(v, where, angles.rest, i);
            int base = (i / Q) * M + (i & (Q - 1));
            where.template wait<Q>();
#pragma unroll
            for (int r = 0; r < 16; r++) where.template at<M>(Next<M>::base(i), Next<M>::offset(r)) = v[r];
            where.template wait<Q>();
#pragma unroll
            for (int q = 0; q < 16; q++) v[q] = where.template at<M>(base, q * Q);
            twiddle<-1, SHIFT>(v, anew(angles.step), anew(angles.shift));
        }
        sixteen<-1>(v);
    }
}

// Of which frequency thread i has the value as its number r behind ``forward`` of M points
template <int M> DEVICE int frequency(int i, int r) {
    if constexpr (M <= 16) {
        return M == 16 ? r : r % M;
    } else {
        constexpr int Q = M / 16;
        int j = i & (Q - 1);
        if constexpr (Q >= 16) return j / (Q / 16) + 16 * frequency<Q>(j & (Q / 16 - 1), r);
        else return j + Q * (r / Q) + 16 * (r % Q);
    }
}

DEVICE float2 weighted(float x, int r) { return make_float2(x * cosine(r), -x * sine(r)); }
DEVICE float real_part(float2 a, int r) { return a.x * cosine(r) - a.y * sine(r); }  // of a, weighted the other way

DEVICE void swap(float2 (&a)[16], float2 (&b)[16]) {
#pragma unroll
    for (int r = 0; r < 16; r++) {
        float2 x = a[r];
        a[r] = b[r];
        b[r] = x;
    }
}

// A real value's place in shared memory, so that packs of four and runs of single values are both free of conflicts
DEVICE int spot(int t) { return t ^ (((t >> 5) & 1) << 2); }

// ... of base + offset, for an offset that is a multiple of STEP > base, or of 64
template <int STEP> DEVICE int spot(int base, int offset) {
    if constexpr (STEP % 64 == 0) return spot(base) + offset;
    else return (base ^ (((offset >> 5) & 1) << 2)) + offset;
}

DEVICE void stage8(float* real, int t, const float (&x)[8]) {
    *(float4*)(real + spot(t)) = make_float4(x[0], x[1], x[2], x[3]);
    *(float4*)(real + (spot(t) ^ 4)) = make_float4(x[4], x[5], x[6], x[7]);
}

template <int COUNT> DEVICE void unstage8(const float* real, int t, float (&x)[COUNT]) {
    float4 a = *(const float4*)(real + spot(t)), b = *(const float4*)(real + (spot(t) ^ 4));
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
