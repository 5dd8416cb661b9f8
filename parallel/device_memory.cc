#include "parallel/device_memory.h"

namespace chorale::parallel {

uint64_t device_scratch_bytes(const ModelConfig& config, const Layout& layout, int max_num_batched_tokens) {
  constexpr int64_t kKernelScratch = int64_t{384} << 20, kLogitRows = 2 * 32;
  const int64_t qkv = int64_t{config.num_heads + 2 * config.num_kv_heads} * config.head_dim;
  const int64_t columns = (4 + layout.tp) * config.hidden_size + (2 * qkv + 3 * config.intermediate_size) / layout.tp;
  return static_cast<uint64_t>(max_num_batched_tokens * columns * 4 + kLogitRows * config.vocab_size * 4 +
                               kKernelScratch);
}

uint64_t device_extra_bytes(const ModelConfig& config, const Layout& layout, int rank, int max_num_batched_tokens) {
  constexpr int64_t kGraphRows = 256, kGraphLogitRows = 32, kGraphInputs = int64_t{2} << 20;
  const int64_t table_type = config.stored_dtype == DType::kBF16 || config.stored_dtype == DType::kF16 ? 2 : 4;
  const int64_t table = layout.is_first_stage(rank) ? config.vocab_size * config.hidden_size * table_type : 0;
  const int64_t graphs = kGraphRows * config.hidden_size * 4 + kGraphLogitRows * config.vocab_size * 4 + kGraphInputs;
  return static_cast<uint64_t>(table + graphs) + device_scratch_bytes(config, layout, max_num_batched_tokens);
}

uint64_t nccl_bytes(const ModelConfig& config, const Layout& layout, int rank, int max_num_batched_tokens) {
  // What users of NCCL 2.2x report: 544 to 688 MB a communicator (NCCL's issue 964), 470 MB for each peer that a rank
  // sends to or receives from beside collectives (issue 1685), as the leader does for logits.
  constexpr int64_t kCommunicator = int64_t{640} << 20, kPeer = int64_t{480} << 20, kSlots = 2;
  const int64_t peers = layout.tp_index_of(rank) == 0 ? layout.tp - 1 : 1;
  const int64_t lanes = (layout.is_first_stage(rank) ? 0 : 1) + (layout.is_last_stage(rank) ? 0 : 1);
  const bool takes_ids = layout.is_first_stage(rank) || rank == layout.rank_of(layout.pp - 1, 0);
  const int64_t ids = layout.pp > 1 && takes_ids ? 1 : 0;
  return static_cast<uint64_t>((lanes + 1 + ids) * kCommunicator + peers * kPeer +
                               lanes * kSlots * max_num_batched_tokens * config.hidden_size * 4);
}

}  // namespace chorale::parallel
