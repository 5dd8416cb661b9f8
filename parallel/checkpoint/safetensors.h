// Reads one safetensors file (https://github.com/huggingface/safetensors, section Format): the table of tensors;
// `__metadata__` is ignored. Checkpoint opens the files of a folder with it. Files are outside input: every rule of the
// format is checked, and a violation throws Error{kCorrupt} that names the tensor. Bytes are neither copied nor
// converted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/checkpoint/storage_type.h"

namespace chorale::parallel {

class MappedFile;

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as the file spells it: "F32", "I64", ...
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // whole, checked against dtype, shape and file
};

class SafetensorsFile {
 public:
  /// Throws Error{kNotFound | kCorrupt}.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// Same, from memory (fuzzing, tests); `bytes` must outlive the result.
  static SafetensorsFile parse(std::span<const std::byte> bytes, const std::string& name);

  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // sorted by name
  const SafetensorsEntry* find(std::string_view name) const;
  const MappedFile* file() const { return file_.get(); }  // nullptr when parsed from memory

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<SafetensorsEntry> entries_;
};

/// The types that tensors can be loaded from: F32, F16, BF16. nullopt for the others (I64, BOOL, F8_E4M3, ...).
std::optional<StorageType> storage_type_of_safetensors(std::string_view dtype);

}  // namespace chorale::parallel
