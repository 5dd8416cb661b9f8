// The registry of architectures: for each, how its configuration is read and which tensors it has under which names.
// One file in worker/models registers one architecture; the planner and `inspect` read this table, so neither knows a
// model by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "comm/base/registry.h"
#include "parallel/checkpoint/checkpoint.h"
#include "parallel/model_config.h"

namespace chorale::parallel {

/// A weight's place in a decoder, in the glossary's words.
enum class Member : uint8_t {
  kEmbedding,
  kPositionEmbedding,
  kAttnNorm,
  kAttnNormBias,
  kWq,
  kWqBias,
  kWk,
  kWkBias,
  kWv,
  kWvBias,
  kQNorm,
  kKNorm,
  kWo,
  kWoBias,
  kFfnNorm,
  kFfnNormBias,
  kWGate,
  kWGateBias,
  kWUp,
  kWUpBias,
  kWDown,
  kWDownBias,
  kFinalNorm,
  kFinalNormBias,
  kLmHead,
};
std::string_view to_string(Member member);  // "wq", "attn_norm", ...

/// Which part of a weight a tensor-parallel rank holds (N2, N8). All matrices are seen as [out, in].
enum class ShardKind : uint8_t {
  kWhole,        // every rank of the stage: norms, biases that are added after the tree's root
  kQueryHeads,   // output rows of the rank's query heads
  kKvHeads,      // output rows of every KV head that one of the rank's query heads uses
  kHeadColumns,  // wo: input columns of the rank's query heads, in leaves
  kMlpRows,      // w_gate, w_up: output rows of the rank's units
  kMlpColumns,   // w_down: input columns of the rank's units, in leaves
  kVocabRows,    // lm_head: output rows, split at multiples of 1024 ids
  kLookup,       // embeddings: read by row from the mapping, never copied
};

enum class Need : uint8_t { kRequired, kOptional };
enum class Orientation : uint8_t {
  kOutIn,
  kInOut
};  // how the matrix is stored: linear [out, in], or GPT-2's Conv1D [in, out]
/// GGUF stores Llama's wq and wk with the two halves of each head interleaved; reading restores Hugging Face's order.
enum class RowOrder : uint8_t { kPlain, kInterleavedHalves };

struct WeightSpec {
  Member member;
  std::string_view hf;    // stored name; "{}" is the layer; alternatives are separated by '|'
  std::string_view gguf;  // same; empty: not in GGUF files
  ShardKind shard = ShardKind::kWhole;
  Need need = Need::kRequired;
  Orientation hf_orientation = Orientation::kOutIn;
  int part = 0;  // of a fused tensor: this weight is rows [part, part + 1) of num_parts equal parts of the output
  int num_parts = 1;
  RowOrder gguf_row_order = RowOrder::kPlain;
};

struct Architecture {
  std::string_view name;                             // "llama"
  std::vector<std::string_view> hf_model_types;      // config.json's model_type
  std::vector<std::string_view> gguf_architectures;  // general.architecture
  ModelConfig (*config_from_hf)(const nlohmann::json& config);
  ModelConfig (*config_from_gguf)(const GgufFile& file);
  std::vector<WeightSpec> (*weights)(const ModelConfig& config);
  std::vector<std::string_view> ignored;  // endings of stored names that carry nothing: buffers, tables already read
};
using ArchitectureRegistry = Registry<Architecture>;

/// Reads and validates the configuration of a checkpoint: architecture's own keys, then what all share (EOS ids of
/// generation_config.json, special ids outside the vocabulary dropped, stored dtype).
/// Throws Error{kUnsupported} naming the model type and the known ones, Error{kCorrupt | kInvalidArgument} naming the
/// key.
ModelConfig load_model_config(const Checkpoint& checkpoint);

/// The entry that `config.architecture` names. Throws Error{kUnsupported}.
const Architecture& architecture_of(const ModelConfig& config);

/// The stored tensor of `spec` in layer `layer` (ignored for weights outside layers), or nullptr for an absent optional
/// one. A tied lm_head that is not stored finds the embedding, and the other way round. Throws Error{kNotFound} naming
/// the tensor, Error{kCorrupt} with both shapes when its shape is wrong.
const StoredTensor* find_weight(const Checkpoint& checkpoint, const ModelConfig& config, const WeightSpec& spec,
                                int layer);

/// Shape [out, in] ([n] for vectors) that `member` must have.
Shape expected_shape(const ModelConfig& config, Member member);
/// True for members that stand once per layer.
bool is_layer_member(Member member);

/// Looks at every tensor of the model before anything is loaded; logs one warning that counts and names tensors nobody
/// uses. Throws as find_weight does.
void check_weights(const Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace chorale::parallel
