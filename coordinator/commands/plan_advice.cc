#include "coordinator/commands/plan_advice.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace chorale::coordinator {
namespace {

using nlohmann::json;
using parallel::Advice;
using parallel::Fit;
using parallel::LayoutEstimate;
using parallel::MachineFigures;
using parallel::StepTime;
using parallel::Workload;

constexpr double kGiga = 1e9, kMillion = 1e6, kThousand = 1e3;
constexpr const char* kNote = "estimates from figures, not measurements";

json json_of(const StepTime& time) {
  json causes = json::object();
  for (int i = 0; i < parallel::kNumCosts; ++i) {
    const auto cost = static_cast<parallel::Cost>(i);
    if (time[cost] > 0) causes[std::string(to_string(cost))] = time[cost] * kThousand;
  }
  return causes;
}

json json_of(const LayoutEstimate& layout) {
  return {{"tp", layout.tp},
          {"pp", layout.pp},
          {"num_ranks", layout.num_ranks()},
          {"fits", to_string(layout.fit)},
          {"weight_bytes", layout.weight_bytes},
          {"missing_bytes", layout.missing_bytes},
          {"missing_for_one_bytes", layout.missing_for_one_bytes},
          {"kv_tokens", layout.kv_tokens},
          {"num_sequences", layout.num_sequences},
          {"num_running", layout.num_running},
          {"ms_per_token_batch_1", layout.one.total() * kThousand},
          {"ms_per_token", layout.full.total() * kThousand},
          {"tokens_per_s", layout.tokens_per_s},
          {"prefill_tokens_per_s", layout.prefill_tokens_per_s},
          {"bottleneck", to_string(layout.full.largest())},
          {"ms_by_cause", json_of(layout.full)}};
}

json json_of(const parallel::LinkFigures& link) {
  return {{"name", link.name}, {"latency_us", link.latency_s * kMillion}, {"gb_per_s", link.bytes_per_s / kGiga}};
}

json json_of(const MachineFigures& machine) {
  return {{"name", machine.name},
          {"source", machine.source},
          {"nodes", machine.num_nodes},
          {"ranks_per_node", machine.ranks_per_node},
          {"of", machine.owner == parallel::Owner::kRank ? "rank" : "node"},
          {"memory_bytes", machine.memory_bytes},
          {"memory_gb_per_s", machine.memory_bytes_per_s / kGiga},
          {"bf16_tflops", machine.bf16_ops_per_s / kGiga / kThousand},
          {"f32_tflops", machine.f32_ops_per_s / kGiga / kThousand},
          {"inside", json_of(machine.inside)},
          {"between", json_of(machine.between)}};
}

std::string fit_text(const LayoutEstimate& layout, const Workload& workload) {
  switch (layout.fit) {
    case Fit::kAll: return "yes";
    case Fit::kSome: return fmt::format("{} of {} seqs", layout.num_sequences, workload.max_num_seqs);
    case Fit::kNone: break;
  }
  return fmt::format("no: {:.1f} GiB short", static_cast<double>(layout.missing_for_one_bytes) / (1 << 30));
}

std::string row_of(const LayoutEstimate& layout, const Workload& workload, char mark) {
  std::string row = fmt::format("{} {:>3} {:>3} {:>5}  {:<18}", mark, layout.tp, layout.pp, layout.num_ranks(),
                                fit_text(layout, workload));
  if (layout.fit == Fit::kNone) return row + "\n";
  return row + fmt::format(" {:>9.3f} {:>9.3f} {:>5} {:>9.0f} {:>9.0f} {:>10}  {} ({:.0f} %)\n",
                           layout.one.total() * kThousand, layout.full.total() * kThousand, layout.num_running,
                           layout.tokens_per_s, layout.prefill_tokens_per_s, layout.kv_tokens,
                           to_string(layout.full.largest()),
                           100 * layout.full[layout.full.largest()] / layout.full.total());
}

}  // namespace

Workload workload_of(const ClusterRequest& request, const parallel::ModelConfig& config, int64_t mean_context) {
  constexpr int64_t kUsualContext = 1024;
  Workload workload;
  workload.types.compute = workload.types.cache = compute_type(request, config);
  workload.max_model_len = request.max_model_len > 0 ? request.max_model_len : config.max_positions;
  workload.max_num_seqs = request.max_num_seqs;
  workload.max_num_batched_tokens = request.max_num_batched_tokens;
  workload.kv_cache_memory_bytes = request.kv_cache_memory_bytes;
  const int64_t usual = std::clamp<int64_t>(workload.max_model_len / 2, 1, kUsualContext);
  workload.mean_context =
      static_cast<double>(mean_context > 0 ? std::min(mean_context, workload.max_model_len) : usual);
  return workload;
}

std::vector<parallel::WorkerHello> hellos_of(const MachineFigures& machine, int num_ranks) {
  std::vector<parallel::WorkerHello> hellos;
  for (int rank = 0; rank < num_ranks; ++rank) {
    parallel::WorkerHello hello = invented_hello(rank, num_ranks);
    const int node = rank / machine.ranks_per_node;
    hello.host = fmt::format("node{}", node);
    hello.ranks_on_host = std::min(machine.ranks_per_node, num_ranks - node * machine.ranks_per_node);
    if (machine.device == DeviceKind::kCpu) {
      hello.free_memory_bytes = machine.memory_bytes;
    } else {
      hello.device = to_string(machine.device);
      hello.device_arithmetic = machine.arithmetic;
      hello.device_name = machine.name;
      hello.device_free_bytes = machine.memory_bytes;
      hello.device_identity = hello.device_bus_id = std::to_string(rank);
    }
    hellos.push_back(std::move(hello));
  }
  return hellos;
}

void check_there_are_ranks(const MachineFigures& machine, const parallel::LayoutRequest& layout) {
  const int needed = layout.tp * layout.pp, per_node = machine.ranks_per_node;
  if (needed <= machine.num_ranks()) return;
  fail(ErrorCode::kInvalidArgument, "--tp {} --pp {} are {} ranks, but there are {} ({}): give --nodes {}", layout.tp,
       layout.pp, needed, machine.num_ranks(), machine.to_string(), (needed + per_node - 1) / per_node);
}

int64_t blocks_to_name(const LayoutEstimate& layout, const MachineFigures& machine) {
  const bool is_short = layout.fit == Fit::kSome && machine.device == DeviceKind::kCpu;
  return is_short ? layout.kv_tokens / parallel::kBlockTokens : 0;
}

json json_of(const Advice& advice, const MachineFigures& machine, const Workload& workload) {
  json layouts = json::array();
  for (const LayoutEstimate& layout : advice.layouts) layouts.push_back(json_of(layout));
  json recommendation = json_of(advice.layouts[advice.recommended]);
  recommendation["why"] = advice.why;
  recommendation["note"] = kNote;
  json figures = json_of(machine);
  figures["mean_context"] = workload.mean_context;
  return {{"recommendation", recommendation}, {"layouts", layouts}, {"figures", figures}};
}

std::string text_of(const Advice& advice, const MachineFigures& machine, const Workload& workload) {
  constexpr size_t kMostRows = 16;
  std::string text = fmt::format("machines {}\n", machine.to_string());
  text += fmt::format("         figures: {}; {}\n", machine.source, kNote);
  text += fmt::format("         sequences of {:.0f} tokens on average, at most {} of at most {}\n\n",
                      workload.mean_context, workload.max_num_seqs, workload.max_model_len);
  text += fmt::format("  {:>3} {:>3} {:>5}  {:<18} {:>9} {:>9} {:>5} {:>9} {:>9} {:>10}  {}\n", "tp", "pp", "ranks",
                      "fits", "ms/token", "ms/token", "seqs", "tokens/s", "prefill/s", "KV tokens", "most time in");
  text += fmt::format("  {:>32} {:>9} {:>9}\n", "", "1 seq", "all seqs");
  for (size_t i = 0; i < advice.layouts.size(); ++i)
    if (i < kMostRows || i == advice.recommended)
      text += row_of(advice.layouts[i], workload, i == advice.recommended ? '*' : ' ');
  if (advice.layouts.size() > kMostRows)
    text += fmt::format("  ... {} layouts in all: --json lists them\n", advice.layouts.size());
  const LayoutEstimate& best = advice.layouts[advice.recommended];
  const int64_t blocks = blocks_to_name(best, machine);
  text += fmt::format("\nrecommended (*): --tp {} --pp {}{}\n", best.tp, best.pp,
                      blocks > 0 ? fmt::format(" --num-kv-blocks {}", blocks) : "");
  for (const std::string& sentence : advice.why) text += fmt::format("  - {}\n", sentence);
  return text;
}

}  // namespace chorale::coordinator
