// Elementary functions of float32, for float and for vec4: exp_f32, exp2_f32, expm1_f32, log_f32, log2_f32, log10_f32,
// log1p_f32, sincos_f32, tanh_f32, sinh_f32, cosh_f32, arcsin_f32, arccos_f32, arctan2_f32, erf_f32, power_f32, is_nan.
//
// GLSL's own are the hardware's approximations on many devices. These use range reduction and polynomials, so that only
// + - * (correctly rounded everywhere) and / and sqrt (2.5 and 3 units in the last place at worst) count. Errors are
// below 6 units in the last place (sine and cosine near their zeros: 1e-11). NaN and infinities give what C's functions
// give; they are told by their bits, because drivers may assume that there are none. Subnormal numbers may count as 0.
//
// Method: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980); large arguments of sine and
// cosine as M. H. Payne and R. N. Hanek, Radian reduction for trigonometric functions (1983). Coefficients: minimax
// fits of the remainders in extended precision (iteratively re-weighted least squares at Chebyshev nodes).
#ifndef MATHS_GLSL
#define MATHS_GLSL

#define F_INFINITY 0x7f800000u
#define F_NAN 0x7fc00000u
#define F_SIGN 0x80000000u

// What differs between scalars and vectors: comparisons, and how few elements are treated apart.
#define F float
#define U uint
#define I int
#define B bool
#define LT(a, b) ((a) < (b))
#define GT(a, b) ((a) > (b))
#define EQ(a, b) ((a) == (b))
#define NOT(a) (!(a))
#define REDUCE_LARGE(a, large, r, quadrant) if (large) r = reduce_large(a, quadrant)
#include "maths_functions.glsl"
#undef F
#undef U
#undef I
#undef B
#undef LT
#undef GT
#undef EQ
#undef NOT
#undef REDUCE_LARGE

#define F vec4
#define U uvec4
#define I ivec4
#define B bvec4
#define LT(a, b) lessThan(a, b)
#define GT(a, b) greaterThan(a, b)
#define EQ(a, b) equal(a, b)
#define NOT(a) not(a)
#define REDUCE_LARGE(a, large, r, quadrant) reduce_large_of_four(a, large, r, quadrant)
#include "maths_functions.glsl"
#undef F
#undef U
#undef I
#undef B
#undef LT
#undef GT
#undef EQ
#undef NOT
#undef REDUCE_LARGE

#endif
