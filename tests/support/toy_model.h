// A small decoder that only planners look at: it has weights, but nothing computes with them. Registered as "toy".
#pragma once

#include "parallel/architecture.h"
#include "parallel/cluster_plan.h"
#include "tests/support/model_shapes.h"

namespace chorale::test {

inline std::vector<parallel::WeightSpec> toy_weights(const parallel::ModelConfig& /*config*/) {
  using parallel::Member;
  using parallel::ShardKind;
  const auto spec = [](Member member, ShardKind shard) {
    parallel::WeightSpec weight{};
    weight.member = member;
    weight.hf = weight.gguf = to_string(member);
    weight.shard = shard;
    return weight;
  };
  return {spec(Member::kEmbedding, ShardKind::kLookup), spec(Member::kAttnNorm, ShardKind::kWhole),
          spec(Member::kWq, ShardKind::kQueryHeads),    spec(Member::kWk, ShardKind::kKvHeads),
          spec(Member::kWv, ShardKind::kKvHeads),       spec(Member::kWo, ShardKind::kHeadColumns),
          spec(Member::kFfnNorm, ShardKind::kWhole),    spec(Member::kWGate, ShardKind::kMlpRows),
          spec(Member::kWUp, ShardKind::kMlpRows),      spec(Member::kWDown, ShardKind::kMlpColumns),
          spec(Member::kFinalNorm, ShardKind::kWhole),  spec(Member::kLmHead, ShardKind::kVocabRows)};
}

inline const parallel::ArchitectureRegistry::Add kToyArchitecture([] {
  parallel::Architecture toy{};
  toy.name = "toy";
  toy.weights = toy_weights;
  return toy;
}());

inline parallel::ModelConfig toy_config() {
  parallel::ModelConfig config = smollm2_config();
  config.architecture = "toy";
  config.stored_dtype = DType::kBF16;
  return config;
}

/// Hellos of `num_ranks` equal ranks, `ranks_on_host` on each host.
inline std::vector<parallel::WorkerHello> toy_hellos(int num_ranks, int ranks_on_host,
                                                     uint64_t free_memory_bytes = 8ULL << 30) {
  std::vector<parallel::WorkerHello> hellos;
  for (int rank = 0; rank < num_ranks; ++rank) {
    parallel::WorkerHello hello;
    hello.rank = rank;
    hello.num_ranks = num_ranks;
    hello.host = "node" + std::to_string(rank / ranks_on_host);
    hello.ranks_on_host = ranks_on_host;
    hello.num_cores = 8;
    hello.free_memory_bytes = free_memory_bytes;
    hello.best_isa_f32 = parallel::Isa::kAvx512;
    hello.best_isa_bf16 = parallel::Isa::kAvx512Bf16;
    hello.build_id = "abc";
    hellos.push_back(hello);
  }
  return hellos;
}

}  // namespace chorale::test
