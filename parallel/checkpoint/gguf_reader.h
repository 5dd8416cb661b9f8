// Walks the bytes of a GGUF file for GgufFile (gguf.h): header, metadata, table of tensors, in this order. Private to
// this folder. Every count is compared with the bytes that are left before anything is allocated.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/checkpoint/gguf.h"

namespace chorale::parallel {

struct GgufHeader {
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
};

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, const std::string& file_name) : bytes_(bytes), file_(file_name) {}

  GgufHeader read_header();
  std::map<std::string, GgufValue, std::less<>> read_metadata(uint64_t num_keys);
  /// The tensors' bytes start at the next multiple of `alignment` after the table.
  std::vector<StoredTensor> read_tensors(uint64_t num_tensors, uint64_t alignment);

 private:
  struct Info;  // one row of the table
  template <typename T>
  T get(std::string_view what);
  std::string_view get_string(std::string_view what);
  GgufValue get_value(std::string_view key, uint32_t type);
  GgufValue get_array(std::string_view key);
  template <typename T, typename Stored>
  std::vector<T> get_numbers(std::string_view key, uint64_t count);
  void check_count(std::string_view what, uint64_t count, uint64_t min_item_bytes) const;
  StoredTensor get_info(uint64_t& offset, uint64_t& size);

  std::span<const std::byte> bytes_;
  const std::string& file_;
  size_t position_ = 0;
};

}  // namespace chorale::parallel
