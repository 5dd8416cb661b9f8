// Norms and element-wise ops, written once over Vec. Element i of a row stands in lane i mod 16; the last vector of a
// row is masked and runs the same code. Each op's arithmetic is that of its scalar reference. Included inside an
// anonymous namespace after math-inl.h.

constexpr int kWidth = 16;

VEC_INLINE int lanes_left(Index i, Index n) { return n - i < kWidth ? static_cast<int>(n - i) : kWidth; }
VEC_INLINE Vec get(const float* p, Index i, Index n) {
  return n - i >= kWidth ? load(p + i) : load_n(p + i, lanes_left(i, n));
}

/// A row of float32 or bf16 that is written.
struct OutRow {
  void* data;
  bool bf16;
  VEC_INLINE void put(Index i, Index n, Vec x) const {
    if (bf16) {
      auto* p = static_cast<uint16_t*>(data) + i;
      n - i >= kWidth ? store_bf16(p, x) : store_bf16_n(p, x, lanes_left(i, n));
    } else {
      auto* p = static_cast<float*>(data) + i;
      n - i >= kWidth ? store(p, x) : store_n(p, x, lanes_left(i, n));
    }
  }
};

inline float* f32_row(const MatrixView& m, Index row, Index col = 0) {
  return static_cast<float*>(m.data) + row * m.row_stride + col;
}
inline OutRow out_row(const MatrixView& m, Index row, Index col = 0) {
  const bool bf16 = m.dtype == DType::kBF16;
  return {static_cast<std::byte*>(m.data) + (row * m.row_stride + col) * (bf16 ? 2 : 4), bf16};
}

/// Rows for which waking another thread pays: some thousands of elements.
inline Index rows_per_thread(Index cols) { return cols >= 4096 ? 1 : 4096 / (cols + 1) + 1; }

// ---- norms ----
void rms_norm_row(const RmsNormArgs& args, Index row, Index group) {
  const float* x = f32_row(args.x, row, group);
  const Index n = args.dim;
  Vec square = zero();
  for (Index i = 0; i < n; i += kWidth) {
    const Vec v = get(x, i, n);
    square = fma(v, v, square);
  }
  const float scale = 1.0f / __builtin_sqrtf(fold_sum(square) / static_cast<float>(n) + args.eps);
  const OutRow out = out_row(args.out, row, group);
  for (Index i = 0; i < n; i += kWidth) out.put(i, n, mul(mul(get(x, i, n), set1(scale)), get(args.weight, i, n)));
}
void rms_norm_launch(OpContext& ctx, const RmsNormArgs& args) {
  ctx.pool.parallel_for(
      args.x.rows,
      [&](Index begin, Index end, int) {
        for (Index row = begin; row < end; ++row)
          for (Index group = 0; group < args.x.cols; group += args.dim) rms_norm_row(args, row, group);
      },
      rows_per_thread(args.x.cols));
}

void layer_norm_row(const LayerNormArgs& args, Index row) {
  const float* x = f32_row(args.x, row);
  const Index n = args.x.cols;
  Vec sum = zero(), square = zero();
  for (Index i = 0; i < n; i += kWidth) sum = add(sum, get(x, i, n));
  const Vec mean = set1(fold_sum(sum) / static_cast<float>(n));
  for (Index i = 0; i < n; i += kWidth) {
    const Vec d = keep_lanes(sub(get(x, i, n), mean), 0, lanes_left(i, n), zero());
    square = fma(d, d, square);
  }
  const Vec scale = set1(1.0f / __builtin_sqrtf(fold_sum(square) / static_cast<float>(n) + args.eps));
  const OutRow out = out_row(args.out, row);
  for (Index i = 0; i < n; i += kWidth) {
    const Vec y = mul(sub(get(x, i, n), mean), scale), w = get(args.weight, i, n);
    out.put(i, n, args.bias != nullptr ? fma(y, w, get(args.bias, i, n)) : mul(y, w));
  }
}
void layer_norm_launch(OpContext& ctx, const LayerNormArgs& args) {
  ctx.pool.parallel_for(
      args.x.rows,
      [&](Index begin, Index end, int) {
        for (Index row = begin; row < end; ++row) layer_norm_row(args, row);
      },
      rows_per_thread(args.x.cols));
}

// ---- element-wise: body(row, begin, end of columns), columns in pieces so that one long row feeds several threads
// ----
constexpr Index kPiece = 2048;
template <typename Body>
void for_pieces(OpContext& ctx, Index rows, Index cols, const Body& body) {
  const Index pieces = (cols + kPiece - 1) / kPiece;
  ctx.pool.parallel_for(
      rows * pieces,
      [&](Index begin, Index end, int) {
        for (Index i = begin; i < end; ++i) {
          const Index col = i % pieces * kPiece;
          body(i / pieces, col, cols - col < kPiece ? cols : col + kPiece);
        }
      },
      rows_per_thread(cols < kPiece ? cols : kPiece));
}

void add_residual_launch(OpContext& ctx, const AddResidualArgs& args) {
  for_pieces(ctx, args.sum.rows, args.sum.cols, [&](Index row, Index begin, Index end) {
    const float* sum = f32_row(args.sum, row);
    float* residual = f32_row(args.residual, row);
    const OutRow out{residual, false};
    for (Index i = begin; i < end; i += kWidth) {
      const Vec s = args.bias != nullptr ? add(get(sum, i, end), get(args.bias, i, end)) : get(sum, i, end);
      out.put(i, end, add(get(residual, i, end), s));
    }
  });
}

VEC_INLINE Vec silu_vec(Vec x) { return div(x, add(set1(1.0f), exp_vec(neg(x)))); }

void silu_mul_launch(OpContext& ctx, const SiluMulArgs& args) {
  for_pieces(ctx, args.out.rows, args.out.cols, [&](Index row, Index begin, Index end) {
    const float *gate = f32_row(args.gate, row), *up = f32_row(args.up, row);
    const OutRow out = out_row(args.out, row);
    for (Index i = begin; i < end; i += kWidth) out.put(i, end, mul(silu_vec(get(gate, i, end)), get(up, i, end)));
  });
}

VEC_INLINE Vec activate(parallel::Activation function, Vec x) {
  switch (function) {
    case parallel::Activation::kSilu: return silu_vec(x);
    case parallel::Activation::kRelu: return select_less(zero(), x, x, zero());
    case parallel::Activation::kGelu:
      return mul(mul(set1(0.5f), x), add(set1(1.0f), erf_vec(mul(x, set1(0.70710678118654752f)))));
    case parallel::Activation::kGeluTanh: break;
  }
  const Vec u = mul(x, fma(mul(x, x), set1(0.035677408136300125f), set1(0.79788456080286536f)));
  return div(x, add(set1(1.0f), exp_vec(mul(set1(-2.0f), u))));
}
void activation_launch(OpContext& ctx, const ActivationArgs& args) {
  for_pieces(ctx, args.out.rows, args.out.cols, [&](Index row, Index begin, Index end) {
    const float* x = f32_row(args.x, row);
    const OutRow out = out_row(args.out, row);
    for (Index i = begin; i < end; i += kWidth) out.put(i, end, activate(args.function, get(x, i, end)));
  });
}

/// Element i.. of a row of float32 or bf16.
VEC_INLINE Vec get_any(const MatrixView& m, Index row, Index i, Index end) {
  if (m.dtype == DType::kF32) return get(f32_row(m, row), i, end);
  const auto* p = static_cast<const uint16_t*>(m.data) + row * m.row_stride + i;
  return end - i >= kWidth ? load_bf16(p) : load_bf16_n(p, lanes_left(i, end));
}
void cast_launch(OpContext& ctx, const CastArgs& args) {
  for_pieces(ctx, args.out.rows, args.out.cols, [&](Index row, Index begin, Index end) {
    const OutRow out = out_row(args.out, row);
    for (Index i = begin; i < end; i += kWidth) out.put(i, end, get_any(args.x, row, i, end));
  });
}
bool cast_supports(const OpContext&, const CastArgs& args) { return args.x.dtype != DType::kF16; }

void embedding_launch(OpContext& ctx, const EmbeddingArgs& args) {
  for_pieces(ctx, args.out.rows, args.out.cols, [&](Index row, Index begin, Index end) {
    float* data = f32_row(args.out, row);
    const OutRow out{data, false};
    for (Index i = begin; i < end; i += kWidth) {
      const Vec value = get_any(args.table, args.ids[row], i, end);
      out.put(i, end, args.mode == EmbeddingMode::kAdd ? add(get(data, i, end), value) : value);
    }
  });
}
bool embedding_supports(const OpContext&, const EmbeddingArgs& args) { return args.table.dtype != DType::kF16; }

// ---- rope ----
void rope_row(const RopeArgs& args, Index row) {
  const Index half = args.cos.shape[1];
  const float* cosine = static_cast<const float*>(args.cos.data) + args.positions[row] * half;
  const float* sine = static_cast<const float*>(args.sin.data) + args.positions[row] * half;
  for (Index head = 0; head < args.x.cols; head += args.head_dim) {
    float* x = f32_row(args.x, row, head);
    if (args.pairing == RopePairing::kHalf) {
      const OutRow a{x, false}, b{x + half, false};
      for (Index i = 0; i < half; i += kWidth) {
        const Vec a0 = get(x, i, half), b0 = get(x + half, i, half), c = get(cosine, i, half), s = get(sine, i, half);
        a.put(i, half, fma(a0, c, neg(mul(b0, s))));
        b.put(i, half, fma(b0, c, mul(a0, s)));
      }
    } else {
      for (Index i = 0; i < half; ++i) {
        const float a0 = x[2 * i], b0 = x[2 * i + 1];
        x[2 * i] = __builtin_fmaf(a0, cosine[i], -(b0 * sine[i]));
        x[2 * i + 1] = __builtin_fmaf(b0, cosine[i], a0 * sine[i]);
      }
    }
  }
}
void rope_launch(OpContext& ctx, const RopeArgs& args) {
  ctx.pool.parallel_for(
      args.x.rows,
      [&](Index begin, Index end, int) {
        for (Index row = begin; row < end; ++row) rope_row(args, row);
      },
      rows_per_thread(args.x.cols));
}

// ---- logits ----
SoftmaxStats chunk_stats(const float* logits, Index n) {
  const Vec minus_inf = set1(-__builtin_inff());
  Vec max_lanes = minus_inf, sum = zero();
  for (Index i = 0; i < n; i += kWidth)
    max_lanes = max(max_lanes, keep_lanes(get(logits, i, n), 0, lanes_left(i, n), minus_inf));
  const float largest = fold_max(max_lanes);
  if (largest == -__builtin_inff()) return {largest, 0.0f};
  for (Index i = 0; i < n; i += kWidth)
    sum = add(sum, keep_lanes(exp_vec(sub(get(logits, i, n), set1(largest))), 0, lanes_left(i, n), zero()));
  return {largest, fold_sum(sum)};
}
void logit_stats_launch(OpContext& ctx, const LogitStatsArgs& args) {
  const Index cols = args.logits.cols, chunks = (cols + kVocabChunk - 1) / kVocabChunk;
  ctx.pool.parallel_for(
      args.logits.rows * chunks,
      [&](Index begin, Index end, int) {
        for (Index i = begin; i < end; ++i) {
          const Index first = i % chunks * kVocabChunk;
          args.stats[i] = chunk_stats(f32_row(args.logits, i / chunks, first),
                                      cols - first < kVocabChunk ? cols - first : kVocabChunk);
        }
      },
      8);
}

/// First i in [begin, n) with x[i] > threshold, or n.
Index find_greater(const float* x, Index begin, Index n, float threshold) {
  const Vec t = set1(threshold);
  for (; begin + kWidth <= n; begin += kWidth)
    if (any_less(t, load(x + begin))) break;
  while (begin < n && !(x[begin] > threshold)) ++begin;
  return begin;
}
void top_k_launch(OpContext& ctx, const TopKArgs& args) { top_k_rows(ctx, args, find_greater); }
