#include "parallel/architecture.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "comm/base/log.h"

namespace chorale::parallel {
namespace {

const Architecture* find_by(std::vector<std::string_view> Architecture::*names, std::string_view wanted) {
  for (const Architecture& entry : ArchitectureRegistry::all())
    if (std::ranges::find(entry.*names, wanted) != (entry.*names).end()) return &entry;
  return nullptr;
}

std::string known(std::vector<std::string_view> Architecture::*names) {
  std::string text;
  for (const Architecture& entry : ArchitectureRegistry::all())
    for (std::string_view name : entry.*names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

const Architecture& architecture_of_folder(const nlohmann::json& config) {
  const auto type = config.find("model_type");
  if (type == config.end() || !type->is_string())
    fail(ErrorCode::kCorrupt, "config.json: \"model_type\" is {}, expected one of: {}",
         type == config.end() ? "missing" : type->dump(), known(&Architecture::hf_model_types));
  const auto& name = type->get_ref<const std::string&>();
  const Architecture* entry = find_by(&Architecture::hf_model_types, name);
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "config.json: model_type \"{}\" is not supported; known: {}", name.substr(0, 64),
         known(&Architecture::hf_model_types));
  // Such weights are stored under other names and in other units; what is here would read them as plain numbers.
  if (const auto quantized = config.find("quantization_config"); quantized != config.end() && !quantized->is_null())
    fail(ErrorCode::kUnsupported,
         "config.json: \"quantization_config\" is not supported in a folder; use a GGUF file or unquantised weights");
  return *entry;
}

const Architecture& architecture_of_gguf(const GgufFile& file) {
  const std::string* name = file.get_string("general.architecture");
  if (name == nullptr) fail(ErrorCode::kCorrupt, "GGUF metadata lacks general.architecture");
  const Architecture* entry = find_by(&Architecture::gguf_architectures, *name);
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "GGUF general.architecture \"{}\" is not supported; known: {}", name->substr(0, 64),
         known(&Architecture::gguf_architectures));
  return *entry;
}

// generation_config.json replaces config.json's ids, as in Hugging Face's generate(). One id or a list of ids.
void read_generation_eos(const nlohmann::json& generation, ModelConfig& config) {
  if (!generation.is_object()) return;
  const auto found = generation.find("eos_token_id");
  if (found == generation.end() || found->is_null()) return;
  const std::vector<nlohmann::json> ids =
      found->is_array() ? found->get<std::vector<nlohmann::json>>() : std::vector<nlohmann::json>{*found};
  std::vector<int32_t> eos;
  for (const nlohmann::json& id : ids) {
    if (!id.is_number_integer())
      fail(ErrorCode::kCorrupt, "generation_config.json: \"eos_token_id\" is {}, expected an integer or a list of them",
           found->dump().substr(0, 64));
    const auto value = id.is_number_unsigned() && id.get<uint64_t>() > std::numeric_limits<int32_t>::max()
                           ? int64_t{-1}
                           : id.get<int64_t>();
    if (value >= 0 && value < config.vocab_size) eos.push_back(static_cast<int32_t>(value));
  }
  config.eos_ids = std::move(eos);
}

void drop_ids_outside(ModelConfig& config) {
  const auto is_outside = [&](int32_t id) { return id < 0 || id >= config.vocab_size; };
  if (config.bos_id && is_outside(*config.bos_id)) config.bos_id.reset();
  std::erase_if(config.eos_ids, is_outside);
  std::ranges::sort(config.eos_ids);
  config.eos_ids.erase(std::unique(config.eos_ids.begin(), config.eos_ids.end()), config.eos_ids.end());
}

// Of a folder without weights: what config.json promises, bf16 where it says nothing.
DType promised_dtype(const nlohmann::json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_string()) continue;
    const auto& name = found->get_ref<const std::string&>();
    return name == "float32" ? DType::kF32 : name == "float16" ? DType::kF16 : DType::kBF16;
  }
  return DType::kBF16;
}

// What most numbers are stored in; quantised ones count as bf16.
DType most_common_dtype(const Checkpoint& checkpoint) {
  std::array<double, 3> elements{};
  constexpr std::array<DType, 3> kTypes{DType::kF32, DType::kF16, DType::kBF16};
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const int slot = tensor.type == StorageType::kF32 ? 0 : tensor.type == StorageType::kF16 ? 1 : 2;
    elements[slot] += static_cast<double>(tensor.shape.num_elements());
  }
  return kTypes[std::ranges::max_element(elements) - elements.begin()];
}

std::string with_layer(std::string_view pattern, int layer) {
  const size_t hole = pattern.find("{}");
  if (hole == std::string_view::npos) return std::string(pattern);
  return std::string(pattern.substr(0, hole)) + std::to_string(layer) + std::string(pattern.substr(hole + 2));
}

const StoredTensor* find_any(const Checkpoint& checkpoint, std::string_view names, int layer) {
  while (!names.empty()) {
    const size_t bar = names.find('|');
    if (const StoredTensor* tensor = checkpoint.find(with_layer(names.substr(0, bar), layer))) return tensor;
    names = bar == std::string_view::npos ? std::string_view() : names.substr(bar + 1);
  }
  return nullptr;
}

std::string_view stored_names(const Checkpoint& checkpoint, const WeightSpec& spec) {
  return checkpoint.gguf() != nullptr ? spec.gguf : spec.hf;
}

// The other half of a tied pair: one matrix serves as embedding and as lm_head.
const StoredTensor* find_tied(const Checkpoint& checkpoint, const ModelConfig& config, Member member) {
  if (config.tied_lm_head == Presence::kAbsent) return nullptr;
  const Member other = member == Member::kLmHead ? Member::kEmbedding : Member::kLmHead;
  for (const WeightSpec& spec : architecture_of(config).weights(config))
    if (spec.member == other) return find_any(checkpoint, stored_names(checkpoint, spec), 0);
  return nullptr;
}

Shape stored_shape(const ModelConfig& config, const WeightSpec& spec, bool is_gguf) {
  const Shape shape = expected_shape(config, spec.member);
  if (shape.num_dims() == 1) return Shape{shape[0] * spec.num_parts};
  const Shape whole{shape[0] * spec.num_parts, shape[1]};
  return spec.hf_orientation == Orientation::kInOut && !is_gguf ? Shape{whole[1], whole[0]} : whole;
}

bool is_ignored(const Architecture& architecture, std::string_view name) {
  return std::ranges::any_of(architecture.ignored, [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace

ModelConfig load_model_config(const Checkpoint& checkpoint) {
  const GgufFile* gguf = checkpoint.gguf();
  const Architecture& entry =
      gguf != nullptr ? architecture_of_gguf(*gguf) : architecture_of_folder(checkpoint.config_json());
  ModelConfig config = gguf != nullptr ? entry.config_from_gguf(*gguf) : entry.config_from_hf(checkpoint.config_json());
  config.architecture = entry.name;
  if (gguf == nullptr) read_generation_eos(checkpoint.generation_config_json(), config);
  drop_ids_outside(config);
  config.stored_dtype =
      checkpoint.has_weights() ? most_common_dtype(checkpoint) : promised_dtype(checkpoint.config_json());
  config.validate();
  return config;
}

const StoredTensor* find_weight(const Checkpoint& checkpoint, const ModelConfig& config, const WeightSpec& spec,
                                int layer) {
  const std::string_view names = stored_names(checkpoint, spec);
  const StoredTensor* tensor = find_any(checkpoint, names, layer);
  if (tensor == nullptr && (spec.member == Member::kLmHead || spec.member == Member::kEmbedding))
    tensor = find_tied(checkpoint, config, spec.member);
  if (tensor == nullptr) {
    if (spec.need == Need::kOptional) return nullptr;
    const std::string first = with_layer(names.substr(0, names.find('|')), layer);
    fail(ErrorCode::kNotFound, "{} has no tensor \"{}\" ({} of a {} model); the checkpoint is incomplete",
         checkpoint.path().string(), first, to_string(spec.member), config.architecture);
  }
  const Shape wanted = stored_shape(config, spec, checkpoint.gguf() != nullptr);
  if (tensor->shape != wanted)
    fail(ErrorCode::kCorrupt, "{}: tensor \"{}\" has shape {}, but the configuration asks for {}",
         checkpoint.path().string(), tensor->name, tensor->shape.to_string(), wanted.to_string());
  return tensor;
}

void check_weights(const Checkpoint& checkpoint, const ModelConfig& config) {
  const Architecture& architecture = architecture_of(config);
  std::set<std::string_view> used;
  for (const WeightSpec& spec : architecture.weights(config))
    for (int layer = 0; layer < (is_layer_member(spec.member) ? config.num_layers : 1); ++layer)
      if (const StoredTensor* tensor = find_weight(checkpoint, config, spec, layer)) used.insert(tensor->name);

  size_t num_extra = 0;
  std::string names;
  const auto look_at = [&](const std::string& name) {
    if (used.contains(name) || is_ignored(architecture, name)) return;
    if (++num_extra <= 4) names += (names.empty() ? "" : ", ") + name.substr(0, 80);
  };
  for (const StoredTensor& tensor : checkpoint.tensors()) look_at(tensor.name);
  for (const Checkpoint::SkippedTensor& tensor : checkpoint.skipped_tensors()) look_at(tensor.name);
  if (num_extra > 0)
    log_warn("{}: {} tensors are not part of a {} model and stay unread: {}{}", checkpoint.path().string(), num_extra,
             config.architecture, names, num_extra > 4 ? ", ..." : "");
}

}  // namespace chorale::parallel
