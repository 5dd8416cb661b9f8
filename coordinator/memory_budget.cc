#include "coordinator/memory_budget.h"

#include <algorithm>
#include <limits>
#include <string>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "parallel/device_memory.h"

namespace chorale::coordinator {
namespace {

using parallel::ClusterPlan;
using parallel::kBlockTokens;
using parallel::WorkerHello;

int64_t blocks_for(int64_t num_tokens) { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }
double mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

bool has_own_memory(const WorkerHello& hello) { return hello.device_free_bytes > 0; }

/// Hellos of ranks that share the memory in which they compute.
bool share_memory(const WorkerHello& a, const WorkerHello& b) {
  return a.host == b.host && has_own_memory(a) == has_own_memory(b) &&
         (!has_own_memory(a) || a.device_identity == b.device_identity);
}

/// What a rank needs besides its KV cache.
struct FixedBytes {
  uint64_t weights = 0, scratch = 0, nccl = 0;
  uint64_t total() const { return weights + scratch + nccl; }
};
FixedBytes fixed_bytes(const ClusterPlan& plan, const WorkerHello& hello) {
  FixedBytes bytes;
  bytes.weights = weight_bytes(plan.config, plan.layout, hello.rank, plan.numerics.compute).resident;
  if (!has_own_memory(hello)) return bytes;
  bytes.scratch = device_extra_bytes(plan.config, plan.layout, hello.rank, plan.max_num_batched_tokens);
  if (plan.device_comm == parallel::DeviceComm::kNccl)
    bytes.nccl = nccl_bytes(plan.config, plan.layout, hello.rank, plan.max_num_batched_tokens);
  return bytes;
}

/// A rank's part of its GPU, which it may fill when nobody says how far.
uint64_t device_share(const std::vector<WorkerHello>& hellos, const WorkerHello& hello) {
  const auto sharers =
      std::ranges::count_if(hellos, [&hello](const WorkerHello& other) { return share_memory(hello, other); });
  return parallel::usable_device_bytes(hello.device_free_bytes) / static_cast<uint64_t>(sharers);
}

/// Bytes that a rank's KV cache may take.
uint64_t kv_room(const ClusterRequest& request, const ClusterPlan& plan, const std::vector<WorkerHello>& hellos,
                 const WorkerHello& hello) {
  if (request.kv_cache_memory_bytes != 0) return request.kv_cache_memory_bytes;
  if (!has_own_memory(hello))
    return hello.free_memory_bytes / parallel::kHostCacheShare / static_cast<uint64_t>(hello.ranks_on_host);
  const uint64_t share = device_share(hellos, hello), taken = fixed_bytes(plan, hello).total();
  return share > taken ? share - taken : 0;
}

/// Smallest count over ranks of blocks that fit its room.
int64_t affordable_blocks(const ClusterRequest& request, const ClusterPlan& plan,
                          const std::vector<WorkerHello>& hellos) {
  int64_t blocks = std::numeric_limits<int64_t>::max();
  for (const WorkerHello& hello : hellos) {
    const uint64_t block_bytes = kv_block_bytes(plan.config, plan.layout, hello.rank, plan.numerics.cache);
    if (block_bytes > 0)
      blocks = std::min(blocks, static_cast<int64_t>(kv_room(request, plan, hellos, hello) / block_bytes));
  }
  return blocks;
}

std::string name_of(const WorkerHello& hello) {
  if (!has_own_memory(hello)) return fmt::format("host {}", hello.host);
  return fmt::format("{} of rank {} on {}", hello.device_name.empty() ? hello.device : hello.device_name, hello.rank,
                     hello.host);
}

/// Weights and scratch alone must leave a GPU room for a cache; else no number of blocks is the answer.
void check_devices_hold_the_weights(const ClusterRequest& request, const ClusterPlan& plan,
                                    const std::vector<WorkerHello>& hellos) {
  if (request.kv_cache_memory_bytes > 0 || request.num_kv_blocks > 0) return;  // all of the GPU may be meant
  for (const WorkerHello& hello : hellos) {
    if (!has_own_memory(hello)) continue;
    const FixedBytes fixed = fixed_bytes(plan, hello);
    const uint64_t share = device_share(hellos, hello);
    if (fixed.total() < share) continue;
    fail(ErrorCode::kResourceExhausted,
         "{} has {:.0f} MiB for the rank, but weights ({:.0f}), scratch of a step of {} tokens ({:.0f}) and NCCL "
         "({:.0f}) need {:.0f} MiB and leave the KV cache nothing: use a greater --tp or --pp{}, or a smaller "
         "--max-num-batched-tokens",
         name_of(hello), mib(share), mib(fixed.weights), plan.max_num_batched_tokens, mib(fixed.scratch),
         mib(fixed.nccl), mib(fixed.total()), plan.numerics.compute == DType::kF32 ? ", --dtype bf16" : "");
  }
}

/// A single sequence of the greatest length must fit, or it could never run.
void check_one_sequence_fits(const ClusterRequest& request, const ClusterPlan& plan,
                             const std::vector<WorkerHello>& hellos) {
  const int64_t needed = blocks_for(plan.max_model_len);
  if (plan.num_kv_blocks >= needed) return;
  const std::string fits = plan.num_kv_blocks > 0
                               ? fmt::format("--max-model-len {} fits", plan.num_kv_blocks * kBlockTokens)
                               : "no length fits";
  const std::string has = fmt::format(
      "the KV cache has room for {} block(s) of {} tokens, but one sequence of {} tokens "
      "needs {}: {}",
      plan.num_kv_blocks, kBlockTokens, plan.max_model_len, needed, fits);
  if (request.num_kv_blocks > 0) fail(ErrorCode::kResourceExhausted, "{}, or raise --num-kv-blocks to {}", has, needed);
  uint64_t block_bytes = 0;
  for (int rank = 0; rank < plan.layout.num_ranks(); ++rank)
    block_bytes = std::max(block_bytes, kv_block_bytes(plan.config, plan.layout, rank, plan.numerics.cache));
  if (request.kv_cache_memory_bytes == 0 && std::ranges::any_of(hellos, has_own_memory))
    fail(ErrorCode::kResourceExhausted,
         "{}, or use a greater --tp or --pp ({:.0f} MiB are needed on the fullest rank; a cache takes nine tenths of "
         "what is free on its GPU, less weights and scratch)",
         has, mib(static_cast<uint64_t>(needed) * block_bytes));
  fail(ErrorCode::kResourceExhausted, "{}, or {} to {} bytes ({} bytes a block on the fullest rank)", has,
       request.kv_cache_memory_bytes > 0 ? "raise --kv-cache-memory-bytes"
                                         : "set --kv-cache-memory-bytes (by default a quarter of free memory)",
       static_cast<uint64_t>(needed) * block_bytes, block_bytes);
}

/// What the ranks of a host or a GPU need together against what is free there.
void check_everything_fits(const ClusterPlan& plan, const std::vector<WorkerHello>& hellos) {
  for (size_t first = 0; first < hellos.size(); ++first) {
    const WorkerHello& hello = hellos[first];
    const auto shares = [&hello](const WorkerHello& other) { return share_memory(hello, other); };
    if (std::any_of(hellos.begin(), hellos.begin() + static_cast<std::ptrdiff_t>(first), shares)) continue;
    uint64_t fixed = 0, cache = 0, free = 0;
    for (const WorkerHello& other : hellos) {
      if (!shares(other)) continue;
      fixed += fixed_bytes(plan, other).total();
      cache += static_cast<uint64_t>(plan.num_kv_blocks) *
               kv_block_bytes(plan.config, plan.layout, other.rank, plan.numerics.cache);
      free = std::max(free, has_own_memory(other) ? other.device_free_bytes : other.free_memory_bytes);
    }
    if (fixed + cache <= free) continue;
    fail(ErrorCode::kResourceExhausted,
         "{} has {:.0f} MiB free, but weights{} ({:.0f} MiB) and KV cache ({:.0f} MiB) of its ranks need {:.0f} MiB: "
         "{:.0f} MiB too little; use {}{}, or fewer --num-kv-blocks",
         name_of(hello), mib(free), has_own_memory(hello) ? ", scratch and NCCL" : "", mib(fixed), mib(cache),
         mib(fixed + cache), mib(fixed + cache - free), has_own_memory(hello) ? "a greater --tp or --pp" : "more hosts",
         plan.numerics.compute == DType::kF32 ? ", --dtype bf16" : "");
  }
}

}  // namespace

KvBudget kv_budget(const ClusterRequest& request, const ClusterPlan& plan, const std::vector<WorkerHello>& hellos) {
  return {affordable_blocks(request, plan, hellos), plan.max_num_seqs * blocks_for(plan.max_model_len)};
}

void check_memory(const ClusterRequest& request, const ClusterPlan& plan, const std::vector<WorkerHello>& hellos) {
  check_devices_hold_the_weights(request, plan, hellos);
  check_one_sequence_fits(request, plan, hellos);
  check_everything_fits(plan, hellos);
}

}  // namespace chorale::coordinator
