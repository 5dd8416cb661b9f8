// exp and friends on Vec: the functions of worker/ops/math.cc operation by operation, so the same bits. Included inside
// an anonymous namespace after a vec_*-inl.h; the coefficients are math_constants of worker/ops/math_constants.h.

namespace mc = math_constants;

VEC_INLINE Vec exp_vec(Vec x) {
  const Vec shifted = fma(x, set1(mc::kLog2E), set1(mc::kRoundMagic));
  const Vec n = sub(shifted, set1(mc::kRoundMagic));
  Vec r = fma(n, set1(-mc::kLn2High), x);
  r = fma(n, set1(-mc::kLn2Low), r);
  Vec p = set1(mc::kExpPoly[0]);
  for (int i = 1; i < mc::kExpTerms; ++i) p = fma(p, r, set1(mc::kExpPoly[i]));
  const Vec y = add(fma(p, mul(r, r), r), set1(1.0f));
  const Vec result = scale_by_power(y, shifted, mc::kRoundMagic);
  const Vec low = select_less(x, set1(mc::kExpLowest), zero(), result);
  return select_less(set1(mc::kExpHighest), x, set1(__builtin_inff()), low);
}

VEC_INLINE Vec tanh_vec(Vec x) {
  const Vec a = abs(x), z = mul(x, x);
  Vec p = set1(mc::kTanhPoly[0]);
  for (int i = 1; i < mc::kTanhTerms; ++i) p = fma(p, z, set1(mc::kTanhPoly[i]));
  const Vec small = fma(mul(p, z), x, x);
  const Vec e = add(exp_vec(mul(set1(2.0f), a)), set1(1.0f));
  const Vec large = copysign(sub(set1(1.0f), div(set1(2.0f), e)), x);
  return select_less(a, set1(mc::kTanhSplit), small, large);
}

VEC_INLINE Vec erf_vec(Vec x) {
  const Vec a = abs(x), z = mul(x, x);
  Vec p = set1(mc::kErfPoly[0]);
  for (int i = 1; i < mc::kErfTerms; ++i) p = fma(p, z, set1(mc::kErfPoly[i]));
  const Vec small = mul(p, x);
  const Vec b = select_less(a, set1(mc::kErfLimit), a, set1(mc::kErfLimit));
  Vec q = set1(mc::kErfcPoly[0]);
  for (int i = 1; i < mc::kErfcTerms; ++i) q = fma(q, b, set1(mc::kErfcPoly[i]));
  const Vec large = copysign(sub(set1(1.0f), exp_vec(neg(q))), x);
  return select_less(a, set1(1.0f), small, large);
}
