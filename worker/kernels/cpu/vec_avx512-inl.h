// Vec: 16 floats, one AVX-512 register. Included inside an anonymous namespace of a file compiled with a target pragma,
// after all other includes; vec_avx2-inl.h offers the same names with the same arithmetic. Kernels are written once
// over these names.

#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // both in GCC 12's own header, in _mm512_undefined_ps

using Index = int64_t;
#define VEC_INLINE inline __attribute__((always_inline))

struct Vec {
  __m512 v;
};

VEC_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

VEC_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
VEC_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
VEC_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
VEC_INLINE Vec load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
VEC_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
VEC_INLINE void store_n(float* p, Vec x, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), x.v); }

VEC_INLINE Vec widen(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
VEC_INLINE Vec load_bf16(const uint16_t* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
VEC_INLINE Vec load_bf16_n(const uint16_t* p, int n) { return widen(_mm256_maskz_loadu_epi16(first_lanes(n), p)); }
/// Round to nearest even, NaN stays NaN: the integer form of to_bf16 (vcvtneps2bf16 would do the same but for
/// denormals).
VEC_INLINE __m256i narrow(Vec x) {
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet));
}
VEC_INLINE void store_bf16(uint16_t* p, Vec x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x)); }
VEC_INLINE void store_bf16_n(uint16_t* p, Vec x, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(x)); }

/// Of 16 pairs of bf16 the upper halves of the 32-bit words, or the lower ones, as floats.
VEC_INLINE Vec load_upper(const void* p) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
VEC_INLINE Vec load_lower(const void* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))}; }
constexpr bool kReloadWeights = false;  // 32 registers

VEC_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
VEC_INLINE Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
VEC_INLINE Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
VEC_INLINE Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
VEC_INLINE Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
VEC_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }  // a > b ? a : b
VEC_INLINE Vec neg(Vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
VEC_INLINE Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
VEC_INLINE Vec copysign(Vec a, Vec sign) {
  return {_mm512_or_ps(abs(a).v, _mm512_and_ps(sign.v, _mm512_set1_ps(-0.0f)))};
}
/// a < b ? x : y (y where a or b is NaN).
VEC_INLINE Vec select_less(Vec a, Vec b, Vec x, Vec y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
/// Lanes [begin, end) of x, `other` elsewhere.
VEC_INLINE Vec keep_lanes(Vec x, int begin, int end, Vec other) {
  return {_mm512_mask_blend_ps(static_cast<__mmask16>(first_lanes(end) & ~first_lanes(begin)), other.v, x.v)};
}
/// (y * 2^(n/2)) * 2^(n - n/2) where n = the integer in the low bits of `shifted` - `magic`.
VEC_INLINE Vec scale_by_power(Vec y, Vec shifted, float magic) {
  const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted.v), _mm512_castps_si512(_mm512_set1_ps(magic)));
  const __m512i half = _mm512_srai_epi32(n, 1), bias = _mm512_set1_epi32(127);
  const __m512 a = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
  const __m512 b = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_sub_epi32(n, half), bias), 23));
  return {_mm512_mul_ps(_mm512_mul_ps(y.v, a), b)};
}

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
VEC_INLINE float fold_sum(Vec x) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
VEC_INLINE float fold_max(Vec x) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC_INLINE bool any_less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) != 0; }
