// Attention in float64, for tests of kernels on tensor cores: shapes of a model, texts of random projections, what
// every element should be and by how much a kernel may differ.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/worker/device_cache.h"
#include "worker/ops/attention.h"

namespace chorale::worker {

struct Model {
  std::vector<int32_t> kv_head_of;
  int head_dim = 64;
  DType cache = DType::kF32;
  KvOrder order = KvOrder::kVectors;
  int window = 0;
  float softcap = 0.0f;
  AttentionMask mask = AttentionMask::kCausal;
  DType out = DType::kF32;

  int num_heads() const { return static_cast<int>(kv_head_of.size()); }
  int num_kv_heads() const { return kv_head_of.back() + 1; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

inline std::vector<int32_t> groups(int num_kv_heads, int size) {
  std::vector<int32_t> kv_head_of;
  for (int h = 0; h < num_kv_heads * size; ++h) kv_head_of.push_back(h / size);
  return kv_head_of;
}

inline std::string name_of(const Model& m) {
  return fmt::format("heads {}/{} dim {} cache {} order {} window {} softcap {} mask {}", m.num_heads(),
                     m.num_kv_heads(), m.head_dim, to_string(m.cache), static_cast<int>(m.order), m.window, m.softcap,
                     static_cast<int>(m.mask));
}

/// Tokens [begin, end) of the text `text`, whose earlier tokens are in the cache.
struct Chunk {
  int text, begin, end;
};

/// What a text's tokens are projected to. The queries are large, so that some keys matter and others do not.
struct Text {
  std::vector<float> q, k, v;  // [length, heads * head_dim]
  Text(const Model& m, int number, int length)
      : q(random_floats(int64_t{length} * m.num_heads() * m.head_dim, 100 + static_cast<uint32_t>(number))),
        k(random_floats(int64_t{length} * m.num_kv_heads() * m.head_dim, 200 + static_cast<uint32_t>(number))),
        v(random_floats(int64_t{length} * m.num_kv_heads() * m.head_dim, 300 + static_cast<uint32_t>(number))) {
    for (float& x : q) x *= 8.0f;
  }
};

struct Reference {
  double value, bound;
};
/// Softmax attention in float64 over q, k and v rounded to the cache's type, and what the kernel may differ by. With u
/// the unit roundoff of that type and e = 2^-24, for a row of n keys with weights w_j:
///   a score is off by at most sum |q k| scale (head_dim + 2) 2 e (tensor cores may truncate: 2 e an addition), and by
///   6 e of itself and of softcap, so w_j relatively by twice the largest d of these, to first order;
///   exp by 8 e, in the sum of w_j v_j and in that of w_j, and p's rounding, in the first only, by u, and by 2^-25
///   absolutely where p is tiny in float16 (p <= 1, their sum >= 1); adding n values, rescaling and folding at most
///   (n + n / 16 + n / 256 + 8) 2 e; rounding out to bfloat16: 2^-8 of what is rounded; to float16 2^-11, or 2^-25
///   where that is tiny.
/// bfloat16 has 8 significant bits, the hidden one included, and float16 has 11: rounded to nearest, a number is off by
/// half of a spacing of at most 2^-7, or 2^-10, of itself: u = 2^-8, or 2^-11.
inline std::vector<Reference> reference(const Model& m, const Text& text, int position, int context, int head) {
  const int kv = m.kv_head_of[static_cast<size_t>(head)], kv_heads = m.num_kv_heads();
  const int end = m.mask == AttentionMask::kFull ? context : position + 1;
  const int begin = m.mask == AttentionMask::kCausal && m.window > 0 ? std::max(0, end - m.window) : 0;
  const auto element = [&](const std::vector<float>& x, int row, int heads, int h, int i) {
    return static_cast<double>(rounded(x[static_cast<size_t>((row * heads + h) * m.head_dim + i)], m.cache));
  };
  const double e = 0x1p-24, u = m.cache == DType::kBF16 ? 0x1p-8 : 0x1p-11;
  std::vector<double> scores, q;
  for (int i = 0; i < m.head_dim; ++i) q.push_back(element(text.q, position, m.num_heads(), head, i));
  double worst = 0, max = -INFINITY;
  for (int key = begin; key < end; ++key) {
    double score = 0, size = 0;
    for (int i = 0; i < m.head_dim; ++i) {
      const double product = q[static_cast<size_t>(i)] * element(text.k, key, kv_heads, kv, i);
      score += product, size += std::fabs(product);
    }
    score *= m.scale(), size *= m.scale();
    if (m.softcap > 0) score = m.softcap * std::tanh(score / m.softcap);
    worst = std::max(worst, size * (m.head_dim + 2) * 2 * e + (std::fabs(score) + m.softcap) * 6 * e);
    scores.push_back(score);
    max = std::max(max, score);
  }
  std::vector<double> weights;
  double sum = 0;
  for (double score : scores) sum += weights.emplace_back(std::exp(score - max));
  std::vector<Reference> references;
  for (int dim = 0; dim < m.head_dim; ++dim) {
    double out = 0, size = 0;
    for (int key = begin; key < end; ++key) {
      const double w = weights[static_cast<size_t>(key - begin)];
      const double v = element(text.v, key, kv_heads, kv, dim);
      out += w * v, size += w * std::fabs(v);
    }
    const double n = end - begin, tiny = m.cache == DType::kF16 ? n * 0x1p-25 : 0;
    const double relative = 2 * worst + 2 * 8 * e + u + (n + n / 16 + n / 256 + 8) * 2 * e;
    const double bound = size / sum * relative * 1.01 + tiny;
    const double rounded_to = std::fabs(out / sum) + bound;
    const double half_spacing = m.out == DType::kBF16  ? rounded_to * 0x1p-8
                                : m.out == DType::kF16 ? rounded_to * 0x1p-11 + 0x1p-25
                                                       : 0;
    references.push_back({out / sum, bound + half_spacing});
  }
  return references;
}

inline float element_of(const Tensor& t, int64_t row, int64_t column) {
  const int64_t i = row * t.shape()[1] + column;
  if (t.view().dtype == DType::kF16) return to_float(t.as<Float16>()[i]);
  return t.view().dtype == DType::kBF16 ? to_float(t.as<BFloat16>()[i]) : t.as<float>()[i];
}

inline void expect_close(const Model& m, const Tensor& out, const std::vector<Chunk>& chunks) {
  int64_t row = 0;
  for (const Chunk& c : chunks) {
    const Text text(m, c.text, c.end);
    for (int p = c.begin; p < c.end; ++p, ++row)
      for (int h = 0; h < m.num_heads(); ++h) {
        const std::vector<Reference> want = reference(m, text, p, c.end, h);
        for (int dim = 0; dim < m.head_dim; ++dim) {
          const auto& [value, bound] = want[static_cast<size_t>(dim)];
          ASSERT_NEAR(element_of(out, row, h * m.head_dim + dim), value, bound)
              << "context " << c.end << " position " << p << " head " << h << " dim " << dim;
        }
      }
  }
}

}  // namespace chorale::worker
