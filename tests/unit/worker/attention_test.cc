// attention and kv_write over the paged cache: the bits of the scalar reference, the values of a float64 one, and what
// must not matter: how a prompt is cut into chunks, where blocks lie, what else is in the batch, threads, and garbage
// in unused slots.
#include "worker/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/unit/worker/op_test_support.h"
#include "worker/ops/kv_write.h"

namespace chorale::worker {
namespace {

struct Model {
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 16;
  DType cache = DType::kF32;
  int window = 0;
  float softcap = 0.0f;
  DType out = DType::kF32;
  AttentionMask mask = AttentionMask::kCausal;
};

/// One sequence's keys, values and queries for all of its positions.
struct Sequence {
  int length;
  std::vector<float> q, k, v;  // [length, heads * head_dim]
  std::vector<int32_t> blocks;
};

void fill_with_nan(const TensorView& t) {
  for (int64_t i = 0; i < t.shape.num_elements(); ++i)
    if (t.dtype == DType::kBF16)
      t.as<BFloat16>()[i] = {0x7fc0};
    else
      t.as<float>()[i] = std::numeric_limits<float>::quiet_NaN();
}

/// A cache full of NaN in which `sequences` own shuffled blocks.
class World {
 public:
  World(const Model& model, const std::vector<int>& lengths, uint32_t seed, int num_threads = 1,
        parallel::Isa isa = parallel::Isa::kScalar)
      : model_(model), rank_(num_threads, isa) {
    int num_blocks = 3;
    for (int length : lengths) num_blocks += (length + kBlockTokens - 1) / kBlockTokens;
    cache_ = KvCache({model.cache, 1, model.num_kv_heads, model.head_dim}, num_blocks);
    layer_ = cache_.layer(0);
    fill_with_nan(layer_.k);
    fill_with_nan(layer_.v);
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::minstd_rand(seed));
    for (int h = 0; h < model.num_heads; ++h) kv_head_of_.push_back(h * model.num_kv_heads / model.num_heads);
    for (size_t s = 0; s < lengths.size(); ++s) {
      const int n = lengths[s], kv = n * model.num_kv_heads * model.head_dim;
      Sequence sequence{n,
                        random_floats(n * model.num_heads * model.head_dim, 10 + static_cast<uint32_t>(s)),
                        random_floats(kv, 20 + static_cast<uint32_t>(s)),
                        random_floats(kv, 30 + static_cast<uint32_t>(s)),
                        {}};
      for (int b = 0; b < (n + kBlockTokens - 1) / kBlockTokens; ++b) {
        sequence.blocks.push_back(ids.back());
        ids.pop_back();
      }
      sequences_.push_back(std::move(sequence));
    }
  }

  struct Chunk {
    int sequence, begin, end;  // positions
  };

  /// Writes the chunks' K and V and fills the arguments; `out` is sized for their rows. The arguments stay valid until
  /// the next call.
  AttentionArgs prepare(const std::vector<Chunk>& chunks) {
    query_start_ = {0};
    context_len_.clear();
    q_.clear();
    size_t widest = 1;
    for (const Sequence& s : sequences_) widest = std::max(widest, s.blocks.size());
    table_.assign(chunks.size() * widest, -1);
    const int q_width = model_.num_heads * model_.head_dim, kv_width = model_.num_kv_heads * model_.head_dim;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const auto [index, begin, end] = chunks[i];
      Sequence& s = sequences_[static_cast<size_t>(index)];
      std::vector<int32_t> slots;
      for (int p = begin; p < end; ++p)
        slots.push_back(s.blocks[static_cast<size_t>(p / kBlockTokens)] * kBlockTokens + p % kBlockTokens);
      kv_write(rank_.ctx, {MatrixView(s.k.data() + begin * kv_width, DType::kF32, end - begin, kv_width, kv_width),
                           MatrixView(s.v.data() + begin * kv_width, DType::kF32, end - begin, kv_width, kv_width),
                           slots.data(), layer_});
      q_.insert(q_.end(), s.q.begin() + begin * q_width, s.q.begin() + end * q_width);
      query_start_.push_back(query_start_.back() + end - begin);
      context_len_.push_back(end);
      std::copy_n(s.blocks.begin(), (end + kBlockTokens - 1) / kBlockTokens,
                  table_.begin() + static_cast<int64_t>(i * widest));
    }
    out_ = Tensor(model_.out, {query_start_.back(), q_width});
    AttentionArgs args;
    args.q = MatrixView(q_.data(), DType::kF32, query_start_.back(), q_width, q_width);
    args.cache = layer_;
    args.kv_head_of = kv_head_of_.data();
    args.num_heads = model_.num_heads;
    args.num_sequences = static_cast<int>(chunks.size());
    args.query_start = query_start_.data();
    args.context_len = context_len_.data();
    args.block_table = table_.data();
    args.block_table_stride = static_cast<int64_t>(widest);
    args.scale = 1.0f / std::sqrt(static_cast<float>(model_.head_dim));
    args.softcap = model_.softcap;
    args.window = model_.window;
    args.mask = model_.mask;
    args.out = out_;
    return args;
  }

  Tensor run(const std::vector<Chunk>& chunks) {
    attention(rank_.ctx, prepare(chunks));
    return std::move(out_);
  }

  OpContext& ctx() { return rank_.ctx; }
  const Sequence& sequence(int i) const { return sequences_[static_cast<size_t>(i)]; }

 private:
  Model model_;
  TestRank rank_;
  KvCache cache_;
  KvLayer layer_;
  std::vector<int32_t> kv_head_of_, query_start_, context_len_, table_;
  std::vector<Sequence> sequences_;
  std::vector<float> q_;
  Tensor out_;
};

std::vector<Model> models() {
  return {{},
          {.num_heads = 9, .num_kv_heads = 3, .head_dim = 64, .cache = DType::kBF16, .out = DType::kBF16},
          {.num_heads = 3, .num_kv_heads = 3, .head_dim = 5},
          {.num_heads = 8, .num_kv_heads = 1, .head_dim = 20, .cache = DType::kBF16},
          {.num_heads = 13, .num_kv_heads = 1, .head_dim = 80, .window = 40},
          {.num_heads = 4, .num_kv_heads = 2, .head_dim = 128, .cache = DType::kBF16, .window = 7},
          {.num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .window = 300, .softcap = 0.5f},
          {.num_heads = 5, .num_kv_heads = 2, .head_dim = 24, .softcap = 2.0f},
          {.num_heads = 4, .num_kv_heads = 4, .head_dim = 16, .mask = AttentionMask::kFull}};
}

std::string name_of(const Model& m) {
  return fmt::format("heads {}/{} dim {} cache {} window {} softcap {} mask {}", m.num_heads, m.num_kv_heads,
                     m.head_dim, to_string(m.cache), m.window, m.softcap, static_cast<int>(m.mask));
}

TEST(Attention, KernelsGiveTheBitsOfTheScalarReference) {
  for (const Model& model : models())
    for (int threads : {1, 3}) {
      SCOPED_TRACE(name_of(model) + fmt::format(" threads {}", threads));
      World world(model, {1, 16, 37, 300, 600, 530}, 1, threads);
      // A decode row with a long context, whole prompts, a chunk that ends on a block, one that starts inside a block.
      world.prepare({{3, 0, 290}, {4, 0, 599}, {5, 0, 517}});
      AttentionArgs args =
          world.prepare({{0, 0, 1}, {1, 0, 16}, {2, 0, 37}, {3, 290, 300}, {4, 599, 600}, {5, 517, 530}});
      Tensor want(model.out, {args.q.rows, args.q.cols});
      const MatrixView got = args.out;
      args.out = want;
      launch_scalar(world.ctx(), args);
      args.out = got;
      for_each_vector_kernel(world.ctx(), args, [&](const Kernel<AttentionArgs>& kernel) {
        std::memset(got.data, 0xff, static_cast<size_t>(got.rows * got.cols) * size_of(got.dtype));
        kernel.launch(world.ctx(), args);
        ASSERT_TRUE(same_bits(got, want));
      });
      // Alone, so that few tiles are spread over threads by splits.
      AttentionArgs one = world.prepare({{4, 599, 600}});
      for_each_vector_kernel(world.ctx(), one, [&](const Kernel<AttentionArgs>& kernel) {
        kernel.launch(world.ctx(), one);
        ASSERT_TRUE(same_bits(one.out, MatrixView(want).row_range(args.query_start[4], args.query_start[5])));
      });
    }
}

/// Softmax attention in float64 over the values that the cache holds.
double naive(const Model& m, const Sequence& s, int position, int head, int d) {
  const int kv = head * m.num_kv_heads / m.num_heads;
  const auto stored = [&](const std::vector<float>& x, int key, int i) {
    const float value = x[static_cast<size_t>((key * m.num_kv_heads + kv) * m.head_dim + i)];
    return static_cast<double>(m.cache == DType::kBF16 ? to_float(to_bf16(value)) : value);
  };
  const int end = m.mask == AttentionMask::kCausal ? position + 1 : s.length;
  const int begin = m.window > 0 ? std::max(0, end - m.window) : 0;
  double sum = 0, out = 0;
  for (int key = begin; key < end; ++key) {
    double score = 0;
    for (int i = 0; i < m.head_dim; ++i)
      score += static_cast<double>(s.q[static_cast<size_t>((position * m.num_heads + head) * m.head_dim + i)]) *
               stored(s.k, key, i);
    score /= std::sqrt(static_cast<double>(m.head_dim));
    if (m.softcap > 0) score = m.softcap * std::tanh(score / m.softcap);
    sum += std::exp(score);
    out += std::exp(score) * stored(s.v, key, d);
  }
  return out / sum;
}

TEST(Attention, IsCloseToFloat64) {
  for (Model model : models()) {
    SCOPED_TRACE(name_of(model));
    model.out = DType::kF32;
    World world(model, {600}, 1);
    const Tensor out = world.run({{0, 0, 600}});
    // |v| <= 1 and weights sum to 1, so the error is about the weights' relative error: score error (head_dim products,
    // |q k| <= 1) plus exp, rescaling over 38 blocks and the chain over up to 600 values.
    const double bound = (std::sqrt(model.head_dim) * 2 + 4 + 40 + 600) * 0x1p-24;
    for (int p : {0, 1, 15, 16, 17, 255, 256, 511, 599})
      for (int h = 0; h < model.num_heads; ++h)
        for (int d : {0, model.head_dim - 1})
          ASSERT_NEAR(out.as<float>()[(p * model.num_heads + h) * model.head_dim + d],
                      naive(model, world.sequence(0), p, h, d), bound)
              << "position " << p << " head " << h << " dim " << d;
  }
}

/// A prompt whole, in chunks, or token by token; alone or beside others; in other blocks; with more threads: the same
/// bits.
TEST(Attention, OnlyTheRowAndItsKeysMatter) {
  const int length = 280;
  for (const Model& model : models()) {
    if (model.mask == AttentionMask::kFull) continue;  // a full mask sees the whole context at once
    for (auto isa : isas_of_this_cpu()) {
      if (isa == parallel::Isa::kScalar && model.head_dim > 64)
        continue;  // slow, and equal to the others by the test above
      SCOPED_TRACE(name_of(model) + " " + std::string(parallel::to_string(isa)));
      World whole(model, {length}, 1, 1, isa);
      const Tensor want = whole.run({{0, 0, length}});
      for (int chunk : {1, 7, 64}) {
        World parts(model, {length, 33}, 2, chunk == 7 ? 2 : 1, isa);
        for (int begin = 0, step = 0; begin < length; begin += chunk, ++step) {
          const int end = std::min(length, begin + chunk);
          std::vector<World::Chunk> batch{{0, begin, end}};
          if (step < 33) batch.insert(batch.begin(), {1, step, step + 1});
          const Tensor out = parts.run(batch);
          const int64_t rows = end - begin, all = out.shape()[0];
          ASSERT_TRUE(same_bits(MatrixView(out).row_range(all - rows, all), MatrixView(want).row_range(begin, end)))
              << "at " << begin;
        }
      }
    }
  }
}

TEST(Attention, WritesNothingButItsRowsIntoTheCache) {
  const Model model{.num_heads = 2, .num_kv_heads = 2, .head_dim = 12, .cache = DType::kBF16};
  TestRank rank;
  KvCache cache({model.cache, 1, 2, 12}, 2);
  const KvLayer layer = cache.layer(0);
  const std::vector<float> k = random_floats(2 * 24, 1), v = random_floats(2 * 24, 2);
  const std::vector<int32_t> slots{17, 3};
  kv_write(rank.ctx, {MatrixView(const_cast<float*>(k.data()), DType::kF32, 2, 24, 24),
                      MatrixView(const_cast<float*>(v.data()), DType::kF32, 2, 24, 24), slots.data(), layer});
  int64_t written = 0;
  for (int64_t i = 0; i < layer.k.shape.num_elements(); ++i) written += layer.k.as<BFloat16>()[i].bits != 0;
  int64_t expected = 0;
  for (int row = 0; row < 2; ++row)
    for (int head = 0; head < 2; ++head)
      for (int d = 0; d < 12; ++d) {
        const int block = slots[static_cast<size_t>(row)] / 16, offset = slots[static_cast<size_t>(row)] % 16;
        const float key = k[static_cast<size_t>(row * 24 + head * 12 + d)],
                    value = v[static_cast<size_t>(row * 24 + head * 12 + d)];
        EXPECT_EQ(layer.k.as<BFloat16>()[((block * 2 + head) * 12 + d) * 16 + offset].bits, to_bf16(key).bits);
        EXPECT_EQ(layer.v.as<BFloat16>()[((block * 2 + head) * 16 + offset) * 16 + d].bits, to_bf16(value).bits);
        expected += to_bf16(key).bits != 0;
      }
  EXPECT_EQ(written, expected);
}

}  // namespace
}  // namespace chorale::worker
