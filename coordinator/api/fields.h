// Typed reading of one JSON object's fields. A null field counts as absent. The first wrong type or value is kept as a
// Failure that names the field, later reads go on: a parser reads all it needs and asks for the failure once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/error.h"
#include "coordinator/api/json.h"

namespace chorale::coordinator::api {

enum class Bound { kInclusive, kExclusive };

class Fields {
 public:
  /// REQUIRES object.is_object(). `object` must outlive this.
  explicit Fields(const Json& object) : object_(object) {}

  /// Null where the field is absent or JSON null.
  const Json* find(std::string_view name) const;
  /// 16.0 counts as an integer, true and "16" do not.
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max);
  /// Finite and inside [min, max], or (min, max] with `lower` exclusive.
  std::optional<float> number(std::string_view name, double min, double max, Bound lower = Bound::kInclusive);
  std::optional<bool> boolean(std::string_view name);
  std::optional<std::string> string(std::string_view name);
  const Json* object(std::string_view name);
  /// Any 64-bit integer, signed or not, as its bits.
  std::optional<uint64_t> bits64(std::string_view name);
  /// A list of token ids in [0, vocab_size). `param` names the list in messages.
  std::vector<int32_t> token_ids(const Json& list, const std::string& param, int64_t vocab_size);

  void reject(std::string_view param, std::string message, ErrorCode code = ErrorCode::kInvalidArgument);
  const std::optional<Failure>& failure() const { return failure_; }

 private:
  const Json& object_;
  std::optional<Failure> failure_;
};

/// The value as an exact int64, if it is one.
std::optional<int64_t> exact_integer(const Json& value);
/// "a string", "null", ...: for messages.
std::string_view kind_of(const Json& value);

}  // namespace chorale::coordinator::api
