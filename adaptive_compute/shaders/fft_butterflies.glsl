// Forward Fourier transforms of 2 to 32 points in registers: dftR(x) replaces x[0..R-1] by its spectrum, in order.
// Primes: sums and differences of mirrored points (the even and the odd part apart). Composite lengths A*B: columns of
// A points, twiddle, rows of B points (Cooley-Tukey). Every index is a constant once the loops are unrolled, so that
// nothing here is ever in memory; the constants are folded in double precision by the compiler.

#define TAU 6.283185307179586476925

vec2 times(vec2 a, vec2 w) { return vec2(a.x * w.x - a.y * w.y, a.x * w.y + a.y * w.x); }

void dft1(inout vec2 x[1]) {}

void dft2(inout vec2 x[2]) {
    vec2 a = x[0];
    x[0] = a + x[1];
    x[1] = a - x[1];
}

void dft3(inout vec2 x[3]) {
    const float C = -0.5, S = sin(TAU / 3.0);
    vec2 sum = x[1] + x[2], odd = (x[1] - x[2]) * S;
    vec2 even = x[0] + C * sum;
    x[0] += sum;
    x[1] = even + vec2(odd.y, -odd.x);
    x[2] = even - vec2(odd.y, -odd.x);
}

void dft4(inout vec2 x[4]) {
    vec2 a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = x[1] - x[3];
    x[0] = a + c;
    x[1] = vec2(b.x + d.y, b.y - d.x);
    x[2] = a - c;
    x[3] = vec2(b.x - d.y, b.y + d.x);
}

// Odd prime R: X[k] and X[R-k] share their even part (cosines of the sums) and their odd part (sines of the
// differences).
#define PRIME(R) \
void dft##R(inout vec2 x[R]) { \
    const uint HALF = (R - 1) / 2; \
    vec2 sum[(R - 1) / 2], difference[(R - 1) / 2], y[R]; \
    y[0] = x[0]; \
    [[unroll]] for (uint m = 0; m < HALF; m++) { \
        sum[m] = x[m + 1] + x[R - 1 - m]; \
        difference[m] = x[m + 1] - x[R - 1 - m]; \
        y[0] += sum[m]; \
    } \
    [[unroll]] for (uint k = 1; k <= HALF; k++) { \
        vec2 even = x[0], odd = vec2(0.0); \
        [[unroll]] for (uint m = 0; m < HALF; m++) { \
            even += COSINES_##R[(k * (m + 1)) % R] * sum[m]; \
            odd += SINES_##R[(k * (m + 1)) % R] * difference[m]; \
        } \
        y[k] = vec2(even.x + odd.y, even.y - odd.x); \
        y[R - k] = vec2(even.x - odd.y, even.y + odd.x); \
    } \
    [[unroll]] for (uint k = 0; k < R; k++) x[k] = y[k]; \
}

#define C(M, R) cos(TAU * M / R)
#define S(M, R) sin(TAU * M / R)
#define W(M, R) vec2(cos(TAU * M / R), -sin(TAU * M / R))

const float COSINES_5[5] = float[](1.0, C(1.0, 5.0), C(2.0, 5.0), C(3.0, 5.0), C(4.0, 5.0));
const float SINES_5[5] = float[](0.0, S(1.0, 5.0), S(2.0, 5.0), S(3.0, 5.0), S(4.0, 5.0));
const float COSINES_7[7] = float[](1.0, C(1.0, 7.0), C(2.0, 7.0), C(3.0, 7.0), C(4.0, 7.0), C(5.0, 7.0), C(6.0, 7.0));
const float SINES_7[7] = float[](0.0, S(1.0, 7.0), S(2.0, 7.0), S(3.0, 7.0), S(4.0, 7.0), S(5.0, 7.0), S(6.0, 7.0));
const float COSINES_11[11] = float[](
    1.0, C(1.0, 11.0), C(2.0, 11.0), C(3.0, 11.0), C(4.0, 11.0), C(5.0, 11.0), C(6.0, 11.0), C(7.0, 11.0),
    C(8.0, 11.0), C(9.0, 11.0), C(10.0, 11.0));
const float SINES_11[11] = float[](
    0.0, S(1.0, 11.0), S(2.0, 11.0), S(3.0, 11.0), S(4.0, 11.0), S(5.0, 11.0), S(6.0, 11.0), S(7.0, 11.0),
    S(8.0, 11.0), S(9.0, 11.0), S(10.0, 11.0));
const float COSINES_13[13] = float[](
    1.0, C(1.0, 13.0), C(2.0, 13.0), C(3.0, 13.0), C(4.0, 13.0), C(5.0, 13.0), C(6.0, 13.0), C(7.0, 13.0),
    C(8.0, 13.0), C(9.0, 13.0), C(10.0, 13.0), C(11.0, 13.0), C(12.0, 13.0));
const float SINES_13[13] = float[](
    0.0, S(1.0, 13.0), S(2.0, 13.0), S(3.0, 13.0), S(4.0, 13.0), S(5.0, 13.0), S(6.0, 13.0), S(7.0, 13.0),
    S(8.0, 13.0), S(9.0, 13.0), S(10.0, 13.0), S(11.0, 13.0), S(12.0, 13.0));
PRIME(5)
PRIME(7)
PRIME(11)
PRIME(13)

// Length R = A * B: x[B*i + j] -> columns over i, twiddle W_R^(j*k), rows over j -> X[k + A*m].
#define COMPOSITE(R, A, B) \
void dft##R(inout vec2 x[R]) { \
    vec2 y[R]; \
    [[unroll]] for (uint j = 0; j < B; j++) { \
        vec2 column[A]; \
        [[unroll]] for (uint i = 0; i < A; i++) column[i] = x[B * i + j]; \
        dft##A(column); \
        [[unroll]] for (uint k = 0; k < A; k++) { \
            uint m = j * k; \
            y[B * k + j] = m == 0 ? column[k] \
                : 4 * m == R ? vec2(column[k].y, -column[k].x) \
                : times(column[k], ROOTS_##R[m]); \
        } \
    } \
    [[unroll]] for (uint k = 0; k < A; k++) { \
        vec2 row[B]; \
        [[unroll]] for (uint j = 0; j < B; j++) row[j] = y[B * k + j]; \
        dft##B(row); \
        [[unroll]] for (uint m = 0; m < B; m++) x[k + A * m] = row[m]; \
    } \
}

const vec2 ROOTS_6[3] = vec2[](W(0.0, 6.0), W(1.0, 6.0), W(2.0, 6.0));
const vec2 ROOTS_8[4] = vec2[](W(0.0, 8.0), W(1.0, 8.0), W(2.0, 8.0), W(3.0, 8.0));
const vec2 ROOTS_9[5] = vec2[](W(0.0, 9.0), W(1.0, 9.0), W(2.0, 9.0), W(3.0, 9.0), W(4.0, 9.0));
const vec2 ROOTS_10[5] = vec2[](W(0.0, 10.0), W(1.0, 10.0), W(2.0, 10.0), W(3.0, 10.0), W(4.0, 10.0));
const vec2 ROOTS_12[7] = vec2[](
    W(0.0, 12.0), W(1.0, 12.0), W(2.0, 12.0), W(3.0, 12.0), W(4.0, 12.0), W(5.0, 12.0), W(6.0, 12.0));
const vec2 ROOTS_14[7] = vec2[](
    W(0.0, 14.0), W(1.0, 14.0), W(2.0, 14.0), W(3.0, 14.0), W(4.0, 14.0), W(5.0, 14.0), W(6.0, 14.0));
const vec2 ROOTS_15[9] = vec2[](
    W(0.0, 15.0), W(1.0, 15.0), W(2.0, 15.0), W(3.0, 15.0), W(4.0, 15.0), W(5.0, 15.0), W(6.0, 15.0), W(7.0, 15.0),
    W(8.0, 15.0));
const vec2 ROOTS_16[10] = vec2[](
    W(0.0, 16.0), W(1.0, 16.0), W(2.0, 16.0), W(3.0, 16.0), W(4.0, 16.0), W(5.0, 16.0), W(6.0, 16.0), W(7.0, 16.0),
    W(8.0, 16.0), W(9.0, 16.0));
const vec2 ROOTS_25[17] = vec2[](
    W(0.0, 25.0), W(1.0, 25.0), W(2.0, 25.0), W(3.0, 25.0), W(4.0, 25.0), W(5.0, 25.0), W(6.0, 25.0), W(7.0, 25.0),
    W(8.0, 25.0), W(9.0, 25.0), W(10.0, 25.0), W(11.0, 25.0), W(12.0, 25.0), W(13.0, 25.0), W(14.0, 25.0),
    W(15.0, 25.0), W(16.0, 25.0));
const vec2 ROOTS_27[17] = vec2[](
    W(0.0, 27.0), W(1.0, 27.0), W(2.0, 27.0), W(3.0, 27.0), W(4.0, 27.0), W(5.0, 27.0), W(6.0, 27.0), W(7.0, 27.0),
    W(8.0, 27.0), W(9.0, 27.0), W(10.0, 27.0), W(11.0, 27.0), W(12.0, 27.0), W(13.0, 27.0), W(14.0, 27.0),
    W(15.0, 27.0), W(16.0, 27.0));
const vec2 ROOTS_32[22] = vec2[](
    W(0.0, 32.0), W(1.0, 32.0), W(2.0, 32.0), W(3.0, 32.0), W(4.0, 32.0), W(5.0, 32.0), W(6.0, 32.0), W(7.0, 32.0),
    W(8.0, 32.0), W(9.0, 32.0), W(10.0, 32.0), W(11.0, 32.0), W(12.0, 32.0), W(13.0, 32.0), W(14.0, 32.0),
    W(15.0, 32.0), W(16.0, 32.0), W(17.0, 32.0), W(18.0, 32.0), W(19.0, 32.0), W(20.0, 32.0), W(21.0, 32.0));
COMPOSITE(6, 2, 3)
COMPOSITE(8, 2, 4)
COMPOSITE(9, 3, 3)
COMPOSITE(10, 2, 5)
COMPOSITE(12, 4, 3)
COMPOSITE(14, 2, 7)
COMPOSITE(15, 3, 5)
COMPOSITE(16, 4, 4)
COMPOSITE(25, 5, 5)
COMPOSITE(27, 3, 9)
COMPOSITE(32, 4, 8)

#undef C
#undef S
#undef W
