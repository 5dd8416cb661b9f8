// Elementary functions with the same bits on every CPU, compiler and vector width (N4): the scalar definition that
// vector kernels repeat operation by operation. Never libm's, whose bits change with its version. Errors are measured
// by tests/unit/worker/math_test.cc.
#pragma once

namespace chorale::worker {

float exp_f32(float x);   // <= 2 ulp; 0 where the result would be denormal (x < -87.34), +inf above 88.72; NaN stays
float log_f32(float x);   // <= 1 ulp; -inf at 0, NaN below
float tanh_f32(float x);  // <= 3 ulp
float erf_f32(float x);   // absolute error <= 2e-7

/// float64 sine and cosine for tables; error <= 2e-16 absolute for |x| < 2^30.
struct SinCos {
  double sin;
  double cos;
};
SinCos sincos_f64(double x);

}  // namespace chorale::worker
