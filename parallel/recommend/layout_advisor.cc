#include "parallel/recommend/layout_advisor.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "parallel/device_memory.h"

namespace chorale::parallel {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
constexpr double kMostBytes = 1e18;
constexpr double kAsFast = 0.98;  // of the best: fewer ranks are taken instead

int64_t blocks_for(int64_t num_tokens) { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }

/// Memory that ranks share, in bytes: of one GPU, or of a node of CPU ranks.
struct Pool {
  int64_t total = 0;  // what they may take
  int64_t taken = 0;  // weights and what a device needs besides
  int64_t block = 0;  // one of KV, on all of them
  int64_t room() const { return total - taken; }
};

std::vector<Pool> pools_of(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                           const SizedLayout& sized) {
  const bool on_host = machine.device == DeviceKind::kCpu;
  const size_t ranks_of_pool = machine.owner == Owner::kNode ? static_cast<size_t>(machine.ranks_per_node) : 1;
  std::vector<Pool> pools;
  for (size_t rank = 0; rank < sized.ranks.size(); ++rank) {
    if (rank % ranks_of_pool == 0)
      pools.push_back(
          {static_cast<int64_t>(on_host ? machine.memory_bytes : usable_device_bytes(machine.memory_bytes)), 0, 0});
    Pool& pool = pools.back();
    pool.taken += static_cast<int64_t>(sized.ranks[rank].weights);
    if (!on_host)
      pool.taken += static_cast<int64_t>(
          device_extra_bytes(config, sized.layout, static_cast<int>(rank), workload.max_num_batched_tokens));
    pool.block += static_cast<int64_t>(sized.ranks[rank].kv_block);
  }
  return pools;
}

/// The most that KV may take of the memory of a rank, as make_cluster_plan has it.
int64_t cache_limit(const MachineFigures& machine, const Workload& workload, const Layout& layout, int rank) {
  if (workload.kv_cache_memory_bytes != 0)
    return static_cast<int64_t>(std::min<uint64_t>(workload.kv_cache_memory_bytes, int64_t{1} << 60));
  if (machine.device != DeviceKind::kCpu) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(static_cast<double>(machine.memory_bytes / kHostCacheShare) *
                              share_of(machine, layout, rank));
}

LayoutEstimate memory_estimate(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                               const SizedLayout& sized) {
  LayoutEstimate result;
  result.tp = sized.layout.tp;
  result.pp = sized.layout.pp;
  const int64_t blocks_of_one = blocks_for(workload.max_model_len);
  const int64_t blocks_of_all = blocks_of_one * workload.max_num_seqs;
  int64_t blocks = blocks_of_all;
  double missing = 0, missing_for_one = 0;  // bytes; what was asked may be absurd
  const auto limit_by = [&](int64_t room, int64_t block) {
    blocks = std::min(blocks, room < 0 ? 0 : room / block);
    const auto block_bytes = static_cast<double>(block), room_bytes = static_cast<double>(room);
    missing = std::max(missing, static_cast<double>(blocks_of_all) * block_bytes - room_bytes);
    missing_for_one = std::max(missing_for_one, static_cast<double>(blocks_of_one) * block_bytes - room_bytes);
  };
  for (const Pool& pool : pools_of(machine, config, workload, sized)) limit_by(pool.room(), pool.block);
  for (int rank = 0; rank < result.num_ranks(); ++rank) {
    const SizedLayout::RankBytes& bytes = sized.ranks[static_cast<size_t>(rank)];
    limit_by(cache_limit(machine, workload, sized.layout, rank), static_cast<int64_t>(bytes.kv_block));
    result.weight_bytes = std::max(result.weight_bytes, bytes.weights);
  }
  result.missing_bytes = static_cast<uint64_t>(std::min(missing, kMostBytes));
  result.missing_for_one_bytes = static_cast<uint64_t>(std::min(missing_for_one, kMostBytes));
  result.fit = blocks >= blocks_of_all ? Fit::kAll : blocks >= blocks_of_one ? Fit::kSome : Fit::kNone;
  result.kv_tokens = blocks * kBlockTokens;
  result.num_sequences = static_cast<int>(blocks / blocks_of_one);
  const auto running =
      static_cast<int64_t>(static_cast<double>(result.kv_tokens) / std::max(1.0, workload.mean_context));
  result.num_running =
      result.fit == Fit::kNone ? 1 : static_cast<int>(std::clamp<int64_t>(running, 1, workload.max_num_seqs));
  return result;
}

/// Stages one after the other, `num_batches` batches in turn: a batch comes again when it has left the last stage and
/// the slowest stage is done with the others.
StepTime round_time(const MachineFigures& machine, const ModelConfig& config, const SizedLayout& sized,
                    const StepRows& rows, int num_batches) {
  StepTime total;
  double slowest = 0;
  for (int stage = 0; stage < sized.layout.pp; ++stage) {
    const StepTime time = stage_time(machine, config, sized, stage, rows);
    slowest = std::max(slowest, time.total());
    total += time;
  }
  total[Cost::kBubble] = std::max(0.0, num_batches * slowest - total.total());
  return total;
}

StepRows decode_rows(const Workload& workload, int num_sequences) {
  return {.rows = static_cast<double>(num_sequences),
          .sampled = static_cast<double>(num_sequences),
          .kv_tokens = num_sequences * workload.mean_context,
          .keys_per_row = workload.mean_context};
}

/// Prompts of mean_context tokens, one chunk behind the other through the stages: the slowest decides.
double prefill_rate(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                    const SizedLayout& sized) {
  const double rows = workload.max_num_batched_tokens;
  const StepRows chunk{.rows = rows, .sampled = 1, .kv_tokens = rows, .keys_per_row = workload.mean_context / 2};
  double slowest = 0;
  for (int stage = 0; stage < sized.layout.pp; ++stage)
    slowest = std::max(slowest, stage_time(machine, config, sized, stage, chunk).total());
  return rows / slowest;
}

auto order_of(const LayoutEstimate& a) {
  const bool is_out = a.fit == Fit::kNone;
  return std::tuple(a.fit, is_out ? static_cast<double>(a.missing_for_one_bytes) : -a.tokens_per_s, a.num_ranks(),
                    a.tp);
}

/// Every way to cut the model for `num_ranks` ranks or fewer.
std::vector<Layout> layouts_for(const ModelConfig& config, int num_ranks) {
  std::vector<Layout> layouts;
  const int most_tp = std::min(num_attention_leaves(config), num_mlp_leaves(config));
  for (int tp = 1; tp <= std::min(most_tp, num_ranks); ++tp)
    for (int pp = 1; pp <= config.num_layers && tp * pp <= num_ranks; ++pp)
      layouts.push_back(make_layout(config, {.tp = tp, .pp = pp}));
  return layouts;
}

std::string name_of(const LayoutEstimate& layout) { return fmt::format("tp={} x pp={}", layout.tp, layout.pp); }
std::string ms(double seconds) { return fmt::format("{:.3g} ms", seconds * 1e3); }
std::string gib(uint64_t bytes) { return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / kGib); }
std::string nodes(int count) { return fmt::format("{} node{}", count, count == 1 ? "" : "s"); }

std::string_view place_of(const MachineFigures& machine) { return machine.owner == Owner::kRank ? "rank" : "node"; }

std::string causes_of(const StepTime& time) {
  StepTime rest = time;
  const Cost first = rest.largest();
  rest[first] = 0;
  const Cost second = rest.largest();
  std::string text = fmt::format("{} {}", ms(time[first]), to_string(first));
  if (time[second] > 0.05 * time.total()) text += fmt::format(", {} {}", ms(time[second]), to_string(second));
  return text;
}

/// Where it loses most against the other.
Cost loss_of(const StepTime& slower, const StepTime& faster) {
  StepTime more;
  for (size_t i = 0; i < more.seconds.size(); ++i) more.seconds[i] = slower.seconds[i] - faster.seconds[i];
  return more.largest();
}

/// What a reader would ask about: the layout with more tp on as many ranks, else the next best on as many, else the
/// next best of all.
const LayoutEstimate* rival_of(const std::vector<LayoutEstimate>& layouts, const LayoutEstimate& best) {
  const LayoutEstimate* rival = nullptr;
  const auto rank = [&best](const LayoutEstimate& other) {
    return std::pair(other.num_ranks() == best.num_ranks() && other.tp > best.tp,
                     other.num_ranks() == best.num_ranks());
  };
  for (const LayoutEstimate& other : layouts)
    if (&other != &best && other.fit != Fit::kNone && (rival == nullptr || rank(other) > rank(*rival))) rival = &other;
  return rival;
}

std::string sequences(const LayoutEstimate& layout) {
  return fmt::format("{} sequence{}", layout.num_running, layout.num_running == 1 ? "" : "s");
}

std::vector<std::string> reasons(const MachineFigures& machine, const Workload& workload,
                                 const std::vector<LayoutEstimate>& layouts, const LayoutEstimate& best) {
  std::vector<std::string> why;
  why.push_back(fmt::format("{}: {} a token with {}, {:.0f} tokens/s; {}", name_of(best), ms(best.full.total()),
                            sequences(best), best.tokens_per_s, causes_of(best.full)));
  if (const LayoutEstimate* rival = rival_of(layouts, best)) {
    const Cost loss = loss_of(rival->full, best.full);
    why.push_back(fmt::format("{} would take {} with {}, {} of it {} (here {})", name_of(*rival),
                              ms(rival->full.total()), sequences(*rival), ms(rival->full[loss]), to_string(loss),
                              ms(best.full[loss])));
  }
  const auto single = std::ranges::find(layouts, 1, &LayoutEstimate::num_ranks);
  if (single->fit == Fit::kNone)
    why.push_back(fmt::format("one rank has {} too little for weights and one sequence of {} tokens",
                              gib(single->missing_for_one_bytes), workload.max_model_len));
  if (best.fit == Fit::kSome)
    why.push_back(fmt::format(
        "KV cache for {} of the {} sequences of {} tokens at a time, {} too little for all on the fullest {}: the "
        "others wait, or lower --max-model-len or --max-num-seqs",
        best.num_sequences, workload.max_num_seqs, workload.max_model_len, gib(best.missing_bytes), place_of(machine)));
  if (best.num_ranks() < machine.num_ranks())
    why.push_back(fmt::format("{} of the {} ranks stay free: more would not make it faster by more than 2 %",
                              machine.num_ranks() - best.num_ranks(), machine.num_ranks()));
  return why;
}

/// The fewest nodes of the same kind on which something fits, up to a usual cluster.
std::optional<int> nodes_needed(MachineFigures machine, const ModelConfig& config, const Workload& workload) {
  constexpr int kMostRanks = 256;
  machine.num_nodes = std::max(machine.num_nodes, kMostRanks / machine.ranks_per_node);
  std::optional<int> fewest;
  for (const Layout& layout : layouts_for(config, machine.num_ranks())) {
    const int num_nodes = (layout.num_ranks() + machine.ranks_per_node - 1) / machine.ranks_per_node;
    if (num_nodes >= fewest.value_or(std::numeric_limits<int>::max())) continue;
    const SizedLayout sized = count_bytes(config, layout, workload.types);
    if (memory_estimate(machine, config, workload, sized).fit != Fit::kNone) fewest = num_nodes;
  }
  return fewest;
}

[[noreturn]] void refuse(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                         const LayoutEstimate& closest) {
  const SizedLayout sized =
      count_bytes(config, make_layout(config, {.tp = closest.tp, .pp = closest.pp}), workload.types);
  const int64_t blocks = blocks_for(workload.max_model_len);
  int64_t needed = 0, cache = 0;  // on the fullest: in all, and of one rank's KV
  bool cache_only = true;         // all would fit, were the KV cache given more of the memory
  for (const Pool& pool : pools_of(machine, config, workload, sized)) {
    needed = std::max(needed, pool.taken + blocks * pool.block);
    cache_only = cache_only && blocks * pool.block <= pool.room();
  }
  for (const SizedLayout::RankBytes& bytes : sized.ranks)
    cache = std::max(cache, blocks * static_cast<int64_t>(bytes.kv_block));
  std::vector<std::string> help;
  if (closest.kv_tokens > 0) help.push_back(fmt::format("--max-model-len {}", closest.kv_tokens));
  if (cache_only) help.push_back(fmt::format("--kv-cache-memory-bytes {}", cache));
  if (const auto enough = nodes_needed(machine, config, workload))
    help.push_back(fmt::format("{} of {} rank(s)", nodes(*enough), machine.ranks_per_node));
  if (workload.types.compute == DType::kF32) help.emplace_back("--dtype bf16");
  help.emplace_back("ranks with more memory");
  fail(ErrorCode::kResourceExhausted,
       "no layout fits {} of {} rank(s): the closest, {}, has {} too little on its fullest {}, which needs {} for "
       "weights "
       "({} of the fullest rank), scratch and KV cache of one sequence of {} tokens; what would fit: {}",
       nodes(machine.num_nodes), machine.ranks_per_node, name_of(closest), gib(closest.missing_for_one_bytes),
       place_of(machine), gib(static_cast<uint64_t>(needed)), gib(closest.weight_bytes), workload.max_model_len,
       fmt::join(help, ", or "));
}

}  // namespace

std::string_view to_string(Fit fit) { return fit == Fit::kAll ? "all" : fit == Fit::kSome ? "some" : "none"; }

LayoutEstimate estimate(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                        const Layout& layout) {
  const SizedLayout sized = count_bytes(config, layout, workload.types);
  LayoutEstimate result = memory_estimate(machine, config, workload, sized);
  const int num_batches = std::min(layout.pp, result.num_running);
  const int rows = (result.num_running + num_batches - 1) / num_batches;
  result.one = round_time(machine, config, sized, decode_rows(workload, 1), 1);
  result.full = round_time(machine, config, sized, decode_rows(workload, rows), num_batches);
  result.tokens_per_s = result.num_running / result.full.total();
  result.prefill_tokens_per_s = prefill_rate(machine, config, workload, sized);
  return result;
}

Advice advise(const MachineFigures& machine, const ModelConfig& config, const Workload& workload) {
  machine.validate();
  CHECK(workload.max_model_len > 0 && workload.max_num_seqs > 0 && workload.max_num_batched_tokens > 0);
  Advice advice;
  for (const Layout& layout : layouts_for(config, machine.num_ranks()))
    advice.layouts.push_back(estimate(machine, config, workload, layout));
  std::ranges::sort(advice.layouts, {}, order_of);
  const LayoutEstimate& fastest = advice.layouts.front();
  if (fastest.fit == Fit::kNone) refuse(machine, config, workload, fastest);
  for (size_t i = 1; i < advice.layouts.size(); ++i) {
    const LayoutEstimate& other = advice.layouts[i];
    const LayoutEstimate& best = advice.layouts[advice.recommended];
    if (other.fit == fastest.fit && other.tokens_per_s >= kAsFast * fastest.tokens_per_s &&
        other.num_ranks() < best.num_ranks())
      advice.recommended = i;
  }
  advice.why = reasons(machine, workload, advice.layouts, advice.layouts[advice.recommended]);
  return advice;
}

}  // namespace chorale::parallel
