// Whole worlds on a device, ranks as threads: the runner, layers, kernels and the device communicator together. On the
// emulator float32 gives the CPU's bits; tensor cores give one answer for every layout, batch and chunking.
#include <gtest/gtest.h>

#include "tests/support/shared_data.h"
#include "tests/unit/worker/device_test_support.h"
#include "tests/unit/worker/synthetic_model.h"
#include "tests/unit/worker/thread_world.h"

namespace chorale::worker::test {
namespace {

// Of a head_dim that the tensor cores' attention is made for, and a vocabulary of more than one chunk.
constexpr SyntheticModel::Sizes kTensorCoreSizes{
    .vocab = 1100, .hidden = 48, .intermediate = 96, .heads = 4, .kv_heads = 2, .head_dim = 64};

std::vector<Job> jobs_for(int64_t vocab) {
  parallel::SamplingParams sampling = penalised_sampling();
  sampling.num_top_logprobs = 2;
  return {{.prompt = prompt_of(1, 1, vocab), .num_tokens = 4},
          {.prompt = prompt_of(21, 2, vocab), .num_tokens = 4, .prompt_logprobs = parallel::PromptLogprobs::kYes},
          {.prompt = prompt_of(34, 3, vocab), .num_tokens = 4, .sampling = {.temperature = 1.0f, .seed = 7}},
          {.prompt = prompt_of(5, 5, vocab), .num_tokens = 5, .sampling = sampling}};
}

TEST(CudaWorlds, Float32GivesTheBitsOfTheCpu) {
  SHARED_OR_SKIP(models, "goldens/models");
  if (test_device_kind() != DeviceKind::kEmulator) GTEST_SKIP() << "a claim about the emulator";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(models)) {
    SCOPED_TRACE(entry.path().filename().string());
    ThreadWorld on_cpu(entry.path(), {});
    const std::vector<Job> jobs = jobs_for(on_cpu.plan().config.vocab_size);
    const std::vector<Answer> wanted = on_cpu.run(jobs);
    const std::vector<Answer> got = ThreadWorld(entry.path(), {.tp = 2, .device = test_device_kind()}).run(jobs);
    for (size_t i = 0; i < jobs.size(); ++i) {
      EXPECT_EQ(got[i].tokens, wanted[i].tokens) << "job " << i;
      EXPECT_EQ(got[i].logprobs, wanted[i].logprobs) << "job " << i;
      EXPECT_EQ(got[i].prompt_logprobs, wanted[i].prompt_logprobs) << "job " << i;
      EXPECT_EQ(got[i].logits_at, wanted[i].logits_at) << "job " << i;
    }
    ++count;
  }
  EXPECT_GE(count, 8);
}

TEST(CudaWorlds, TensorCoresGiveOneAnswer) {
  const SyntheticModel model(kTensorCoreSizes);
  const std::vector<Job> jobs = jobs_for(1100);
  WorldOptions options{.compute = DType::kBF16, .device = test_device_kind()};
  const std::vector<Answer> wanted = ThreadWorld(model.path(), options).run(jobs, {Batching::kAlone, 0});
  struct Case {
    int tp, pp;
    Schedule schedule;
  };
  for (const Case& c : {Case{1, 1, {Batching::kTogether, 7}}, Case{2, 1, {Batching::kTogether, 0}},
                        Case{3, 1, {Batching::kStaggered, 5}}, Case{2, 2, {Batching::kTogether, 16}}}) {
    SCOPED_TRACE(fmt::format("tp={} pp={} chunk={}", c.tp, c.pp, c.schedule.chunk));
    options.tp = c.tp;
    options.pp = c.pp;
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs, c.schedule), wanted);
  }
}

TEST(CudaWorlds, GraphsChangeNoBit) {
  const SyntheticModel model(kTensorCoreSizes);
  const std::vector<Job> jobs = jobs_for(1100);
  WorldOptions options{.compute = DType::kBF16, .device = test_device_kind()};
  options.observes_logits = false;
  options.cuda_graphs = parallel::CudaGraphs::kOff;
  const std::vector<Answer> wanted = ThreadWorld(model.path(), options).run(jobs, {Batching::kAlone, 0});
  options.cuda_graphs = parallel::CudaGraphs::kOn;
  struct Case {
    int tp, pp, max_num_seqs;
    Schedule schedule;
  };
  // With three sequences at most, steps of four are not a graph's.
  for (const Case& c : {Case{1, 1, 8, {Batching::kTogether, 0}}, Case{1, 1, 3, {Batching::kStaggered, 5}},
                        Case{1, 1, 8, {Batching::kAlone, 1}}, Case{1, 2, 8, {Batching::kStaggered, 16}}}) {
    SCOPED_TRACE(fmt::format("tp={} pp={} chunk={}", c.tp, c.pp, c.schedule.chunk));
    options.tp = c.tp;
    options.pp = c.pp;
    options.max_num_seqs = c.max_num_seqs;
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs, c.schedule), wanted);
  }
}

TEST(CudaWorlds, StepsInFlightChangeNoBit) {
  const SyntheticModel model(kTensorCoreSizes);
  const std::vector<Job> jobs = jobs_for(1100);
  for (const auto& [tp, pp] : {std::pair{1, 1}, {2, 1}, {1, 2}}) {
    SCOPED_TRACE(fmt::format("tp={} pp={}", tp, pp));
    WorldOptions options{.tp = tp, .pp = pp, .compute = DType::kBF16, .device = test_device_kind()};
    options.observes_logits = false;
    options.max_in_flight = 1;
    const std::vector<Answer> wanted = ThreadWorld(model.path(), options).run(jobs, {Batching::kStaggered, 16});
    options.max_in_flight = 2;
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs, {Batching::kStaggered, 16}), wanted);
  }
}

}  // namespace
}  // namespace chorale::worker::test
