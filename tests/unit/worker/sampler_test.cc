// The sampler against its own definition (worker/sampler.h): published Philox vectors, edge cases of each step, and
// statistics.
#include <cmath>
#include <limits>
#include <map>

#include <gtest/gtest.h>

#include "worker/philox.h"
#include "worker/sampler.h"

namespace chorale::worker {
namespace {
using parallel::SamplingParams;

constexpr float kInf = std::numeric_limits<float>::infinity();

SequenceSampler make(SamplingParams params, std::vector<int32_t> prompt = {}, std::vector<int32_t> output = {}) {
  parallel::SequenceStart start{.sequence_id = 1,
                                .sampling = std::move(params),
                                .history = prompt,
                                .prompt_len = static_cast<int32_t>(prompt.size())};
  start.history.insert(start.history.end(), output.begin(), output.end());
  return SequenceSampler(start);
}

int32_t sample(const SequenceSampler& sampler, const std::vector<float>& logits, int32_t position = 0) {
  SamplerScratch scratch;
  return sampler.sample(logits, position, scratch);
}

/// How often each id comes over `n` positions.
std::map<int32_t, int> counts(const SamplingParams& params, const std::vector<float>& logits, int n) {
  const SequenceSampler sampler = make(params);
  SamplerScratch scratch;
  std::map<int32_t, int> result;
  for (int position = 0; position < n; ++position) ++result[sampler.sample(logits, position, scratch)];
  return result;
}

// Random123's known-answer vectors (kat_vectors, philox4x32 10 rounds).
TEST(Philox, GivesThePublishedVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kAll = 0xffffffff;
  EXPECT_EQ(philox4x32({kAll, kAll, kAll, kAll}, {kAll, kAll}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, DrawsDependOnSeedChoiceAndPosition) {
  const double draw = uniform_draw(1, 2, 3);
  EXPECT_EQ(draw, uniform_draw(1, 2, 3));
  EXPECT_NE(draw, uniform_draw(2, 2, 3));
  EXPECT_NE(draw, uniform_draw(1 + (uint64_t{1} << 32), 2, 3));
  EXPECT_NE(draw, uniform_draw(1, 3, 3));
  EXPECT_NE(draw, uniform_draw(1, 2, 4));
  double sum = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform_draw(99, 0, static_cast<uint32_t>(i));
    EXPECT_TRUE(u >= 0 && u < 1);
    sum += u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * 0.2887 / std::sqrt(kDraws));  // five standard deviations
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  const SamplingParams greedy{.temperature = 0.0f};
  EXPECT_EQ(sample(make(greedy), {1, 3, 3, 2}), 1);
  EXPECT_EQ(sample(make(greedy), {NAN, -kInf, -5, NAN}), 2);
  EXPECT_EQ(sample(make(greedy), {NAN, NAN}), 0);
  EXPECT_EQ(sample(make({.temperature = NAN}), {1, 2}), 1);
  EXPECT_TRUE(make(greedy).is_plain_greedy(5));
  EXPECT_FALSE(make({.temperature = 0.0f, .presence_penalty = 1.0f}).is_plain_greedy(5));
}

TEST(Sampler, FollowsTheDistribution) {
  const std::vector<float> logits{0, std::log(2.0f), std::log(3.0f), std::log(4.0f)};
  constexpr int kDraws = 40000;
  auto got = counts({.temperature = 1.0f, .seed = 5}, logits, kDraws);
  for (int id = 0; id < 4; ++id) {
    const double p = (id + 1) / 10.0;
    EXPECT_NEAR(got[id], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << id;
  }
  // Temperature 1/2 squares the odds: 1 : 4 : 9 : 16.
  got = counts({.temperature = 0.5f, .seed = 6}, logits, kDraws);
  EXPECT_NEAR(got[3], kDraws * 16.0 / 30, 5 * std::sqrt(kDraws * 0.25));
}

TEST(Sampler, TopKKeepsTheLowestIdsOfATie) {
  const auto got = counts({.temperature = 1.0f, .top_k = 2, .seed = 1}, {1, 5, 5, 5}, 500);
  EXPECT_EQ(got.size(), 2u);
  EXPECT_TRUE(got.contains(1) && got.contains(2));
  EXPECT_EQ(counts({.temperature = 1.0f, .top_k = 99, .seed = 1}, {5, 5}, 500).size(), 2u);
}

TEST(Sampler, TopPKeepsTheFewestIdsThatReachIt) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  EXPECT_EQ(counts({.temperature = 1.0f, .top_p = 0.45f}, logits, 300).size(), 1u);
  EXPECT_EQ(counts({.temperature = 1.0f, .top_p = 0.7f}, logits, 300).size(), 2u);
  EXPECT_EQ(counts({.temperature = 1.0f, .top_p = 0.9f}, logits, 300).size(), 3u);
  EXPECT_EQ(counts({.temperature = 1.0f, .top_p = 0.0f}, logits, 300).size(), 1u);
  // After top-k the softmax is over what is left: 0.5 / 0.8 reaches 0.6 alone.
  EXPECT_EQ(counts({.temperature = 1.0f, .top_k = 2, .top_p = 0.6f}, logits, 300).size(), 1u);
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const std::vector<float> logits{std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  EXPECT_EQ(counts({.temperature = 1.0f, .min_p = 0.4f}, logits, 500).size(), 2u);
  EXPECT_EQ(counts({.temperature = 1.0f, .min_p = 1.0f}, logits, 500).size(), 1u);
}

TEST(Sampler, PenaltiesCountPromptAndOutputAsVllmDoes) {
  // Repetition divides positive logits and multiplies negative ones, for prompt and output alike.
  SamplingParams params{.temperature = 0.0f, .repetition_penalty = 2.0f};
  EXPECT_EQ(sample(make(params, {0}), {3, 2}), 1);
  EXPECT_EQ(sample(make(params, {}, {0}), {3, 2}), 1);
  EXPECT_EQ(sample(make(params, {0}), {-1, -1.5f}), 1);
  // Presence and frequency look at the output only.
  params = {.temperature = 0.0f, .presence_penalty = 2.0f};
  EXPECT_EQ(sample(make(params, {0}), {3, 2}), 0);
  EXPECT_EQ(sample(make(params, {}, {0}), {3, 2}), 1);
  params = {.temperature = 0.0f, .frequency_penalty = 0.6f};
  EXPECT_EQ(sample(make(params, {}, {0}), {3, 2}), 0);
  EXPECT_EQ(sample(make(params, {}, {0, 0}), {3, 2}), 1);
  SequenceSampler grows = make(params);
  grows.append(0);
  grows.append(0);
  EXPECT_EQ(sample(grows, {3, 2}), 1);
  // Order: bias first, so that repetition scales the biased logit: (3 + 3) / 2 > 2.
  params = {.temperature = 0.0f, .repetition_penalty = 2.0f, .logit_bias = {{0, 3.0f}}};
  EXPECT_EQ(sample(make(params, {0}), {3, 2}), 0);
}

TEST(Sampler, BansIdsUntilTheMinimumAndIgnoresIdsOutsideTheVocabulary) {
  const SamplingParams params{
      .temperature = 0.0f, .min_tokens = 2, .banned_until_min = {1, 77, -1}, .logit_bias = {{99, 5.0f}}};
  const SequenceSampler sampler = make(params, {4, 4, 4});
  EXPECT_EQ(sample(sampler, {1, 9}, 3), 0);  // nothing generated yet
  EXPECT_EQ(sample(sampler, {1, 9}, 4), 0);
  EXPECT_EQ(sample(sampler, {1, 9}, 5), 1);
}

TEST(Sampler, SurvivesInfinitiesAndMaskedRows) {
  const SamplingParams params{.temperature = 1.0f, .top_p = 0.9f};
  EXPECT_EQ(sample(make(params), {-kInf, -kInf}), 0);
  EXPECT_EQ(sample(make(params), {0, kInf, 0}), 1);
  EXPECT_EQ(sample(make({.temperature = 1.0f, .logit_bias = {{0, -kInf}}}), {kInf, 0}), 1);
  for (int position = 0; position < 200; ++position)
    EXPECT_EQ(sample(make({.temperature = 1.0f}), {-kInf, 0, -kInf}, position), 1);
}

TEST(Sampler, ALargeFlatVocabularyIsOrderedById) {
  // All weights equal: the id is floor(u n), whatever was sorted lazily on the way.
  const std::vector<float> logits(5000, 1.5f);
  const SequenceSampler sampler = make({.temperature = 1.0f, .seed = 3});
  for (int32_t position = 0; position < 50; ++position)
    EXPECT_EQ(sample(sampler, logits, position),
              static_cast<int32_t>(uniform_draw(3, 0, static_cast<uint32_t>(position)) * 5000));
}

}  // namespace
}  // namespace chorale::worker
