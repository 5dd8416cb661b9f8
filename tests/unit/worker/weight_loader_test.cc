// What each rank reads and keeps: its own slices and nothing else; every weight in its place; incomplete checkpoints
// refused by name.
#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "tests/support/shared_data.h"
#include "tests/unit/worker/synthetic_model.h"
#include "tests/unit/worker/thread_world.h"
#include "worker/weights/weight_loader.h"

namespace chorale::worker::test {
namespace {
using parallel::Checkpoint;
using parallel::Layout;
using parallel::Member;
using parallel::ModelConfig;

StageWeights load(const std::filesystem::path& path, int tp, int pp, int rank, DType compute = DType::kF32,
                  int threads = 1) {
  Checkpoint checkpoint = Checkpoint::open(path);
  const ModelConfig config = parallel::load_model_config(checkpoint);
  const Layout layout = parallel::make_layout(config, {.tp = tp, .pp = pp, .stages = {}, .shares = {}});
  ThreadPool pool({.num_threads = threads, .spin_us = 0});
  return load_weights(std::move(checkpoint), {config, layout, rank, compute}, pool);
}

TEST(WeightLoader, ReadsOnlyTheRanksOwnSlices) {
  const SyntheticModel model({});
  const ModelConfig config = parallel::load_model_config(Checkpoint::open(model.path()));
  for (const auto& [tp, pp] : std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {3, 2}}) {
    const Layout layout = parallel::make_layout(config, {.tp = tp, .pp = pp, .stages = {}, .shares = {}});
    uint64_t total = 0;
    for (int rank = 0; rank < tp * pp; ++rank) {
      const StageWeights weights = load(model.path(), tp, pp, rank);
      // A float32 file: the bytes read are the bytes that the planner says the rank keeps.
      EXPECT_EQ(weights.copied_bytes(), parallel::weight_bytes(config, layout, rank, DType::kF32).resident)
          << "tp=" << tp << " pp=" << pp << " rank=" << rank;
      EXPECT_GE(weights.weight_bytes(), weights.copied_bytes());
      total += weights.copied_bytes();
    }
    const uint64_t whole = load(model.path(), 1, 1, 0).copied_bytes();
    // Norms stand on every rank of a stage, and a KV head that two ranks' query heads share on both.
    EXPECT_LT(total, whole + whole / 10) << "tp=" << tp << " pp=" << pp;
    EXPECT_GE(total, whole);
  }
}

TEST(WeightLoader, CutsQuantisedFilesAtBlocksAndReadsLittleMore) {
  SHARED_OR_SKIP(model, "goldens/gguf/llama-q8_0.gguf");
  const uint64_t whole = load(model, 1, 1, 0).copied_bytes();
  const uint64_t halves = load(model, 2, 1, 0).copied_bytes() + load(model, 2, 1, 1).copied_bytes();
  EXPECT_GE(halves, whole);
  EXPECT_LT(halves, whole + whole / 10);
}

TEST(WeightLoader, PutsEveryElementInItsPlace) {
  const SyntheticModel model({});
  const Checkpoint checkpoint = Checkpoint::open(model.path());
  const ModelConfig config = parallel::load_model_config(checkpoint);
  const Layout layout = parallel::make_layout(config, {.tp = 3, .pp = 1, .stages = {}, .shares = {}});
  const auto element = [&](const std::string& name, int64_t row, int64_t col) {
    float value = 0;
    parallel::read_f32(*checkpoint.find(name), row, row + 1, col, col + 1, &value, 1);
    return value;
  };
  for (int rank = 0; rank < 3; ++rank) {
    const StageWeights weights = load(model.path(), 3, 1, rank, DType::kF32, 2);
    const auto wq = parallel::slice_of(config, layout, Member::kWq, parallel::ShardKind::kQueryHeads, rank);
    const auto wk = parallel::slice_of(config, layout, Member::kWk, parallel::ShardKind::kKvHeads, rank);
    const auto down = parallel::slice_of(config, layout, Member::kWDown, parallel::ShardKind::kMlpColumns, rank);
    const PackedWeight& qkv = weights.matrix(Member::kWq, 1);
    EXPECT_EQ(qkv.n, wq.rows.size() + 2 * wk.rows.size());
    for (int64_t col : {int64_t{0}, qkv.k - 1}) {
      EXPECT_EQ(packed_at(qkv, 1, col), element("model.layers.1.self_attn.q_proj.weight", wq.rows.begin + 1, col));
      EXPECT_EQ(packed_at(qkv, wq.rows.size() + 2, col),
                element("model.layers.1.self_attn.k_proj.weight", wk.rows.begin + 2, col));
      EXPECT_EQ(packed_at(qkv, qkv.n - 1, col),
                element("model.layers.1.self_attn.v_proj.weight", wk.rows.end - 1, col));
    }
    const PackedWeight& w_down = weights.matrix(Member::kWDown, 0);
    EXPECT_EQ(w_down.first_leaf, layout.mlp_leaves[static_cast<size_t>(rank)].begin);
    EXPECT_EQ(w_down.num_leaves(), layout.mlp_leaves[static_cast<size_t>(rank)].size());
    EXPECT_EQ(packed_at(w_down, 5, w_down.k - 1),
              element("model.layers.0.mlp.down_proj.weight", 5, down.columns.end - 1));
  }
}

TEST(WeightLoader, NamesWhatIsMissingOrHasAnotherShape) {
  struct Spoiled {
    const char* name;
    std::function<void(SyntheticModel::Tensors&)> spoil;
    std::vector<std::string> expected;
  };
  const std::vector<Spoiled> cases{
      {"no lm_head", [](auto& t) { t.erase("lm_head.weight"); }, {"lm_head.weight"}},
      {"no embedding", [](auto& t) { t.erase("model.embed_tokens.weight"); }, {"model.embed_tokens.weight"}},
      {"no norm in a layer",
       [](auto& t) { t.erase("model.layers.1.input_layernorm.weight"); },
       {"model.layers.1.input_layernorm.weight"}},
      {"no w_down",
       [](auto& t) { t.erase("model.layers.0.mlp.down_proj.weight"); },
       {"model.layers.0.mlp.down_proj.weight"}},
      {"wq transposed",
       [](auto& t) {
         t["model.layers.0.self_attn.k_proj.weight"] = {48, 24};
       },
       {"k_proj", "[48, 24]", "[24, 48]"}},
      {"short vocabulary",
       [](auto& t) {
         t["lm_head.weight"] = {2499, 48};
       },
       {"lm_head.weight", "[2499, 48]", "[2500, 48]"}},
      {"norm is a matrix",
       [](auto& t) {
         t["model.norm.weight"] = {48, 1};
       },
       {"model.norm.weight", "[48, 1]", "[48]"}},
      {"wider MLP",
       [](auto& t) {
         t["model.layers.1.mlp.up_proj.weight"] = {161, 48};
       },
       {"up_proj", "[161, 48]"}},
  };
  for (const Spoiled& c : cases) {
    const SyntheticModel model({}, c.spoil);
    try {
      const Checkpoint checkpoint = Checkpoint::open(model.path());
      parallel::check_weights(checkpoint, parallel::load_model_config(checkpoint));
      ADD_FAILURE() << c.name << ": was accepted";
    } catch (const Error& error) {
      for (const std::string& word : c.expected)
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
            << c.name << ": \"" << error.what() << "\" lacks " << word;
    }
    EXPECT_THROW(load(model.path(), 1, 1, 0), Error) << c.name;
  }
}

TEST(WeightLoader, IgnoresExtraTensors) {
  const SyntheticModel model(
      {}, [](auto& t) { t["model.layers.0.self_attn.rotary_emb.inv_freq"] = {4}, t["model.extra"] = {3}; });
  const Checkpoint checkpoint = Checkpoint::open(model.path());
  EXPECT_NO_THROW(parallel::check_weights(checkpoint, parallel::load_model_config(checkpoint)));
}

TEST(OneAnswer, VocabulariesOfSeveralChunksAreSplitOverRanks) {
  const SyntheticModel model({});  // 2500 ids: three chunks
  std::vector<Job> jobs;
  for (int i = 0; i < 5; ++i)
    jobs.push_back(
        {.prompt = std::vector<int32_t>(static_cast<size_t>(3 + 9 * i), 700 * i % 2500),
         .num_tokens = 6,
         .sampling = {.temperature = i % 2 == 0 ? 0.0f : 1.5f, .seed = static_cast<uint64_t>(i), .num_top_logprobs = 3},
         .prompt_logprobs = parallel::PromptLogprobs::kYes});
  const std::vector<Answer> wanted = ThreadWorld(model.path(), {}).run(jobs);
  for (const auto& [tp, pp] : std::vector<std::pair<int, int>>{{2, 1}, {3, 1}, {4, 1}, {2, 2}}) {
    ThreadWorld world(model.path(), {.tp = tp, .pp = pp});
    if (tp == 3) {
      for (const parallel::Range& rows : world.plan().layout.vocab_rows) EXPECT_GT(rows.size(), 0);
    }
    EXPECT_EQ(world.run(jobs), wanted) << "tp=" << tp << " pp=" << pp;
  }
}

}  // namespace
}  // namespace chorale::worker::test
