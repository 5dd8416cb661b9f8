// `chorale plan`: what a world would be, without one: who holds what, bytes per rank, KV capacity, numerics class. As
// if all ranks ran on this host, or with --recommend on machines that figures describe, in the layout that suits them;
// refuses what serve would refuse.
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/parse_arguments.h"
#include "coordinator/commands/plan_advice.h"
#include "coordinator/commands/plan_figures.h"
#include "coordinator/make_cluster_plan.h"
#include "coordinator/memory_budget.h"
#include "parallel/architecture.h"
#include "parallel/checkpoint/checkpoint.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;
using parallel::Checkpoint;
using parallel::ClusterPlan;
using parallel::kBlockTokens;
using parallel::Range;

struct RankFacts {
  int rank = 0;
  int stage = 0;
  int tp_index = 0;
  Range layers;
  Range heads;
  Range kv_heads;
  Range mlp_columns;
  Range vocab_rows;
  uint64_t weight_bytes = 0;           // kept in memory
  std::optional<uint64_t> read_bytes;  // copied out of the checkpoint; none without one
  uint64_t kv_bytes = 0;
};

/// Bytes of the checkpoint that hold `slice` of the [out, in] weight: whole blocks of quantised rows.
uint64_t stored_bytes(const parallel::StoredTensor& tensor, const parallel::Slice& slice) {
  const int64_t elements = parallel::block_elements(tensor.type);
  const auto bytes = static_cast<uint64_t>(parallel::block_bytes(tensor.type));
  if (elements == 1) return static_cast<uint64_t>(slice.rows.size() * slice.columns.size()) * bytes;
  const int64_t num_blocks = (slice.columns.end + elements - 1) / elements - slice.columns.begin / elements;
  return static_cast<uint64_t>(slice.rows.size() * num_blocks) * bytes;
}

/// What the loader of `rank` will copy: its slices and nothing else. Embeddings are read by row from the mapping and
/// not counted.
uint64_t bytes_to_read(const Checkpoint& checkpoint, const ClusterPlan& plan, int rank) {
  const parallel::Layout& layout = plan.layout;
  const Range layers = layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))];
  uint64_t total = 0;
  for (const parallel::WeightSpec& spec : parallel::architecture_of(plan.config).weights(plan.config)) {
    if (spec.shard == parallel::ShardKind::kLookup) continue;
    const bool in_layers = parallel::is_layer_member(spec.member);
    if (!in_layers && !layout.is_last_stage(rank)) continue;
    const parallel::Slice slice = slice_of(plan.config, layout, spec.member, spec.shard, layout.tp_index_of(rank));
    const Range wanted = in_layers ? layers : Range{0, 1};
    for (int64_t layer = wanted.begin; layer < wanted.end; ++layer) {
      const parallel::StoredTensor* tensor = find_weight(checkpoint, plan.config, spec, static_cast<int>(layer));
      if (tensor != nullptr) total += stored_bytes(*tensor, slice);
    }
  }
  return total;
}

RankFacts facts_of(const Checkpoint& checkpoint, const ClusterPlan& plan, int rank) {
  const parallel::Layout& layout = plan.layout;
  RankFacts facts;
  facts.rank = rank;
  facts.stage = layout.stage_of(rank);
  facts.tp_index = layout.tp_index_of(rank);
  const auto tp = static_cast<size_t>(facts.tp_index);
  facts.layers = layout.stage_layers[static_cast<size_t>(facts.stage)];
  facts.heads = heads_of(plan.config, layout.attention_leaves[tp]);
  facts.kv_heads = kv_heads_of(plan.config, facts.heads);
  facts.mlp_columns = mlp_columns_of(plan.config, layout.mlp_leaves[tp]);
  if (layout.is_last_stage(rank)) facts.vocab_rows = layout.vocab_rows[tp];
  facts.weight_bytes = weight_bytes(plan.config, layout, rank, plan.numerics.compute).resident;
  if (checkpoint.has_weights()) facts.read_bytes = bytes_to_read(checkpoint, plan, rank);
  facts.kv_bytes =
      static_cast<uint64_t>(plan.num_kv_blocks) * kv_block_bytes(plan.config, layout, rank, plan.numerics.cache);
  return facts;
}

json range_json(Range range) { return json::array({range.begin, range.end}); }

/// How the count of KV blocks came about, for people who asked for another.
struct KvFacts {
  KvBudget budget;
  bool capped_at_need = false;  // there is room for more than the sequences can use
};

json json_of(const ClusterPlan& plan, const std::vector<RankFacts>& ranks, const KvFacts& kv) {
  json list = json::array();
  for (const RankFacts& facts : ranks) {
    list.push_back({{"rank", facts.rank},
                    {"stage", facts.stage},
                    {"tp", facts.tp_index},
                    {"heads", facts.heads.size()},
                    {"kv_heads", facts.kv_heads.size()},
                    {"layers", facts.layers.size()},
                    {"weight_bytes", facts.weight_bytes},
                    {"read_bytes", facts.read_bytes ? json(*facts.read_bytes) : json()},
                    {"kv_bytes", facts.kv_bytes},
                    {"head_range", range_json(facts.heads)},
                    {"kv_head_range", range_json(facts.kv_heads)},
                    {"layer_range", range_json(facts.layers)},
                    {"mlp_column_range", range_json(facts.mlp_columns)},
                    {"vocab_range", range_json(facts.vocab_rows)}});
  }
  return {{"ranks", std::move(list)},
          {"num_kv_blocks", plan.num_kv_blocks},
          {"affordable_kv_blocks", kv.budget.affordable},
          {"kv_capped_at_need", kv.capped_at_need},
          {"numerics_class", plan.numerics.to_string()},
          {"tp", plan.layout.tp},
          {"pp", plan.layout.pp},
          {"max_model_len", plan.max_model_len},
          {"max_num_seqs", plan.max_num_seqs},
          {"max_num_batched_tokens", plan.max_num_batched_tokens},
          {"threads", plan.threads}};
}

double mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

std::string span_text(Range range) {
  return range.size() == 0 ? "-" : fmt::format("{}-{}", range.begin, range.end - 1);
}

void print(const ClusterPlan& plan, const std::vector<RankFacts>& ranks, const KvFacts& kv) {
  std::cout << fmt::format("model    {} ({})\n", plan.model_path, plan.config.to_string());
  std::cout << fmt::format("class    {}\n", plan.numerics.to_string());
  std::cout << fmt::format("leaves   {} of attention, {} of MLP\n\n", plan.numerics.attention_leaves,
                           plan.numerics.mlp_leaves);
  std::cout << fmt::format("{:>4} {:>5} {:>3} {:>9} {:>9} {:>9} {:>13} {:>15} {:>12} {:>12} {:>12}\n", "rank", "stage",
                           "tp", "layers", "heads", "KV heads", "MLP columns", "vocabulary", "weights MiB", "read MiB",
                           "KV MiB");
  for (const RankFacts& facts : ranks)
    std::cout << fmt::format(
        "{:>4} {:>5} {:>3} {:>9} {:>9} {:>9} {:>13} {:>15} {:>12.1f} {:>12} {:>12.1f}\n", facts.rank, facts.stage,
        facts.tp_index, span_text(facts.layers), span_text(facts.heads), span_text(facts.kv_heads),
        span_text(facts.mlp_columns), span_text(facts.vocab_rows), mib(facts.weight_bytes),
        facts.read_bytes ? fmt::format("{:.1f}", mib(*facts.read_bytes)) : "-", mib(facts.kv_bytes));
  const int64_t blocks_of_one = (plan.max_model_len + kBlockTokens - 1) / kBlockTokens;
  std::cout << fmt::format("\nKV cache {} blocks of {} tokens: {} tokens, {} sequence(s) of {} tokens at a time\n",
                           plan.num_kv_blocks, kBlockTokens, plan.num_kv_blocks * kBlockTokens,
                           plan.num_kv_blocks / blocks_of_one, plan.max_model_len);
  if (kv.capped_at_need)
    std::cout << fmt::format(
        "         capped at what {} sequences (--max-num-seqs) of {} tokens need; there is room for {} blocks\n",
        plan.max_num_seqs, plan.max_model_len, kv.budget.affordable);
  std::cout << fmt::format("batching {} sequences, {} tokens a step; {} thread(s) a rank\n", plan.max_num_seqs,
                           plan.max_num_batched_tokens, plan.threads);
}

/// Machines that are only figures, and what suits them.
struct Recommendation {
  parallel::MachineFigures machine;
  parallel::Workload workload;
  parallel::Advice advice;
};

std::optional<Recommendation> recommend(const cxxopts::ParseResult& arguments, const ClusterRequest& request,
                                        const parallel::ModelConfig& config, const WorkerModule& worker) {
  if (!wants_advice(arguments)) return std::nullopt;
  if (request.gemm == Gemm::kCublasLt || request.answer == parallel::Answer::kFast)
    fail(ErrorCode::kInvalidArgument, "--{}: cuBLASLt's version is known on the machine only; leave it out",
         request.answer == parallel::Answer::kFast ? "answer fast" : "gemm cublaslt");
  check_options(request, config);
  Recommendation result;
  result.machine = read_figures(arguments, request.device, DeviceRegistry::find(to_string(DeviceKind::kCuda)), worker);
  result.workload = workload_of(request, config, mean_context_of(arguments));
  result.advice = parallel::advise(result.machine, config, result.workload);
  return result;
}

/// The request as it would be given for the recommended layout; a layout that the user names stays.
ClusterRequest adopted(ClusterRequest request, const cxxopts::ParseResult& arguments, const Recommendation& found) {
  if (arguments.count("tensor-parallel-size") != 0 || arguments.count("pipeline-parallel-size") != 0) return request;
  const parallel::LayoutEstimate& best = found.advice.layouts[found.advice.recommended];
  request.layout.tp = best.tp;
  request.layout.pp = best.pp;
  if (request.num_kv_blocks == 0) request.num_kv_blocks = blocks_to_name(best, found.machine);
  return request;
}

}  // namespace

int run_plan(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale plan",
                           "Prints who would hold what, bytes per rank and KV capacity; recommends a layout; starts "
                           "nothing.");
  add_cluster_options(options);
  add_figure_options(options);
  options.add_options()("json", "one JSON object")("h,help", "print this");
  const auto arguments = parse_arguments(options, argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n  chorale plan --model M --tp 2 --pp 2\n"
                 "  chorale plan --model M.gguf --tp 3 --shares 2,1,1 --max-model-len 4096 --json\n"
                 "  chorale plan --model FOLDER_WITH_CONFIG --gpu H100-SXM --nodes 2 --gpus-per-node 4 --network 200\n";
    return kExitOk;
  }
  const ClusterOptions cluster = read_cluster_options(arguments);
  init_log(cluster.log_level, "plan");
  const bool is_advised = wants_advice(arguments);
  const Checkpoint checkpoint = Checkpoint::open(
      cluster.request.model_path, is_advised ? parallel::WeightFiles::kOptional : parallel::WeightFiles::kRequired);
  const parallel::ModelConfig config = load_model_config(checkpoint);
  if (checkpoint.has_weights()) check_weights(checkpoint, config);

  const std::optional<Recommendation> found = recommend(arguments, cluster.request, config, worker);
  const ClusterRequest request = found ? adopted(cluster.request, arguments, *found) : cluster.request;
  const int num_ranks = request.layout.tp * request.layout.pp;
  if (found) check_there_are_ranks(found->machine, request.layout);
  std::vector<parallel::WorkerHello> hellos;
  if (found) hellos = hellos_of(found->machine, num_ranks);
  for (int rank = 0; rank < num_ranks && !found; ++rank)
    hellos.push_back(invented_hello(rank, num_ranks, request.device, needed_gemm(request)));
  const ClusterPlan plan = make_cluster_plan(request, config, hellos, 1);
  KvFacts kv{.budget = kv_budget(request, plan, hellos)};
  kv.capped_at_need = request.num_kv_blocks == 0 && kv.budget.affordable > kv.budget.needed;
  std::vector<RankFacts> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) ranks.push_back(facts_of(checkpoint, plan, rank));

  if (arguments.count("json") != 0) {
    json result = json_of(plan, ranks, kv);
    if (found) result.update(json_of(found->advice, found->machine, found->workload));
    if (found) result["weights_read"] = checkpoint.has_weights();
    std::cout << result.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
    return kExitOk;
  }
  print(plan, ranks, kv);
  if (found && !checkpoint.has_weights())
    std::cout << "weights  not read: the folder has its configuration only; bytes are those of its shapes\n";
  if (found) std::cout << "\n" << text_of(found->advice, found->machine, found->workload);
  return kExitOk;
}

}  // namespace chorale::coordinator
