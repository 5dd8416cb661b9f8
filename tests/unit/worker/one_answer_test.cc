// Promise 1 over ranks as threads: tokens and log-probabilities are equal, bit for bit, for every layout, thread count,
// batch and chunking.
#include <gtest/gtest.h>

#include "tests/support/shared_data.h"
#include "tests/unit/worker/thread_world.h"

namespace chorale::worker::test {
namespace {
namespace fs = std::filesystem;

/// Greedy and sampled, short and long, with penalties and prompt log-probabilities.
std::vector<Job> mixed_jobs(int64_t vocab) {
  parallel::SamplingParams second_choice = penalised_sampling();
  second_choice.choice = 1;
  return {
      {.prompt = prompt_of(1, 1, vocab), .num_tokens = 9},
      {.prompt = prompt_of(21, 2, vocab), .num_tokens = 7, .prompt_logprobs = parallel::PromptLogprobs::kYes},
      {.prompt = prompt_of(33, 3, vocab), .num_tokens = 8, .sampling = {.temperature = 1.0f, .seed = 7}},
      {.prompt = prompt_of(70, 4, vocab),
       .num_tokens = 6,
       .sampling = {.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .seed = 8}},
      {.prompt = prompt_of(5, 5, vocab), .num_tokens = 9, .sampling = second_choice},
  };
}

struct Case {
  int tp, pp, threads;
  Schedule schedule;
  std::vector<double> shares;
};

/// Answers in `a_case` equal those of one rank, one thread, all jobs together and prompts whole.
void expect_one_answer(const fs::path& model, const std::vector<Case>& cases, DType compute) {
  SCOPED_TRACE(model.filename().string() + " " + std::string(to_string(compute)));
  ThreadWorld one(model, {.compute = compute});
  const std::vector<Job> jobs = mixed_jobs(one.plan().config.vocab_size);
  const std::vector<Answer> wanted = one.run(jobs);
  for (const Case& c : cases) {
    SCOPED_TRACE(fmt::format("tp={} pp={} threads={} batching={} chunk={} shares={}", c.tp, c.pp, c.threads,
                             static_cast<int>(c.schedule.batching), c.schedule.chunk, c.shares.size()));
    ThreadWorld world(model, {.tp = c.tp, .pp = c.pp, .threads = c.threads, .compute = compute, .shares = c.shares});
    const std::vector<Answer> got = world.run(jobs, c.schedule);
    for (size_t i = 0; i < jobs.size(); ++i) {
      EXPECT_EQ(got[i].tokens, wanted[i].tokens) << "job " << i;
      EXPECT_EQ(got[i].logprobs, wanted[i].logprobs) << "job " << i;
      EXPECT_EQ(got[i].prompt_logprobs, wanted[i].prompt_logprobs) << "job " << i;
    }
  }
}

const std::vector<Case> kFewCases{
    {2, 1, 1, {Batching::kTogether, 7}, {}},
    {3, 1, 2, {Batching::kStaggered, 0}, {}},
    {1, 2, 1, {Batching::kAlone, 16}, {}},
    {2, 2, 1, {Batching::kStaggered, 5}, {}},
};

TEST(OneAnswer, EveryModelInEveryLayoutBatchAndChunking) {
  SHARED_OR_SKIP(models, "goldens/models");
  for (const auto& entry : fs::directory_iterator(models)) {
    expect_one_answer(entry.path(), kFewCases, DType::kF32);
    expect_one_answer(entry.path(), kFewCases, DType::kBF16);
  }
}

TEST(OneAnswer, UnevenAndLargeLayoutsOfOneModel) {
  SHARED_OR_SKIP(model, "goldens/models/llama3-gqa-rope");  // 6 heads, 2 KV heads, 4 layers
  expect_one_answer(model,
                    {
                        {1, 1, 2, {Batching::kTogether, 0}, {}},
                        {1, 1, 1, {Batching::kAlone, 0}, {}},
                        {1, 1, 1, {Batching::kTogether, 1}, {}},
                        {4, 1, 1, {Batching::kTogether, 0}, {}},
                        {5, 1, 1, {Batching::kTogether, 3}, {}},
                        {6, 1, 1, {Batching::kStaggered, 16}, {}},
                        {3, 1, 1, {Batching::kTogether, 0}, {3, 1, 1}},
                        {2, 1, 1, {Batching::kTogether, 0}, {1, 5}},
                        {1, 3, 1, {Batching::kTogether, 0}, {}},
                        {1, 4, 1, {Batching::kStaggered, 9}, {}},
                        {2, 3, 1, {Batching::kTogether, 7}, {}},
                    },
                    DType::kF32);
}

TEST(OneAnswer, QuantisedFilesInUnevenLayouts) {
  SHARED_OR_SKIP(files, "goldens/gguf");
  for (const char* name : {"llama-q4_k.gguf", "llama-q4_1.gguf", "qwen3-q4_k.gguf"})
    expect_one_answer(files / name, {{2, 1, 1, {Batching::kTogether, 7}, {}}, {3, 1, 1, {Batching::kStaggered, 0}, {}}},
                      DType::kBF16);
}

TEST(OneAnswer, Bf16StaysNearFloat32) {
  SHARED_OR_SKIP(model, "models/stories260K");
  const std::vector<Job> jobs{{.prompt = {1}, .num_tokens = 40}};
  const auto f32 = ThreadWorld(model, {}).run(jobs), bf16 = ThreadWorld(model, {.compute = DType::kBF16}).run(jobs);
  // Inputs of GEMMs carry a relative error of 2^-9; a trained model's confident choices do not change by that.
  EXPECT_EQ(f32[0].tokens.front(), bf16[0].tokens.front());
  EXPECT_NE(f32[0].logprobs, bf16[0].logprobs);
  EXPECT_NEAR(f32[0].logprobs.front(), bf16[0].logprobs.front(), 0.05);
}

}  // namespace
}  // namespace chorale::worker::test
