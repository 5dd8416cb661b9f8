#include "parallel/checkpoint/gguf.h"

#include "comm/base/error.h"
#include "parallel/checkpoint/gguf_reader.h"
#include "parallel/checkpoint/mapped_file.h"
#include "parallel/checkpoint/show_name.h"

namespace chorale::parallel {
namespace {

// By the index of the alternative in GgufValue.
constexpr std::string_view kKinds[] = {"a bool",          "an integer",         "a float",
                                       "a string",        "a list of integers", "a list of floats",
                                       "a list of bools", "a list of strings"};

}  // namespace

GgufFile GgufFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<const MappedFile>(MappedFile::open(path));
  GgufFile result = parse(file->bytes(), path.string());
  for (StoredTensor& tensor : result.tensors_) tensor.file = file.get();
  result.file_ = std::move(file);
  return result;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  GgufReader reader(bytes, name);
  GgufFile result;
  result.name_ = name;
  const GgufHeader header = reader.read_header();
  result.metadata_ = reader.read_metadata(header.num_keys);
  if (result.get_int("split.count").value_or(0) > 1)
    fail(ErrorCode::kUnsupported,
         "{}: part of a split GGUF file ({} parts); join them with `llama-gguf-split --merge` first", name,
         *result.get_int("split.count"));
  const int64_t alignment = result.get_int("general.alignment").value_or(32);
  if (alignment <= 0 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0)
    fail(ErrorCode::kCorrupt, "{}: general.alignment is {}, expected a power of two up to 1048576", name, alignment);
  result.tensors_ = reader.read_tensors(header.num_tensors, static_cast<uint64_t>(alignment));
  return result;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

template <typename T>
const T* GgufFile::get(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr)
    fail(ErrorCode::kCorrupt, "{}: metadata key {} is {}, expected {}", name_, show_name(key), kKinds[value->index()],
         wanted);
  return typed;
}

std::optional<int64_t> GgufFile::get_int(std::string_view key) const {
  const auto* value = get<int64_t>(key, "an integer");
  return value == nullptr ? std::nullopt : std::optional<int64_t>(*value);
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value != nullptr && std::holds_alternative<int64_t>(*value))
    return static_cast<double>(std::get<int64_t>(*value));
  const auto* typed = get<double>(key, "a number");
  return typed == nullptr ? std::nullopt : std::optional<double>(*typed);
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const auto* value = get<bool>(key, "a bool");
  return value == nullptr ? std::nullopt : std::optional<bool>(*value);
}

const std::string* GgufFile::get_string(std::string_view key) const { return get<std::string>(key, "a string"); }

const std::vector<std::string>* GgufFile::get_strings(std::string_view key) const {
  return get<std::vector<std::string>>(key, "a list of strings");
}

const std::vector<int64_t>* GgufFile::get_ints(std::string_view key) const {
  return get<std::vector<int64_t>>(key, "a list of integers");
}

const std::vector<double>* GgufFile::get_floats(std::string_view key) const {
  return get<std::vector<double>>(key, "a list of floats");
}

}  // namespace chorale::parallel
