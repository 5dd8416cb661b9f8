// Coefficients shared by the scalar functions of math.h and their vector twins in worker/kernels/cpu: same numbers,
// same order, same bits. Polynomials are Chebyshev fits computed with 40 digits (mpmath.chebyfit), highest power first.
#pragma once

namespace chorale::worker::math_constants {

// exp: (exp(r) - 1 - r) / r^2 on |r| <= 0.3466
inline constexpr int kExpTerms = 6;
inline constexpr float kExpPoly[kExpTerms] = {0.0001989098846f, 0.001393364786f, 0.008333310928f,
                                              0.04166646494f,   0.1666666668f,   0.5000000013f};
inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2High = 0x1.62e4p-1f;          // 15 bits: n * kLn2High is exact
inline constexpr float kLn2Low = 0x1.7f7d1cp-20f;        // ln 2 - kLn2High
inline constexpr float kRoundMagic = 12582912.0f;        // 1.5 * 2^23: adding it rounds to an integer
inline constexpr float kExpLowest = -87.3365447505531f;  // ln 2^-126
inline constexpr float kExpHighest = 88.7228390520684f;  // ln FLT_MAX

// tanh: (tanh(x) / x - 1) / x^2 as a polynomial in x^2 below kTanhSplit, else by exp
inline constexpr int kTanhTerms = 6;
inline constexpr float kTanhPoly[kTanhTerms] = {0.002292744816f, -0.008343945516f, 0.02176891865f,
                                                -0.05395925958f, 0.1333330356f,    -0.3333333317f};
inline constexpr float kTanhSplit = 0.625f;

// erf: erf(x) / x as a polynomial in x^2 below 1; above, 1 - exp(-q(|x|)) with q = -log erfc fitted on [1, 4]
inline constexpr int kErfTerms = 7;
inline constexpr float kErfPoly[kErfTerms] = {7.875875063e-5f, -0.0008016864287f, 0.005189087423f, -0.02685421201f,
                                              0.1128359472f,   -0.3761262667f,    1.128379166f};
inline constexpr int kErfcTerms = 9;
inline constexpr float kErfcPoly[kErfcTerms] = {-1.637151415e-6f, 4.605804269e-5f, -0.0005968056257f,
                                                0.004759596293f,  -0.02642113601f, 0.1100800829f,
                                                0.6318260516f,    1.130233435f,    -0.0003201380497f};
inline constexpr float kErfLimit = 4.0f;

}  // namespace chorale::worker::math_constants
