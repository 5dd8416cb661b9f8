#include "worker/models/config_reader.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {

std::string expected_range(IntRange range) { return fmt::format("an integer from {} to {}", range.min, range.max); }

std::string expected_range(double min, double max) { return fmt::format("a number from {} to {}", min, max); }

bool is_within(double value, double min, double max) { return std::isfinite(value) && value >= min && value <= max; }

}  // namespace

JsonConfig::JsonConfig(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail(ErrorCode::kCorrupt, "{} is a JSON {}, expected an object", where_, object.type_name());
}

const nlohmann::json* JsonConfig::find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool JsonConfig::contains(std::string_view key) const { return object_.contains(key); }

void JsonConfig::wrong(std::string_view key, std::string_view expected) const {
  const nlohmann::json* value = find(key);
  const std::string shown =
      value == nullptr ? "missing" : value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 60);
  fail(ErrorCode::kCorrupt, "{}: \"{}\" is {}, expected {}", where_, key, shown, expected);
}

void JsonConfig::refuse(std::string_view key, std::string_view supported) const {
  const nlohmann::json* value = find(key);
  const std::string shown =
      value == nullptr ? "absent" : value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 60);
  fail(ErrorCode::kUnsupported, "{}: \"{}\" = {} is not supported; supported: {}", where_, key, shown, supported);
}

std::optional<int64_t> JsonConfig::find_int(std::string_view key, IntRange range) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const bool is_huge = value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(range.max);
  if (!value->is_number_integer() || is_huge || value->get<int64_t>() < range.min || value->get<int64_t>() > range.max)
    wrong(key, expected_range(range));
  return value->get<int64_t>();
}

int64_t JsonConfig::get_int(std::string_view key, IntRange range) const {
  const auto value = find_int(key, range);
  if (!value) wrong(key, expected_range(range));
  return *value;
}

std::optional<double> JsonConfig::find_float(std::string_view key, double min, double max) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !is_within(value->get<double>(), min, max)) wrong(key, expected_range(min, max));
  return value->get<double>();
}

double JsonConfig::get_float(std::string_view key, double min, double max) const {
  const auto value = find_float(key, min, max);
  if (!value) wrong(key, expected_range(min, max));
  return *value;
}

std::optional<bool> JsonConfig::find_bool(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) wrong(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonConfig::find_string(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) wrong(key, "a string");
  return value->get<std::string>();
}

std::optional<std::vector<std::string>> JsonConfig::find_strings(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array()) wrong(key, "a list of strings");
  std::vector<std::string> strings;
  for (const nlohmann::json& item : *value) {
    if (!item.is_string()) wrong(key, "a list of strings");
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

std::vector<int32_t> JsonConfig::find_ids(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return {};
  std::vector<int32_t> ids;
  const auto add = [&](const nlohmann::json& item) {
    if (!item.is_number_integer()) wrong(key, "a token id or a list of token ids");
    const double id = item.get<double>();  // exact where it matters: ids fit 31 bits
    if (id >= 0 && id <= std::numeric_limits<int32_t>::max()) ids.push_back(item.get<int32_t>());
  };
  if (value->is_array())
    for (const nlohmann::json& item : *value) add(item);
  else
    add(*value);
  return ids;
}

std::optional<JsonConfig> JsonConfig::find_object(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) wrong(key, "an object");
  return JsonConfig(*value, fmt::format("{}: \"{}\"", where_, key));
}

void JsonConfig::require_false(std::string_view key) const {
  if (find_bool(key).value_or(false)) refuse(key, "false");
}

GgufConfig::GgufConfig(const parallel::GgufFile& file) : file_(file) {
  const std::string* name = file.get_string("general.architecture");
  CHECK(name != nullptr);  // the architecture was found by it
  prefix_ = *name + ".";
}

std::optional<int64_t> GgufConfig::find_int(std::string_view key, IntRange range) const {
  const auto value = file_.get_int(full_key(key));
  if (value && (*value < range.min || *value > range.max))
    fail(ErrorCode::kCorrupt, "GGUF metadata: {} is {}, expected {}", full_key(key), *value, expected_range(range));
  return value;
}

int64_t GgufConfig::get_int(std::string_view key, IntRange range) const {
  const auto value = find_int(key, range);
  if (!value) fail(ErrorCode::kCorrupt, "GGUF metadata lacks {}, expected {}", full_key(key), expected_range(range));
  return *value;
}

std::optional<double> GgufConfig::find_float(std::string_view key, double min, double max) const {
  const auto value = file_.get_float(full_key(key));
  if (value && !is_within(*value, min, max))
    fail(ErrorCode::kCorrupt, "GGUF metadata: {} is {}, expected {}", full_key(key), *value, expected_range(min, max));
  return value;
}

double GgufConfig::get_float(std::string_view key, double min, double max) const {
  const auto value = find_float(key, min, max);
  if (!value) fail(ErrorCode::kCorrupt, "GGUF metadata lacks {}, expected {}", full_key(key), expected_range(min, max));
  return *value;
}

const std::string* GgufConfig::find_string(std::string_view key) const { return file_.get_string(full_key(key)); }

const parallel::StoredTensor* GgufConfig::find_tensor(std::string_view name) const {
  for (const parallel::StoredTensor& tensor : file_.tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

void read_special_ids(const JsonConfig& json, parallel::ModelConfig& config) {
  const std::vector<int32_t> bos = json.find_ids("bos_token_id");
  if (bos.empty())
    config.bos_id = std::nullopt;
  else
    config.bos_id = bos.front();
  config.eos_ids = json.find_ids("eos_token_id");
}

void read_special_ids(const GgufConfig& gguf, parallel::ModelConfig& config) {
  const auto id_of = [&](std::string_view key) -> std::optional<int32_t> {
    const auto id = gguf.file().get_int(key);
    if (!id || *id < 0 || *id >= config.vocab_size) return std::nullopt;
    return static_cast<int32_t>(*id);
  };
  config.bos_id = id_of("tokenizer.ggml.bos_token_id");
  for (std::string_view key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const auto id = id_of(key)) config.eos_ids.push_back(*id);
}

int64_t vocab_size_of(const GgufConfig& gguf) {
  const parallel::StoredTensor* table = gguf.find_tensor("token_embd.weight");
  if (table == nullptr)
    fail(ErrorCode::kNotFound, "the GGUF file has no tensor token_embd.weight; a vocabulary alone is not a model");
  if (table->shape.num_dims() != 2 || table->shape[0] < kSizeRange.min || table->shape[0] > kSizeRange.max)
    fail(ErrorCode::kCorrupt, "GGUF tensor token_embd.weight has shape {}, expected [vocabulary, hidden]",
         table->shape.to_string());
  return table->shape[0];
}

}  // namespace chorale::worker
