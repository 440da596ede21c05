"""CUDA kernels of the hunt: phases, spreading, Z on the grid, and each cell's zeros. ``gpu`` builds and launches them.

A *row* is one window. Its numbers stand in ``rows[row * ROW + ...]``, in the order of ``FIELDS``, then the bend's
``CURVE`` coefficients. No thread speaks to another, and nothing is added in an order that can change, so that the same
device gives the same bits in every run; a C++ compiler can build the same text for a CPU, which the tests do.

``phases``: for each row and term, strength and place (in points of the fine grid) of one nonuniform point.
``spread``: each point of the fine grid gathers what reaches it. The places fall with n, so that its terms are found by
bisection. The kernel is FINUFFT's, ``exp(BETA (sqrt(1 - z^2) - 1))`` over ``WIDTH`` points [1]_.
``values``: Z from the transformed grid.
``cells``: up to two zeros of each cell, by the polynomial of ``sign.interpolant`` and Newton's steps in a bracket.
``gather``: the zeros of all cells, in order.

References
----------
.. [1] A. H. Barnett, J. Magland, L. af Klinteberg, "A parallel nonuniform fast Fourier transform library based on an
   exponential of semicircle kernel", SIAM J. Sci. Comput. 41 (2019).
"""

WIDTH = 16  # of the spreading kernel, in points of the fine grid
BETA = 2.3 * WIDTH
FIELDS = ("center", "shift", "rest", "slope_hi", "slope_lo", "step", "terms", "first", "error")
CURVE = 8  # coefficients of the bend, of s^2 and on

SOURCE = r"""
struct Pair { double hi, lo; };

__device__ inline Pair two_sum(double a, double b) {
    double s = __dadd_rn(a, b), v = __dsub_rn(s, a);
    return {s, __dadd_rn(__dsub_rn(a, __dsub_rn(s, v)), __dsub_rn(b, v))};
}

__device__ inline Pair quick_two_sum(double a, double b) {
    double s = __dadd_rn(a, b);
    return {s, __dsub_rn(b, __dsub_rn(s, a))};
}

/* a * f modulo 1, in [-1/2, 1/2] */
__device__ inline double cycles(double a, Pair f) {
    double p = __dmul_rn(a, f.hi), e = __fma_rn(a, f.hi, -p);
    double total = __dadd_rn(__dsub_rn(p, rint(p)), __fma_rn(a, f.lo, e));
    return __dsub_rn(total, rint(total));
}

extern "C" __global__ void phases(const double* rows, const double* hi, const double* lo, int most, double grid,
                                  double2* strength, double* place) {
    int n = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    const double* at = rows + row * ROW;
    if (n >= at[TERMS]) return;
    Pair f = {hi[n], lo[n]};
    Pair s = two_sum(at[SLOPE_HI], -f.hi), t = two_sum(at[SLOPE_LO], -f.lo);  /* slope - log(n) / 2 pi */
    s = quick_two_sum(s.hi, __dadd_rn(s.lo, t.hi));
    Pair relative = quick_two_sum(s.hi, __dadd_rn(s.lo, t.lo));
    double turns = __dadd_rn(__dsub_rn(at[REST], cycles(at[CENTER], f)), cycles(at[SHIFT], relative));
    double sine, cosine, size = 1.0 / sqrt((double)(n + 1));
    sincospi(2.0 * turns, &sine, &cosine);
    strength[(long long)row * most + n] = {size * cosine, size * sine};
    place[(long long)row * most + n] = grid * cycles(at[STEP], relative);
}

/* How many of the places, which fall, are above a number. */
__device__ inline int above(const double* place, int terms, double x) {
    int low = 0, high = terms;
    while (low < high) {
        int middle = (low + high) >> 1;
        if (place[middle] > x) low = middle + 1; else high = middle;
    }
    return low;
}

extern "C" __global__ void spread(const double* rows, const double2* strength, const double* place, int most, int grid,
                                  int points, double2* fine) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= points) return;
    int g = i - WIDTH, terms = (int)rows[row * ROW + TERMS];  /* places begin at 0, and a rounding below it */
    place += (long long)row * most;
    strength += (long long)row * most;
    double real = 0.0, imaginary = 0.0;
    for (int n = above(place, terms, g + 0.5 * WIDTH); n < terms; n++) {
        double z = (place[n] - g) * (2.0 / WIDTH), left = 1.0 - z * z;
        if (z <= -1.0) break;
        if (left <= 0.0) continue;
        double weight = exp(BETA * (sqrt(left) - 1.0));
        real += weight * strength[n].x;
        imaginary += weight * strength[n].y;
    }
    fine[(long long)row * grid + (g < 0 ? g + grid : g)] = {real, imaginary};
}

extern "C" __global__ void values(const double* rows, const double* correction, int degree, const double2* fine,
                                  int grid, const double* undo, int points, double* z) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (j >= points) return;
    const double* at = rows + row * ROW;
    int middle = points / 2, k = j - middle;
    double2 sum = fine[(long long)row * grid + (k < 0 ? k + grid : k)];
    double s = k * at[STEP] + at[SHIFT], bend = at[CURVES + CURVE - 1];
    for (int i = CURVE - 2; i >= 0; i--) bend = bend * s + at[CURVES + i];
    double sine, cosine, x = (double)k / middle;
    sincos(bend * s * s, &sine, &cosine);
    correction += row * (degree + 1);
    double rest = correction[degree];
    for (int i = degree - 1; i >= 0; i--) rest = rest * x + correction[i];
    z[(long long)row * points + j] = 2.0 * (sum.x * cosine - sum.y * sine) * undo[k < 0 ? -k : k] + rest;
}

/* A polynomial's value and slope. */
__device__ inline double evaluate(const double* p, double x, double* slope) {
    double value = p[DEGREE], d = p[DEGREE];
    value = value * x + p[DEGREE - 1];
    for (int i = DEGREE - 2; i >= 0; i--) {
        d = d * x + value;
        value = value * x + p[i];
    }
    *slope = d;
    return value;
}

/* The root between low, where the values a have the sign told, and high, where they are b, of the other one. */
__device__ inline double root(const double* p, double low, double high, double a, double b, bool positive,
                              double noise) {
    double x = (low * b - high * a) / (b - a);
    if (!(x > low && x < high)) x = 0.5 * (low + high);
    for (int step = 0; step < 64; step++) {
        double slope, value = evaluate(p, x, &slope);
        if ((value > 0) == positive) low = x; else high = x;
        double next = x - value / slope;
        if (!(next > low && next < high)) next = 0.5 * (low + high);
        if (fabs(value) <= noise) next = x;
        double moved = fabs(next - x);
        x = next;
        if (moved <= 1e-11) break;
    }
    return x;
}

__device__ inline double away(const double* v) {  /* how fast |Z| rises, over twelve steps */
    return (8.0 * (v[1] - v[-1]) - (v[2] - v[-2])) * (v[0] > 0 ? 1.0 : -1.0);
}

/* sign._dips */
__device__ inline bool dips(const double* v) {
    double first = away(v), second = away(v + 1), a = fabs(v[0]), b = fabs(v[1]);
    return (first < ALLOWED * a && second > -ALLOWED * b) || first < -STEEP * a || second > STEEP * b;
}

extern "C" __global__ void cells(const double* rows, const double* z, int points, const double* matrix, int every,
                                 unsigned char* count, double* roots, int* doubtful) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y, inner = points - 1 - 2 * MARGIN;
    if (cell >= inner) return;
    const double* v = z + (long long)row * points + MARGIN + cell;
    double error = rows[row * ROW + ERROR], first = v[0], second = v[1];
    long long place = (long long)row * inner + cell;
    if (fabs(first) <= error || (cell == inner - 1 && fabs(second) <= error)) doubtful[row] = 1;
    bool positive = first > 0, change = positive != (second > 0);
    count[place] = 0;
    if (!change && !every && !dips(v)) return;
    double p[DEGREE + 1], noise = 0.0;
    for (int i = 0; i <= DEGREE; i++) p[i] = 0.0;
    for (int tap = 0; tap < TAPS; tap++) {
        double sample = v[tap - (TAPS / 2 - 1)];
        for (int i = 0; i <= DEGREE; i++) p[i] += matrix[tap * (DEGREE + 1) + i] * sample;
    }
    for (int i = 0; i <= DEGREE; i++) noise = fmax(noise, fabs(p[i]));
    noise *= 1e-15;
    double low[2], high[2], a[2], b[2], unused;
    int found = 1;
    if (change) {
        low[0] = -1.0; high[0] = 1.0; a[0] = first; b[0] = second;
    } else {
        double sign = positive ? 1.0 : -1.0, least = 1e300, at = 0.0;
        for (int i = 0; i <= 16; i++) {
            double x = -1.0 + i * 0.125, value = sign * evaluate(p, x, &unused);
            if (value < least) { least = value; at = x; }
        }
        for (int step = 0; step < 6; step++) {  /* Newton's steps on the slope */
            double slope = DEGREE * p[DEGREE], second_slope = slope;
            slope = slope * at + (DEGREE - 1) * p[DEGREE - 1];
            for (int i = DEGREE - 2; i >= 1; i--) {
                second_slope = second_slope * at + slope;
                slope = slope * at + i * p[i];
            }
            double by = slope / second_slope;
            if (!(fabs(by) <= 1e300)) by = 0.0;
            at = fmin(fmax(at - fmin(fmax(by, -0.125), 0.125), -1.0), 1.0);
        }
        double bottom = evaluate(p, at, &unused);
        if (!(sign * bottom < -error)) return;
        low[0] = -1.0; high[0] = at; a[0] = first; b[0] = bottom;
        low[1] = at; high[1] = 1.0; a[1] = bottom; b[1] = second;
        found = 2;
    }
    for (int i = 0; i < found; i++)
        roots[2 * place + i] = 0.5 * (root(p, low[i], high[i], a[i], b[i], a[i] > 0, noise) + 1.0);
    count[place] = found;
}

/* The head: for each row how many zeros lie in it and the rows before it, then whether a sign is in doubt. */
extern "C" __global__ void gather(const double* rows, const unsigned char* count, const int* until, const double* roots,
                                  const int* doubtful, int inner, int room, double* head, double* out) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (cell >= inner) return;
    const double* at = rows + row * ROW;
    long long place = (long long)row * inner + cell;
    int found = count[place], to = until[place];
    for (int i = 0; i < found; i++)
        if (to - found + i < room) out[to - found + i] = at[FIRST] + (cell + roots[2 * place + i]) * at[STEP];
    if (cell == inner - 1) {
        head[row] = to;
        head[gridDim.y + row] = doubtful[row];
    }
}
"""


def source(**constants: float) -> str:
    """Return the kernels' text, after definitions of what they name in capitals."""
    named: dict[str, float] = {name.upper(): place for place, name in enumerate(FIELDS)}
    named |= {"CURVES": len(FIELDS), "CURVE": CURVE, "ROW": len(FIELDS) + CURVE, "WIDTH": WIDTH, "BETA": BETA}
    return "".join(f"#define {name} {value}\n" for name, value in (named | constants).items()) + SOURCE
