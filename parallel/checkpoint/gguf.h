// Reads GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian):
// metadata and the table of tensors. The file stays mapped; tensor bytes are never copied here. Files are outside
// input: every offset, count and length is checked against the file's size, and a violation throws Error{kCorrupt} that
// names the key or tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "comm/base/tensor.h"
#include "parallel/checkpoint/storage_type.h"

namespace chorale::parallel {

class MappedFile;

/// One metadata value. Integers of every width arrive as int64_t (uint64 above the range is refused), float32/64 as
/// double. Strings are the file's bytes, not necessarily UTF-8.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
                               std::vector<bool>, std::vector<std::string>>;

/// A tensor as it lies in the file. `shape` is row-major like Hugging Face's: [out, in] for a linear weight (GGUF's own
/// order reversed).
struct StoredTensor {
  std::string name;
  StorageType type = StorageType::kF32;
  Shape shape;                       // at most 4 dims; a block-quantised row is whole blocks
  std::span<const std::byte> bytes;  // whole, checked against the file; not necessarily aligned
  const MappedFile* file = nullptr;  // where `bytes` lie, for check_not_truncated(); nullptr when parsed from memory
};

class GgufFile {
 public:
  /// Throws Error{kNotFound | kCorrupt | kUnsupported}. Refused by name: version 1, big-endian files, split files,
  /// nested arrays, tensor types without a StorageType. A file without tensors (a vocabulary) is fine.
  static GgufFile open(const std::filesystem::path& path);
  /// Same, from memory (fuzzing, tests); `bytes` must outlive the result. Allocates a small multiple of bytes.size() at
  /// most.
  static GgufFile parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& name() const { return name_; }  // the path, for messages
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const;
  /// Typed access: nullopt / nullptr when the key is absent; Error{kCorrupt} naming the key when its type is another.
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;  // accepts integers
  std::optional<bool> get_bool(std::string_view key) const;
  const std::string* get_string(std::string_view key) const;
  const std::vector<std::string>* get_strings(std::string_view key) const;
  const std::vector<int64_t>* get_ints(std::string_view key) const;
  const std::vector<double>* get_floats(std::string_view key) const;

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the file's order

 private:
  template <typename T>
  const T* get(std::string_view key, std::string_view wanted) const;

  std::string name_;
  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace chorale::parallel
