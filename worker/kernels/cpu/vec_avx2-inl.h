// Vec: 16 floats, two AVX2 registers. Included inside an anonymous namespace of a file compiled with a target pragma,
// after all other includes; vec_avx512-inl.h offers the same names with the same arithmetic.

using Index = int64_t;
#define VEC_INLINE inline __attribute__((always_inline))

struct Vec {
  __m256 lo, hi;
};

/// All ones in the first n of 8 lanes.
VEC_INLINE __m256i first_of_8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

VEC_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
VEC_INLINE Vec set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
VEC_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
VEC_INLINE Vec load_n(const float* p, int n) {
  return {_mm256_maskload_ps(p, first_of_8(n)), _mm256_maskload_ps(p + 8, first_of_8(n - 8))};
}
VEC_INLINE void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
VEC_INLINE void store_n(float* p, Vec x, int n) {
  _mm256_maskstore_ps(p, first_of_8(n), x.lo);
  _mm256_maskstore_ps(p + 8, first_of_8(n - 8), x.hi);
}

VEC_INLINE __m256 widen8(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
VEC_INLINE Vec load_bf16(const uint16_t* p) {
  return {widen8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          widen8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
VEC_INLINE Vec load_bf16_n(const uint16_t* p, int n) {
  alignas(32) uint16_t buffer[16] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load_bf16(buffer);
}
/// Round to nearest even, NaN stays NaN: the integer form of to_bf16. 8 results in the low halves of 32-bit lanes.
VEC_INLINE __m256i narrow8(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
VEC_INLINE __m256i narrow(Vec x) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(narrow8(x.lo), narrow8(x.hi)),
                                  0xd8);  // packus works in 128-bit lanes
}
VEC_INLINE void store_bf16(uint16_t* p, Vec x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
VEC_INLINE void store_bf16_n(uint16_t* p, Vec x, int n) {
  alignas(32) uint16_t buffer[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(buffer), narrow(x));
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}

/// Of 16 pairs of bf16 the upper halves of the 32-bit words, or the lower ones, as floats.
VEC_INLINE Vec load_upper(const void* p) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u)));
  const auto* f = static_cast<const float*>(p);
  return {_mm256_and_ps(_mm256_loadu_ps(f), mask), _mm256_and_ps(_mm256_loadu_ps(f + 8), mask)};
}
VEC_INLINE Vec load_lower(const void* p) {
  const auto* u = static_cast<const __m256i*>(p);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(u), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(u + 1), 16))};
}
constexpr bool kReloadWeights = true;  // 16 registers, 12 of them sums

VEC_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
VEC_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
VEC_INLINE Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
VEC_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
VEC_INLINE Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
VEC_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }  // a > b ? a : b
VEC_INLINE Vec neg(Vec a) {
  return {_mm256_xor_ps(a.lo, _mm256_set1_ps(-0.0f)), _mm256_xor_ps(a.hi, _mm256_set1_ps(-0.0f))};
}
VEC_INLINE Vec abs(Vec a) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.lo), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.hi)};
}
VEC_INLINE Vec copysign(Vec a, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  const Vec m = abs(a);
  return {_mm256_or_ps(m.lo, _mm256_and_ps(sign.lo, bit)), _mm256_or_ps(m.hi, _mm256_and_ps(sign.hi, bit))};
}
/// a < b ? x : y (y where a or b is NaN).
VEC_INLINE Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
/// Lanes [begin, end) of x, `other` elsewhere.
VEC_INLINE Vec keep_lanes(Vec x, int begin, int end, Vec other) {
  const __m256i lo = _mm256_andnot_si256(first_of_8(begin), first_of_8(end));
  const __m256i hi = _mm256_andnot_si256(first_of_8(begin - 8), first_of_8(end - 8));
  return {_mm256_blendv_ps(other.lo, x.lo, _mm256_castsi256_ps(lo)),
          _mm256_blendv_ps(other.hi, x.hi, _mm256_castsi256_ps(hi))};
}
VEC_INLINE __m256 scale8_by_power(__m256 y, __m256 shifted, float magic) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(_mm256_set1_ps(magic)));
  const __m256i half = _mm256_srai_epi32(n, 1), bias = _mm256_set1_epi32(127);
  const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(y, a), b);
}
/// (y * 2^(n/2)) * 2^(n - n/2) where n = the integer in the low bits of `shifted` - `magic`.
VEC_INLINE Vec scale_by_power(Vec y, Vec shifted, float magic) {
  return {scale8_by_power(y.lo, shifted.lo, magic), scale8_by_power(y.hi, shifted.hi, magic)};
}

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
VEC_INLINE float fold_sum(Vec x) {
  const __m256 a = _mm256_add_ps(x.lo, x.hi);
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_INLINE float fold_max(Vec x) {
  const __m256 a = _mm256_max_ps(x.lo, x.hi);
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC_INLINE bool any_less(Vec a, Vec b) {
  const __m256 either = _mm256_or_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ));
  return _mm256_movemask_ps(either) != 0;
}
