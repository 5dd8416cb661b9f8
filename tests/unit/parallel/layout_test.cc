#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "parallel/layout.h"
#include "tests/support/model_shapes.h"

namespace chorale::parallel {
namespace {

using test::smollm2_config;

std::string error_of(const ModelConfig& config, const LayoutRequest& request) {
  try {
    make_layout(config, request);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Leaves, FollowTheContract) {
  const ModelConfig config = smollm2_config();
  EXPECT_EQ(num_attention_leaves(config), 9);
  EXPECT_EQ(num_mlp_leaves(config), 16);
  EXPECT_EQ(heads_of(config, {5, 9}), (Range{5, 9}));
  EXPECT_EQ(mlp_columns_of(config, {0, 1}), (Range{0, 96}));
  EXPECT_EQ(mlp_columns_of(config, {15, 16}), (Range{1440, 1536}));
}

TEST(Leaves, CoverEveryItemOnceForAnySizes) {
  for (int heads = 1; heads <= 70; ++heads) {
    ModelConfig config = smollm2_config();
    config.num_heads = heads;
    config.num_kv_heads = 1;
    config.intermediate_size = 17 * heads + 3;
    const int leaves = num_attention_leaves(config);
    int64_t next = 0;
    for (int leaf = 0; leaf < leaves; ++leaf) {
      const Range run = heads_of(config, {leaf, leaf + 1});
      EXPECT_EQ(run.begin, next);
      EXPECT_GE(run.size(), 1);
      for (int64_t head = run.begin; head < run.end; ++head) EXPECT_EQ(head * leaves / heads, leaf);
      next = run.end;
    }
    EXPECT_EQ(next, heads);
    EXPECT_EQ(mlp_columns_of(config, {0, num_mlp_leaves(config)}), (Range{0, config.intermediate_size}));
  }
}

TEST(Layout, CutsNineHeadsForTwoThreeAndFour) {
  const ModelConfig config = smollm2_config();
  const Layout two = make_layout(config, {.tp = 2});
  EXPECT_EQ(two.attention_leaves, (std::vector<comm::LeafRange>{{0, 5}, {5, 9}}));
  EXPECT_EQ(kv_heads_of(config, heads_of(config, two.attention_leaves[0])), (Range{0, 2}));
  EXPECT_EQ(kv_heads_of(config, heads_of(config, two.attention_leaves[1])), (Range{1, 3}));  // KV head 1 on both
  const Layout three = make_layout(config, {.tp = 3});
  EXPECT_EQ(three.attention_leaves, (std::vector<comm::LeafRange>{{0, 3}, {3, 6}, {6, 9}}));
  const Layout four = make_layout(config, {.tp = 4});
  EXPECT_EQ(four.attention_leaves, (std::vector<comm::LeafRange>{{0, 3}, {3, 5}, {5, 7}, {7, 9}}));
}

TEST(Layout, SplitsTheVocabularyAtChunks) {
  ModelConfig config = smollm2_config();
  config.vocab_size = 2500;
  const Layout layout = make_layout(config, {.tp = 4});
  int64_t next = 0;
  for (const Range& rows : layout.vocab_rows) {
    EXPECT_EQ(rows.begin, next);
    EXPECT_TRUE(rows.begin % kVocabChunk == 0 || rows.size() == 0);
    next = rows.end;
  }
  EXPECT_EQ(next, 2500);
}

TEST(Layout, BalancesStagesByCost) {
  const ModelConfig config = smollm2_config();
  const Layout layout = make_layout(config, {.tp = 1, .pp = 2});
  // lm_head weighs as much as about eight layers, so the last stage gets fewer.
  EXPECT_GT(layout.stage_layers[0].size(), layout.stage_layers[1].size());
  for (int pp = 1; pp <= config.num_layers; ++pp) {
    int64_t next = 0;
    for (const Range& layers : make_layout(config, {.tp = 1, .pp = pp}).stage_layers) {
      EXPECT_EQ(layers.begin, next);
      EXPECT_GE(layers.size(), 1);
      next = layers.end;
    }
    EXPECT_EQ(next, config.num_layers);
  }
  EXPECT_EQ(make_layout(config, {.tp = 1, .pp = 3, .stages = {10, 12, 8}}).stage_layers[1], (Range{10, 22}));
}

TEST(Layout, RefusesWhatCannotBeCut) {
  const ModelConfig config = smollm2_config();
  EXPECT_EQ(error_of(config, {.tp = 10}),
            "tp=10 is more than this model can be cut into: it has 9 attention leaves and 16 MLP leaves; use tp <= 9");
  EXPECT_EQ(error_of(config, {.tp = 1, .pp = 31}), "pp=31 is more than the model's 30 layers; use pp <= 30");
  EXPECT_EQ(error_of(config, {.tp = 0}), "tp=0 and pp=1 must both be at least 1");
  EXPECT_EQ(error_of(config, {.tp = 1, .pp = 2, .stages = {10, 12}}),
            "--stages: 10,12 add up to 22 layers, the model has 30");
  EXPECT_EQ(error_of(config, {.tp = 1, .pp = 2, .stages = {30}}), "--stages names 1 stages, pp is 2");
  EXPECT_EQ(error_of(config, {.tp = 1, .pp = 2, .stages = {30, 0}}),
            "--stages: every stage needs at least one layer, got 0");
  EXPECT_EQ(error_of(config, {.tp = 2, .pp = 1, .stages = {}, .shares = {1}}), "--shares names 1 ranks, tp is 2");
  EXPECT_EQ(error_of(config, {.tp = 2, .pp = 1, .stages = {}, .shares = {1, -1}}),
            "--shares: -1 is not a positive number up to 1e6");
}

TEST(Layout, SurvivesEncoding) {
  const Layout layout = make_layout(smollm2_config(), {.tp = 3, .pp = 2, .stages = {}, .shares = {2, 1, 1}});
  ByteWriter out;
  layout.encode(out);
  const Bytes bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(Layout::decode(in), layout);
  in.expect_end();
}

TEST(ModelConfig, SurvivesEncodingAndNamesWhatIsWrong) {
  ModelConfig config = smollm2_config();
  config.rope.scaling = RopeScaling::kYarn;
  config.rope.original_max_positions = 64;
  config.rope.attention_factor = 1.25;
  config.eos_ids = {2, 7};
  config.bos_id = 1;
  config.validate();
  ByteWriter out;
  config.encode(out);
  const Bytes bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(ModelConfig::decode(in), config);
  config.num_kv_heads = 2;
  try {
    config.validate();
    FAIL() << "accepted 9 heads over 2 KV heads";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "model config: 9 query heads are not a multiple of 2 KV heads");
  }
}

TEST(Slices, OfAllRanksCoverEachWeight) {
  const ModelConfig config = smollm2_config();
  for (int tp : {1, 2, 3, 4, 7}) {
    const Layout layout = make_layout(config, {.tp = tp});
    int64_t q_rows = 0, wo_columns = 0, down_columns = 0, vocab = 0;
    for (int t = 0; t < tp; ++t) {
      q_rows += slice_of(config, layout, Member::kWq, ShardKind::kQueryHeads, t).rows.size();
      wo_columns += slice_of(config, layout, Member::kWo, ShardKind::kHeadColumns, t).columns.size();
      down_columns += slice_of(config, layout, Member::kWDown, ShardKind::kMlpColumns, t).columns.size();
      vocab += slice_of(config, layout, Member::kLmHead, ShardKind::kVocabRows, t).rows.size();
    }
    EXPECT_EQ(q_rows, 576);
    EXPECT_EQ(wo_columns, 576);
    EXPECT_EQ(down_columns, 1536);
    EXPECT_EQ(vocab, 49152);
  }
}

}  // namespace
}  // namespace chorale::parallel
