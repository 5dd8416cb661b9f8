// What the advisor recommends, and that its reasons are the cost model's. Times are step_cost_test's business.
#include "parallel/recommend/layout_advisor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "tests/support/figures.h"

namespace chorale::parallel {
namespace {

using test::round_machine;
using test::square_config;

constexpr uint64_t kMiB = uint64_t{1} << 20;

Workload one_sequence() {
  return {.max_model_len = 1024, .max_num_seqs = 1, .max_num_batched_tokens = 64, .mean_context = 512};
}

const LayoutEstimate& find(const Advice& advice, int tp, int pp) {
  const auto found = std::ranges::find_if(
      advice.layouts, [&](const LayoutEstimate& layout) { return layout.tp == tp && layout.pp == pp; });
  if (found == advice.layouts.end()) throw std::out_of_range("no such layout");
  return *found;
}

std::string all_of(const std::vector<std::string>& sentences) {
  std::string text;
  for (const std::string& sentence : sentences) text += sentence + "\n";
  return text;
}

std::string refusal(const MachineFigures& machine, const ModelConfig& config, const Workload& workload) {
  try {
    advise(machine, config, workload);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    return error.what();
  }
  return "no error";
}

TEST(Advise, CutsHeadsWhereOneLayerIsTooLargeForARank) {
  MachineFigures machine = round_machine(1, 4);
  machine.memory_bytes = 520 * kMiB;  // nine tenths: 468; scratch alone is about 400, a layer with lm_head 40
  ModelConfig config = square_config(1);
  config.intermediate_size = 16384;  // a layer: 104 MiB
  const Advice advice = advise(machine, config, one_sequence());
  EXPECT_EQ(find(advice, 1, 1).fit, Fit::kNone);
  EXPECT_EQ(advice.layouts.size(), 4u);  // there is no second layer for pp
  const LayoutEstimate& best = advice.layouts[advice.recommended];
  EXPECT_EQ(best.fit, Fit::kAll);
  EXPECT_GE(best.tp, 2);
  EXPECT_NE(all_of(advice.why).find("one rank has"), std::string::npos);
  EXPECT_GT(find(advice, 1, 1).missing_for_one_bytes, 0u);
  EXPECT_EQ(find(advice, 2, 1).missing_bytes, 0u);
}

TEST(Advise, PutsStagesOnNodesWhereTheNetworkIsSlow) {
  MachineFigures machine = round_machine(2, 1);
  machine.memory_bytes = 1400 * kMiB;  // nine tenths: 1260; the model has 32 layers of 32 MiB
  machine.between.latency_s = 1e-3;
  const Advice advice = advise(machine, square_config(32), one_sequence());
  EXPECT_EQ(find(advice, 1, 1).fit, Fit::kNone);
  const LayoutEstimate& best = advice.layouts[advice.recommended];
  EXPECT_EQ(best.tp, 1);
  EXPECT_EQ(best.pp, 2);
  // One hop and the sampled token, against two all-reduces a layer.
  EXPECT_NEAR(best.one[Cost::kHops], 2e-3, 1e-5);
  EXPECT_NEAR(find(advice, 2, 1).one[Cost::kReduceBetween], 64e-3, 1e-4);
  EXPECT_NE(all_of(advice.why).find("tp=2 x pp=1 would take"), std::string::npos) << all_of(advice.why);
  EXPECT_NE(all_of(advice.why).find("all-reduces between nodes"), std::string::npos);
}

TEST(Advise, CutsHeadsInsideANodeAndLayersBetweenNodes) {
  MachineFigures machine = round_machine(2, 4);
  machine.between.latency_s = 1e-3;
  machine.inside.latency_s = 1e-6;
  machine.memory_bytes = 700 * kMiB;  // beside 400 of scratch: 230 of 1024 for weights on each rank
  const Advice advice = advise(machine, square_config(32), one_sequence());
  const LayoutEstimate& best = advice.layouts[advice.recommended];
  EXPECT_EQ(best.tp, 4);
  EXPECT_EQ(best.pp, 2);
}

TEST(Advise, LeavesRanksFreeThatWouldOnlyWait) {
  MachineFigures machine = round_machine(1, 8);
  machine.inside.latency_s = 1e-3;
  const Advice advice = advise(machine, square_config(4), one_sequence());
  EXPECT_EQ(advice.layouts[advice.recommended].num_ranks(), 1);
  EXPECT_NE(all_of(advice.why).find("7 of the 8 ranks stay free"), std::string::npos);
}

TEST(Advise, GivesOneCpuRankTheWholeNode) {
  MachineFigures machine = round_machine(1, 4);
  machine.owner = Owner::kNode;
  machine.device = DeviceKind::kCpu;
  const Advice advice = advise(machine, square_config(8), one_sequence());
  EXPECT_EQ(advice.layouts[advice.recommended].num_ranks(), 1);
  // Four ranks read a quarter each, at a quarter of the speed; norms are read by all.
  EXPECT_NEAR(find(advice, 4, 1).one[Cost::kReads] / find(advice, 1, 1).one[Cost::kReads], 1, 0.01);
}

TEST(Advise, SaysHowManySequencesFitWhereNotAllDo) {
  MachineFigures machine = round_machine(1, 1);
  machine.memory_bytes = 1024 * kMiB;
  Workload workload = one_sequence();
  workload.max_num_seqs = 1000;  // 8 layers: 32 KiB a token, 32 MiB a sequence
  const Advice advice = advise(machine, square_config(8), workload);
  const LayoutEstimate& only = advice.layouts.front();
  EXPECT_EQ(only.fit, Fit::kSome);
  EXPECT_EQ(only.num_sequences, only.kv_tokens / 1024);
  EXPECT_GT(only.num_sequences, 0);
  EXPECT_EQ(only.num_running, only.kv_tokens / 512);  // at their average they need half
  EXPECT_NE(all_of(advice.why).find("of the 1000 sequences of 1024 tokens at a time"), std::string::npos);
}

TEST(Advise, SaysByHowMuchItFitsNowhereAndWhatWould) {
  MachineFigures machine = round_machine(1, 2);
  machine.memory_bytes = 800 * kMiB;
  const std::string says = refusal(machine, square_config(64), one_sequence());  // 2 GiB of layers
  EXPECT_NE(says.find("no layout fits 1 node of 2 rank(s): the closest"), std::string::npos) << says;
  EXPECT_NE(says.find("GiB too little"), std::string::npos);
  // 720 usable, 400 of it scratch: 10 of 64 layers a rank or somewhat less, so four nodes of two.
  EXPECT_NE(says.find("4 nodes of 2 rank(s)"), std::string::npos) << says;

  Workload huge = one_sequence();
  huge.max_model_len = 1 << 20;
  const std::string too_long = refusal(round_machine(1, 1), square_config(64), huge);
  EXPECT_NE(too_long.find("--max-model-len"), std::string::npos) << too_long;
}

TEST(Advise, NamesTheCacheWhereAHostWouldHaveRoom) {
  MachineFigures machine = round_machine(1, 1);
  machine.owner = Owner::kNode;
  machine.device = DeviceKind::kCpu;
  machine.memory_bytes = 1000 * kMiB;  // a quarter: 250 MiB; the sequence needs 8192 x 32 KiB
  Workload workload = one_sequence();
  workload.max_model_len = 8192;
  EXPECT_NE(refusal(machine, square_config(8), workload).find("--kv-cache-memory-bytes 268435456"), std::string::npos);
  workload.kv_cache_memory_bytes = 268435456;
  EXPECT_EQ(advise(machine, square_config(8), workload).layouts.front().fit, Fit::kAll);
}

TEST(Advise, RefusesFiguresThatAreNone) {
  MachineFigures machine = round_machine(1, 1);
  machine.memory_bytes_per_s = 0;
  EXPECT_THROW(advise(machine, square_config(1), one_sequence()), Error);
  machine = round_machine(1 << 20, 1 << 12);
  EXPECT_THROW(advise(machine, square_config(1), one_sequence()), Error);
}

// Whatever gets faster, no layout gets slower.
TEST(AdviseProperty, BetterFiguresNeverMakeALayoutSlower) {
  using Change = void (*)(MachineFigures&);
  const Change changes[] = {
      [](MachineFigures& m) { m.memory_bytes_per_s *= 1.5; }, [](MachineFigures& m) { m.bf16_ops_per_s *= 1.5; },
      [](MachineFigures& m) { m.inside.bytes_per_s *= 1.5; }, [](MachineFigures& m) { m.between.bytes_per_s *= 1.5; },
      [](MachineFigures& m) { m.inside.latency_s /= 1.5; },   [](MachineFigures& m) { m.between.latency_s /= 1.5; },
      [](MachineFigures& m) { m.layer_launch_s /= 1.5; }};
  uint64_t state = 7;
  const auto random = [&state](double low, double high) {  // log-uniform
    state = state * 6364136223846793005u + 1442695040888963407u;
    return low * std::pow(high / low, static_cast<double>(state >> 11) / static_cast<double>(uint64_t{1} << 53));
  };
  for (int round = 0; round < 20; ++round) {
    MachineFigures machine = round_machine(static_cast<int>(random(1, 4)), static_cast<int>(random(1, 5)));
    machine.memory_bytes_per_s = random(1e10, 1e13);
    machine.bf16_ops_per_s = random(1e11, 1e15);
    machine.inside = {"inside", random(1e-7, 1e-4), random(1e9, 1e12)};
    machine.between = {"between", random(1e-6, 1e-3), random(1e8, 1e11)};
    machine.layer_launch_s = random(1e-7, 1e-4);
    Workload workload = one_sequence();
    workload.max_num_seqs = static_cast<int>(random(1, 100));
    const ModelConfig config = square_config(6);
    for (const Change change : changes) {
      MachineFigures better = machine;
      change(better);
      for (int tp = 1; tp <= std::min(4, machine.num_ranks()); ++tp)
        for (int pp = 1; tp * pp <= machine.num_ranks() && pp <= 6; ++pp) {
          const Layout layout = make_layout(config, {.tp = tp, .pp = pp});
          const LayoutEstimate before = estimate(machine, config, workload, layout);
          const LayoutEstimate after = estimate(better, config, workload, layout);
          constexpr double kRounding = 1 + 1e-12;
          EXPECT_LE(after.one.total(), before.one.total() * kRounding) << "tp=" << tp << " pp=" << pp;
          EXPECT_LE(after.full.total(), before.full.total() * kRounding) << "tp=" << tp << " pp=" << pp;
          EXPECT_GE(after.prefill_tokens_per_s * kRounding, before.prefill_tokens_per_s);
        }
    }
  }
}

// More memory never makes a fit worse, nor takes room for tokens away.
TEST(AdviseProperty, MoreMemoryNeverFitsLess) {
  Workload workload = one_sequence();
  workload.max_num_seqs = 64;
  const ModelConfig config = square_config(8);
  const Layout layout = make_layout(config, {.tp = 2, .pp = 2});
  LayoutEstimate last;
  for (uint64_t memory = 100 * kMiB; memory < 3000 * kMiB; memory += 100 * kMiB) {
    MachineFigures machine = round_machine(1, 4);
    machine.memory_bytes = memory;
    const LayoutEstimate now = estimate(machine, config, workload, layout);
    EXPECT_LE(now.fit, last.fit);
    EXPECT_GE(now.kv_tokens, last.kv_tokens);
    if (memory > 100 * kMiB) {
      EXPECT_LE(now.missing_bytes, last.missing_bytes);
    }
    last = now;
  }
  EXPECT_EQ(last.fit, Fit::kAll);
}

TEST(KnownGpus, HaveFiguresNamesAndSources) {
  for (const GpuFigures& gpu : known_gpus()) {
    const MachineFigures machine = machine_of(gpu, gpu.usual_nvlink);
    machine.validate();
    EXPECT_FALSE(machine.source.empty());
    EXPECT_GT(machine.bf16_ops_per_s, machine.f32_ops_per_s);
    EXPECT_EQ(&gpu_figures(gpu.name), &gpu);
    EXPECT_EQ(find_gpu_by_device_name(gpu.device_name), &gpu);
    EXPECT_EQ(machine.arithmetic.substr(0, 3), "sm_");
  }
  EXPECT_EQ(gpu_figures("h100-sxm").name, "H100-SXM");
  EXPECT_EQ(gpu_figures("RTX 4090").name, "RTX-4090");
  EXPECT_EQ(find_gpu_by_device_name("NVIDIA H200 NVL"), nullptr);
  EXPECT_THROW(machine_of(gpu_figures("L4"), NvLink::kYes), Error);
  try {
    gpu_figures("H1000");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("H100-PCIe, H200"), std::string::npos);
  }
}

}  // namespace
}  // namespace chorale::parallel
