// What a pass of a Fourier transform and a pair of passes share: flags, a thread's registers, roots of unity. The
// includer declares SHARED.

const uint CONJUGATE_IN = 1, SWAP_IN = 2, SWAP_OUT = 4, CONJUGATE_OUT = 8, FACTOR_IN = 16, FACTOR_OUT = 32;
const uint CONJUGATE_FACTOR = 64;

const uint MOST = 32;  // points a thread
shared float held[SHARED];
vec2 v[MOST];
uint c, t;  // this thread's line in the group and its place in it

vec2 conjugate(vec2 a) { return vec2(a.x, -a.y); }

// exp(-2 pi i p / n), p < n: the angle is reduced in whole numbers, so that its error is that of one rounding.
vec2 root(uint p, uint n) {
    uint quarter = (4 * p + n / 2) / n;
    float a = float(int(4 * p - quarter * n)) * (1.5707963267948966 / float(n)), b = a * a;
    float s = a + a * b * (-1.6666667e-1 + b * (8.3333333e-3 + b * (-1.9841270e-4 + b * 2.7557319e-6)));
    float c = 1.0 + b * (-0.5 + b * (4.1666667e-2 + b * (-1.3888889e-3 + b * (2.4801587e-5 - b * 2.7557319e-7))));
    vec2 w = (quarter & 1) != 0 ? vec2(-s, -c) : vec2(c, -s);
    return (quarter & 2) != 0 ? -w : w;
}
