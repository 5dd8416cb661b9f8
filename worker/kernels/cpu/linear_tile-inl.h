// The arithmetic of linear over panels, written once over Vec (vec_*-inl.h): R rows times V vectors of 16 outputs stay
// in registers while k ascends. A lane is one output of one row: acc = fma(w, x, acc), so its chain depends neither on
// R, V nor the instruction set. Included inside an anonymous namespace after a vec_*-inl.h.

/// float32 weights: one k a step.
struct F32Weights {
  static constexpr int kKPerStep = 1, kWords = 1;
  template <int R, int V>
  static VEC_INLINE void step(const std::byte* w, const uint32_t* x, Vec (&acc)[R][V]) {
    Vec weight[V];
    for (int v = 0; v < V; ++v) weight[v] = load(reinterpret_cast<const float*>(w) + 16 * v);
    for (int r = 0; r < R; ++r) {
      const Vec value = set1(__builtin_bit_cast(float, x[r]));
      for (int v = 0; v < V; ++v) acc[r][v] = fma(weight[v], value, acc[r][v]);
    }
  }
  static void pack(const void* source, Index k, uint32_t* x, Index stride) {
    const auto* s = static_cast<const uint32_t*>(source);
    for (Index i = 0; i < k; ++i) x[i * stride] = s[i];
  }
};

/// bf16 weights widened to float32: a pair of k a step, the lower k (upper half of the word) first.
struct WidenedWeights {
  static constexpr int kKPerStep = 2, kWords = 2;
  template <int R, int V>
  static VEC_INLINE void step(const std::byte* w, const uint32_t* x, Vec (&acc)[R][V]) {
    half_step<R, V, load_upper>(w, x, acc);
    if constexpr (kReloadWeights)
      __asm__("" : "+r"(w));  // hides that it is the same memory: loaded again rather than kept
    half_step<R, V, load_lower>(w, x + R, acc);
  }
  template <int R, int V, Vec (*Load)(const void*)>
  static VEC_INLINE void half_step(const std::byte* w, const uint32_t* x, Vec (&acc)[R][V]) {
    Vec weight[V];
    for (int v = 0; v < V; ++v) weight[v] = Load(w + 64 * v);
    for (int r = 0; r < R; ++r) {
      const Vec value = set1(__builtin_bit_cast(float, x[r]));
      for (int v = 0; v < V; ++v) acc[r][v] = fma(weight[v], value, acc[r][v]);
    }
  }
  static void pack(const void* source, Index k, uint32_t* x, Index stride) {
    const auto* s = static_cast<const uint16_t*>(source);
    for (Index i = 0; i < k; ++i) x[i * stride] = static_cast<uint32_t>(s[i]) << 16;
    if (k % 2 != 0) x[k * stride] = 0;
  }
};

template <typename Weights, int R, int V>
void tile(const panels::TileCall& c) {
  Vec acc[R][V];
  if (c.resume) {
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] = load(c.sums + r * kPanelWidth + 16 * v);
  } else {
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] = zero();
  }
  const std::byte* w = c.w;
  const uint32_t* x = c.x;
  const std::byte* ahead = c.prefetch;
  for (Index s = 0; s < c.steps; ++s) {
    if (c.prefetch_lines == 1) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
    } else if (c.prefetch_lines > 1) {
      for (int v = 0; v < V; ++v) _mm_prefetch(reinterpret_cast<const char*>(ahead + 64 * v), _MM_HINT_T1);
    }
    ahead += c.prefetch_step;
    Weights::template step<R, V>(w, x, acc);
    w += c.w_step;
    x += Weights::kWords * R;
  }
  const float* sibling = c.sums;
  for (int m = 0; m < c.num_merges; ++m) {
    sibling -= c.merge_stride;
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) acc[r][v] = add(load(sibling + r * kPanelWidth + 16 * v), acc[r][v]);
  }
  float* sums = c.sums - c.num_merges * c.merge_stride;
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * kPanelWidth + 16 * v, acc[r][v]);
}

/// Fills the table for rows R, R - 1, ..., 1; Budget = accumulator vectors that fit the registers.
template <typename Weights, int R, int Budget>
void fill_tiles(panels::TileSet& set) {
  set.tile[R][0] = tile<Weights, R, 1>;
  if constexpr (2 * R <= Budget) set.tile[R][1] = tile<Weights, R, 2>;
  if constexpr (4 * R <= Budget) set.tile[R][2] = tile<Weights, R, 4>;
  if constexpr (8 * R <= Budget) set.tile[R][3] = tile<Weights, R, 8>;
  if constexpr (R > 1) fill_tiles<Weights, R - 1, Budget>(set);
}

template <typename Weights, int MaxRows, int Budget>
panels::TileSet make_tiles() {
  panels::TileSet set{};
  set.max_rows = MaxRows;
  set.k_per_step = Weights::kKPerStep;
  set.words_per_step = Weights::kWords;
  set.pack = Weights::pack;
  fill_tiles<Weights, MaxRows, Budget>(set);
  return set;
}
