#include "parallel/cluster_plan.h"

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {
constexpr uint32_t kPlanMagic = 0x43485032;  // "CHP2"

void check_field(bool good, std::string_view field, int64_t value, std::string_view expected) {
  if (!good) fail(ErrorCode::kInvalidArgument, "cluster plan: {} is {}, expected {}", field, value, expected);
}

template <typename R, typename Size>
void check_cover(std::string_view what, const std::vector<R>& parts, Size size) {
  Size next = 0;
  for (const R& part : parts) {
    if (part.begin != next || part.end < part.begin)
      fail(ErrorCode::kInvalidArgument, "cluster plan: {} [{}, {}) do not follow {}", what, part.begin, part.end, next);
    next = part.end;
  }
  if (next != size) fail(ErrorCode::kInvalidArgument, "cluster plan: {} end at {}, expected {}", what, next, size);
}
}  // namespace

Bytes WorkerHello::encode() const {
  ByteWriter out;
  out.put(rank);
  out.put(num_ranks);
  out.put(host);
  out.put(ranks_on_host);
  out.put(num_cores);
  out.put(free_memory_bytes);
  out.put(best_isa_f32);
  out.put(best_isa_bf16);
  out.put(cpu_model);
  out.put(build_id);
  out.put(process_id);
  out.put(device);
  out.put(device_arithmetic);
  out.put(device_name);
  out.put(device_free_bytes);
  out.put(device_identity);
  out.put(device_bus_id);
  out.put(cublaslt_version);
  out.put(cublaslt_problem);
  out.put(nccl_version);
  out.put(nccl_problem);
  out.put(gpu_absence);
  out.put(gpu_problem);
  return out.take();
}

WorkerHello WorkerHello::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  WorkerHello hello;
  in.get(hello.rank);
  in.get(hello.num_ranks);
  hello.host = in.get_string();
  in.get(hello.ranks_on_host);
  in.get(hello.num_cores);
  in.get(hello.free_memory_bytes);
  in.get(hello.best_isa_f32);
  in.get(hello.best_isa_bf16);
  hello.cpu_model = in.get_string();
  hello.build_id = in.get_string();
  in.get(hello.process_id);
  hello.device = in.get_string();
  hello.device_arithmetic = in.get_string();
  hello.device_name = in.get_string();
  in.get(hello.device_free_bytes);
  hello.device_identity = in.get_string();
  hello.device_bus_id = in.get_string();
  hello.cublaslt_version = in.get_string();
  hello.cublaslt_problem = in.get_string();
  hello.nccl_version = in.get_string();
  hello.nccl_problem = in.get_string();
  in.get(hello.gpu_absence);
  hello.gpu_problem = in.get_string();
  in.expect_end();
  const bool counts_make_sense = hello.num_ranks >= 1 && hello.rank >= 0 && hello.rank < hello.num_ranks &&
                                 hello.ranks_on_host >= 1 && hello.ranks_on_host <= hello.num_ranks &&
                                 hello.num_cores >= 1;
  if (!counts_make_sense || hello.best_isa_f32 > Isa::kAvx512Bf16 || hello.best_isa_bf16 > Isa::kAvx512Bf16)
    fail(ErrorCode::kCorrupt, "hello of rank {} of {} makes no sense", hello.rank, hello.num_ranks);
  return hello;
}

const std::string& common_arithmetic(const std::vector<WorkerHello>& hellos) {
  for (const WorkerHello& hello : hellos)
    if (hello.device_arithmetic != hellos.front().device_arithmetic)
      fail(ErrorCode::kInvalidArgument,
           "rank {} on {} computes on {} ({}), rank 0 on {}: one answer needs one kind; see --device", hello.rank,
           hello.host, hello.device, hello.device_arithmetic, hellos.front().device_arithmetic);
  return hellos.front().device_arithmetic;
}

Bytes ClusterPlan::encode() const {
  ByteWriter out;
  out.put(kPlanMagic);
  out.put(epoch);
  out.put(model_path);
  config.encode(out);
  layout.encode(out);
  numerics.encode(out);
  out.put(num_kv_blocks);
  out.put(max_model_len);
  out.put(max_num_seqs);
  out.put(max_num_batched_tokens);
  out.put(threads);
  out.put(spin_us);
  out.put(device_comm);
  out.put(nccl_version);
  out.put(cuda_graphs);
  return out.take();
}

ClusterPlan ClusterPlan::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  if (in.get<uint32_t>() != kPlanMagic) fail(ErrorCode::kCorrupt, "not a cluster plan, or of another version");
  ClusterPlan plan;
  in.get(plan.epoch);
  plan.model_path = in.get_string();
  plan.config = ModelConfig::decode(in);
  plan.layout = Layout::decode(in);
  plan.numerics = NumericsClass::decode(in);
  in.get(plan.num_kv_blocks);
  in.get(plan.max_model_len);
  in.get(plan.max_num_seqs);
  in.get(plan.max_num_batched_tokens);
  in.get(plan.threads);
  in.get(plan.spin_us);
  in.get(plan.device_comm);
  plan.nccl_version = in.get_string();
  in.get(plan.cuda_graphs);
  in.expect_end();
  if (plan.device_comm > DeviceComm::kNccl) fail(ErrorCode::kCorrupt, "cluster plan: unknown communicator");
  if (plan.cuda_graphs > CudaGraphs::kOn) fail(ErrorCode::kCorrupt, "cluster plan: CUDA graphs neither on nor off");
  return plan;
}

void ClusterPlan::validate() const {
  config.validate();
  check_cover("layers of the stages", layout.stage_layers, int64_t{config.num_layers});
  check_cover("attention leaves", layout.attention_leaves, num_attention_leaves(config));
  check_cover("MLP leaves", layout.mlp_leaves, num_mlp_leaves(config));
  check_cover("vocabulary rows", layout.vocab_rows, config.vocab_size);
  check_field(max_model_len >= 1 && max_model_len <= config.max_positions, "max_model_len", max_model_len,
              fmt::format("1 to the model's {} positions", config.max_positions));
  check_field(max_num_seqs >= 1, "max_num_seqs", max_num_seqs, "at least 1");
  check_field(max_num_batched_tokens >= 1, "max_num_batched_tokens", max_num_batched_tokens, "at least 1");
  check_field(threads >= 1 && threads <= 1024, "threads", threads, "1 to 1024");
  const int64_t blocks_of_one = (max_model_len + kBlockTokens - 1) / kBlockTokens;
  check_field(num_kv_blocks >= blocks_of_one, "num_kv_blocks", num_kv_blocks,
              fmt::format("at least {} for one sequence of {} tokens; --max-model-len {} fits", blocks_of_one,
                          max_model_len, num_kv_blocks * kBlockTokens));
}

std::string ClusterPlan::to_string() const {
  std::string activations;  // of ranks on devices: on CPUs there is nothing to choose
  if (layout.num_ranks() > 1 && numerics.device != "cpu")
    activations =
        device_comm == DeviceComm::kNccl ? ", activations over NCCL " + nccl_version : ", activations over MPI";
  std::string text = fmt::format("world {}: tp={} pp={}, {} KV blocks of {} tokens, class {}{}\n", epoch, layout.tp,
                                 layout.pp, num_kv_blocks, kBlockTokens, numerics.to_string(), activations);
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    const auto tp = static_cast<size_t>(layout.tp_index_of(rank));
    const Range layers = layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))];
    const Range heads = heads_of(config, layout.attention_leaves[tp]);
    const Range kv_heads = kv_heads_of(config, heads);
    const Range mlp = mlp_columns_of(config, layout.mlp_leaves[tp]);
    text += fmt::format("  rank {} stage {} tp {}: layers {}-{}, heads {}-{}, KV heads {}-{}, MLP columns {}-{}\n",
                        rank, layout.stage_of(rank), tp, layers.begin, layers.end - 1, heads.begin, heads.end - 1,
                        kv_heads.begin, kv_heads.end - 1, mlp.begin, mlp.end - 1);
  }
  return text;
}

Bytes WorkerReady::encode() const {
  ByteWriter out;
  out.put(load_seconds);
  out.put(copied_bytes);
  out.put(weight_bytes);
  out.put(kv_bytes);
  out.put(resident_bytes);
  return out.take();
}

WorkerReady WorkerReady::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  WorkerReady ready;
  in.get(ready.load_seconds);
  in.get(ready.copied_bytes);
  in.get(ready.weight_bytes);
  in.get(ready.kv_bytes);
  in.get(ready.resident_bytes);
  in.expect_end();
  return ready;
}

Bytes WorkerFault::encode() const {
  ByteWriter out;
  out.put(code);
  out.put(reason);
  return out.take();
}

WorkerFault WorkerFault::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  WorkerFault fault;
  in.get(fault.code);
  fault.reason = in.get_string();
  in.expect_end();
  if (fault.code < ErrorCode::kInvalidArgument || fault.code > ErrorCode::kSystem)
    fail(ErrorCode::kCorrupt, "a worker's fault has no known code");
  return fault;
}

}  // namespace chorale::parallel
