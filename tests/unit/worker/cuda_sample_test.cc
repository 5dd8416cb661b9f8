// Sampling on a device chooses what worker/sampler.cc chooses, over all parameters, and reports the log-probabilities
// that the host would compute.
#include <cmath>
#include <limits>

#include "parallel/step_plan.h"
#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/logits.h"
#include "worker/ops/sample.h"
#include "worker/philox.h"
#include "worker/sampler.h"

namespace chorale::worker {
namespace {
using parallel::SamplingParams;

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

struct Case {
  SamplingParams params;
  std::vector<int32_t> prompt, output;
  int32_t position() const { return static_cast<int32_t>(prompt.size() + output.size()); }
  SequenceSampler sampler() const {
    parallel::SequenceStart start{
        .sequence_id = 1, .sampling = params, .history = prompt, .prompt_len = static_cast<int32_t>(prompt.size())};
    start.history.insert(start.history.end(), output.begin(), output.end());
    return SequenceSampler(start);
  }
};

/// What sample() gave for one row.
struct Choice {
  int32_t id = -1;
  float logprob = 0;
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
  bool operator==(const Choice&) const = default;
};

Tensor count_all(TestDevice& device, const std::vector<Case>& cases, int64_t vocab) {
  Tensor counts(device.device(), DType::kI32, {static_cast<int64_t>(cases.size()), vocab});
  for (auto origin : {TokenOrigin::kPrompt, TokenOrigin::kOutput}) {
    std::vector<int32_t> ids{-1, 0, static_cast<int32_t>(vocab)}, slots{0, -1, 0};  // ignored
    for (size_t i = 0; i < cases.size(); ++i)
      for (int32_t id : origin == TokenOrigin::kPrompt ? cases[i].prompt : cases[i].output) {
        ids.push_back(id);
        slots.push_back(static_cast<int32_t>(i));
      }
    const Tensor device_ids = device.upload(ids), device_slots = device.upload(slots);
    count_tokens(device.ctx(), {reinterpret_cast<TokenCount*>(counts.as<int32_t>()), vocab, device_ids.as<int32_t>(),
                                device_slots.as<int32_t>(), static_cast<int64_t>(ids.size()), origin});
  }
  return counts;
}

/// All rows in one call.
std::vector<Choice> sample_all(TestDevice& device, const MatrixView& host_logits, const std::vector<Case>& cases,
                               int64_t num_top) {
  const int64_t rows = host_logits.rows, vocab = host_logits.cols;
  Tensor packed(DType::kF32, {rows, host_logits.row_stride});
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(host_logits.row<float>(r), vocab, packed.as<float>() + r * host_logits.row_stride);
  const Tensor logits = device.upload(packed), counts = count_all(device, cases, vocab);
  SampleRows batch;
  for (size_t i = 0; i < cases.size(); ++i)
    batch.add(cases[i].params, static_cast<int32_t>(cases[i].prompt.size()), cases[i].position(),
              static_cast<int32_t>(i));
  const auto bytes_of = [](const auto& v) {
    return std::vector<int32_t>(reinterpret_cast<const int32_t*>(v.data()),
                                reinterpret_cast<const int32_t*>(v.data() + v.size()));
  };
  for (auto* list : {&batch.bias_ids, &batch.banned_ids}) list->push_back(0);  // never an empty upload
  batch.bias_values.push_back(0);
  const Tensor params = device.upload(bytes_of(batch.rows)), bias_ids = device.upload(batch.bias_ids),
               biases = device.upload(batch.bias_values), banned = device.upload(batch.banned_ids);
  Tensor chosen(device.device(), DType::kI32, {rows}), logprobs(device.device(), DType::kF32, {rows});
  Tensor top(device.device(), DType::kI32, {rows, num_top + 1}),
      tops(device.device(), DType::kF32, {rows, num_top + 1});
  sample(device.ctx(), {.logits = MatrixView(logits).columns(0, vocab),
                        .rows = reinterpret_cast<const SampleRow*>(params.as<int32_t>()),
                        .bias_ids = bias_ids.as<int32_t>(),
                        .bias_values = biases.as<float>(),
                        .banned_ids = banned.as<int32_t>(),
                        .counts = reinterpret_cast<const TokenCount*>(counts.as<int32_t>()),
                        .mix = batch.mix,
                        .num_top = num_top,
                        .chosen = chosen.as<int32_t>(),
                        .chosen_logprobs = logprobs.as<float>(),
                        .top_ids = top.as<int32_t>(),
                        .top_logprobs = tops.as<float>()});
  const Tensor ids = device.download(chosen), values = device.download(logprobs), top_ids = device.download(top),
               top_values = device.download(tops);
  std::vector<Choice> choices;
  for (int64_t r = 0; r < rows; ++r) {
    Choice choice{ids.as<int32_t>()[r], values.as<float>()[r]};
    for (int64_t i = r * num_top; i < (r + 1) * num_top; ++i) {
      choice.top_ids.push_back(top_ids.as<int32_t>()[i]);
      choice.top_logprobs.push_back(top_values.as<float>()[i]);
    }
    choices.push_back(choice);
  }
  return choices;
}

/// The host's answer: worker/sampler.cc, and log-probabilities as the runner computes them.
std::vector<Choice> expected(TestDevice& device, const MatrixView& logits, const std::vector<Case>& cases,
                             int64_t num_top) {
  std::vector<Choice> choices;
  SamplerScratch scratch;
  for (int64_t r = 0; r < logits.rows; ++r) {
    const Case& c = cases[static_cast<size_t>(r)];
    const std::span<const float> row(logits.row<float>(r), static_cast<size_t>(logits.cols));
    std::vector<SoftmaxStats> stats(static_cast<size_t>((logits.cols + kVocabChunk - 1) / kVocabChunk));
    logit_stats(device.cpu(), {logits.row_range(r, r + 1), stats.data()});
    const float log_sum = fold_log_sum_exp(stats);
    Choice choice{c.sampler().sample(row, c.position(), scratch)};
    choice.logprob = row[static_cast<size_t>(choice.id)] - log_sum;
    choice.top_ids.resize(static_cast<size_t>(num_top));
    if (num_top > 0) top_k(device.cpu(), {logits.row_range(r, r + 1), num_top, choice.top_ids.data()});
    for (int32_t id : choice.top_ids) choice.top_logprobs.push_back(row[static_cast<size_t>(id)] - log_sum);
    choices.push_back(choice);
  }
  return choices;
}

void expect_equal(const std::vector<Choice>& got, const std::vector<Choice>& want, const std::vector<Case>& cases) {
  for (size_t i = 0; i < want.size(); ++i) {
    const SamplingParams& p = cases[i].params;
    EXPECT_EQ(got[i].id, want[i].id) << "row " << i << " temperature " << p.temperature << " top_k " << p.top_k
                                     << " top_p " << p.top_p << " min_p " << p.min_p;
    EXPECT_EQ(got[i].logprob, want[i].logprob) << "row " << i;
    EXPECT_EQ(got[i].top_ids, want[i].top_ids) << "row " << i;
    EXPECT_EQ(got[i].top_logprobs, want[i].top_logprobs) << "row " << i;
  }
}

/// Cases over every combination of what a draw depends on; each with its own seed and history.
std::vector<Case> all_cases(int64_t vocab) {
  std::minstd_rand random(7);
  const auto any_id = [&] { return static_cast<int32_t>(random() % static_cast<uint32_t>(vocab)); };
  std::vector<Case> cases;
  for (float temperature : {0.0f, 0.3f, 1.0f, 5.0f})
    for (int32_t top_k : {0, 1, 7, 1200})
      for (float top_p : {1.0f, 0.9f, 0.2f, 0.0f})
        for (float min_p : {0.0f, 0.05f}) {
          if (temperature == 0.0f && (top_k > 0 || top_p < 1.0f)) continue;
          Case c{.params = {.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p}};
          c.params.seed = (uint64_t{random()} << 32) + random();
          c.params.choice = random() % 3;
          for (int i = 0; i < 9; ++i) c.prompt.push_back(any_id());
          for (int i = 0; i < 14; ++i) c.output.push_back(i % 3 == 0 ? 1 : any_id());
          const size_t kind = cases.size() % 5;
          if (kind == 1 || kind == 4) c.params.repetition_penalty = 1.7f;
          if (kind == 2 || kind == 4) c.params.presence_penalty = 0.6f, c.params.frequency_penalty = 0.4f;
          if (kind >= 3) {
            for (int32_t id : {0, 1, 2, 3, 4})
              c.params.logit_bias.emplace_back((id * 211) % 100000, static_cast<float>(id) - 1.5f);
            c.params.logit_bias.emplace_back(-3, 9.0f);
            c.params.min_tokens = kind == 3 ? 99 : 2;
            c.params.banned_until_min = {any_id(), 1, 3, -1, static_cast<int32_t>(vocab)};
          }
          cases.push_back(std::move(c));
        }
  return cases;
}

Tensor logits_for(int64_t rows, int64_t vocab, float scale) {
  std::minstd_rand random(11);
  Tensor logits(DType::kF32, {rows, vocab});
  for (int64_t i = 0; i < rows * vocab; ++i) {
    const double u = (random() % 1000003 + 0.5) / 1000003.0, v = (random() % 1000003) / 1000003.0;
    logits.as<float>()[i] = scale * static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307 * v));
    if (random() % 23 == 0) logits.as<float>()[i] = -kInf;
  }
  return logits;
}

TEST(CudaSample, ChoosesWhatTheSamplerChooses) {
  TestDevice device;
  for (int64_t vocab : {5, 1000, 2500}) {
    const std::vector<Case> cases = all_cases(vocab);
    const auto rows = static_cast<int64_t>(cases.size());
    const Tensor wide = logits_for(rows, vocab + 3, 2.5f);
    const MatrixView logits = MatrixView(wide).columns(0, vocab);
    expect_equal(sample_all(device, logits, cases, std::min<int64_t>(vocab, 4)),
                 expected(device, logits, cases, std::min<int64_t>(vocab, 4)), cases);
  }
}

TEST(CudaSample, ManyDrawsOfOneDistribution) {
  TestDevice device;
  const int64_t rows = 60, vocab = 3001;
  Tensor logits(DType::kF32, {rows, vocab});
  const Tensor one = logits_for(1, vocab, 1.0f);
  std::vector<Case> cases(rows);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(one.as<float>(), vocab, logits.as<float>() + r * vocab);
    cases[static_cast<size_t>(r)] = {.params = {.temperature = 1.0f, .top_p = r % 2 == 0 ? 1.0f : 0.95f, .seed = 4},
                                     .output = std::vector<int32_t>(static_cast<size_t>(r))};
  }
  expect_equal(sample_all(device, logits, cases, 0), expected(device, logits, cases, 0), cases);
}

TEST(CudaSample, TiesMasksAndInfinities) {
  TestDevice device;
  const int64_t vocab = 2100;
  std::vector<std::vector<float>> kinds(7, std::vector<float>(vocab, -kInf));
  std::fill(kinds[0].begin(), kinds[0].end(), 1.5f);                                       // flat
  kinds[1][2000] = 0.0f;                                                                   // one is left
  kinds[2][7] = kinds[2][1500] = kInf;                                                     // two infinities
  std::fill(kinds[3].begin(), kinds[3].end(), kNan);                                       // nothing
  for (size_t i = 0; i < kinds[4].size(); ++i) kinds[4][i] = -90.0f * (i % 2);             // weights that vanish
  for (size_t i = 0; i < kinds[5].size(); ++i) kinds[5][i] = i % 3 == 0 ? 1e-40f : -0.0f;  // denormals are zeros
  for (size_t i = 0; i < kinds[6].size(); ++i) kinds[6][i] = i % 2 == 0 ? kNan : static_cast<float>(i % 5);
  std::vector<Case> cases;
  std::vector<float> values;
  for (size_t kind = 0; kind < kinds.size(); ++kind)
    for (const SamplingParams& params : {SamplingParams{.temperature = 1.0f}, SamplingParams{.temperature = 0.0f},
                                         SamplingParams{.temperature = 0.7f, .top_k = 1030, .top_p = 0.5f},
                                         SamplingParams{.temperature = 1.0f, .top_p = 0.999f, .min_p = 1.0f}}) {
      Case c{.params = params, .output = std::vector<int32_t>(3)};
      c.params.seed = cases.size();
      cases.push_back(c);
      values.insert(values.end(), kinds[kind].begin(), kinds[kind].end());
    }
  const MatrixView logits(values.data(), DType::kF32, static_cast<int64_t>(cases.size()), vocab, vocab);
  const auto got = sample_all(device, logits, cases, 0);
  const auto want = expected(device, logits, cases, 0);
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(got[i].id, want[i].id) << "row " << i;
    if (std::isnan(want[i].logprob))
      EXPECT_TRUE(std::isnan(got[i].logprob)) << "row " << i;
    else
      EXPECT_EQ(got[i].logprob, want[i].logprob) << "row " << i;
  }
}

/// One answer: alone, in a batch, in another place of it, with greedy rows only, and in every order of threads.
TEST(CudaSample, ARowDoesNotDependOnTheOthers) {
  TestDevice device;
  const int64_t vocab = 1500;
  std::vector<Case> cases = all_cases(vocab);
  cases.erase(cases.begin() + 1, cases.begin() + 70);
  cases.resize(6);
  const Tensor logits = logits_for(6, vocab, 3.0f);
  const auto together = sample_all(device, logits, cases, 2);
  for_each_thread_order(device, [&] {
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto r = static_cast<int64_t>(i);
      EXPECT_EQ(sample_all(device, MatrixView(logits).row_range(r, r + 1), {cases[i]}, 2)[0], together[i]) << i;
    }
  });
}

}  // namespace
}  // namespace chorale::worker
