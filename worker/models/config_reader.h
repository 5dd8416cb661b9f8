// Typed, range-checked access to the keys of config.json and of GGUF metadata. Files are outside input: a wrong type or
// value throws Error{kCorrupt} that names the key, what stood there and what was expected. A JSON null counts as
// absent. Used by worker/models only.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "parallel/checkpoint/gguf.h"
#include "parallel/model_config.h"

namespace chorale::worker {

/// Inclusive bounds of a number; `what` they are good for is said by the message.
struct IntRange {
  int64_t min = 1;
  int64_t max = std::numeric_limits<int32_t>::max();
};

// Far above every published model, far below what could overflow a product of two.
constexpr IntRange kSizeRange{1, int64_t{1} << 24};      // hidden sizes, MLP columns, vocabulary
constexpr IntRange kCountRange{1, 1 << 14};              // layers, heads
constexpr IntRange kHeadDimRange{1, 256};                // what attention and its cache take
constexpr IntRange kPositionRange{1, int64_t{1} << 28};  // tokens

class JsonConfig {
 public:
  /// `where` begins every message: "config.json". `object` must outlive this and be a JSON object.
  JsonConfig(const nlohmann::json& object, std::string where);

  bool has(std::string_view key) const { return find(key) != nullptr; }  // present and not null
  /// True also for null: tells "absent" from "null", which mean different things for a few keys.
  bool contains(std::string_view key) const;
  int64_t get_int(std::string_view key, IntRange range) const;
  std::optional<int64_t> find_int(std::string_view key, IntRange range) const;
  std::optional<double> find_float(std::string_view key, double min, double max) const;
  double get_float(std::string_view key, double min, double max) const;
  std::optional<bool> find_bool(std::string_view key) const;
  /// kPresent where the key is true.
  parallel::Presence presence(std::string_view key) const {
    return find_bool(key).value_or(false) ? parallel::Presence::kPresent : parallel::Presence::kAbsent;
  }
  std::optional<std::string> find_string(std::string_view key) const;
  std::optional<std::vector<std::string>> find_strings(std::string_view key) const;
  /// An integer or a list of integers: token ids. Values outside int32 count as absent.
  std::vector<int32_t> find_ids(std::string_view key) const;
  /// The object under `key`, or nullopt.
  std::optional<JsonConfig> find_object(std::string_view key) const;

  /// Throws Error{kUnsupported}: `key` has a value that would change the answer and that nothing here implements.
  [[noreturn]] void refuse(std::string_view key, std::string_view supported) const;
  /// Refuses unless `key` is absent or false.
  void require_false(std::string_view key) const;

 private:
  const nlohmann::json* find(std::string_view key) const;
  [[noreturn]] void wrong(std::string_view key, std::string_view expected) const;
  const nlohmann::json& object_;
  std::string where_;
};

/// GGUF metadata under "ARCH.": keys are given without that prefix.
class GgufConfig {
 public:
  explicit GgufConfig(const parallel::GgufFile& file);
  const parallel::GgufFile& file() const { return file_; }
  int64_t get_int(std::string_view key, IntRange range) const;
  std::optional<int64_t> find_int(std::string_view key, IntRange range) const;
  std::optional<double> find_float(std::string_view key, double min, double max) const;
  double get_float(std::string_view key, double min, double max) const;
  const std::string* find_string(std::string_view key) const;
  const parallel::StoredTensor* find_tensor(std::string_view name) const;
  bool has_tensor(std::string_view name) const { return find_tensor(name) != nullptr; }
  std::string full_key(std::string_view key) const { return prefix_ + std::string(key); }

 private:
  const parallel::GgufFile& file_;
  std::string prefix_;  // "llama."
};

/// bos and eos ids of config.json (`bos_token_id`, `eos_token_id`) and of GGUF metadata (BOS; EOS, EOT and EOM).
void read_special_ids(const JsonConfig& json, parallel::ModelConfig& config);
void read_special_ids(const GgufConfig& gguf, parallel::ModelConfig& config);

/// Rows of token_embd.weight: a GGUF file's vocabulary size. Throws Error{kCorrupt} when it is no matrix.
int64_t vocab_size_of(const GgufConfig& gguf);

}  // namespace chorale::worker
