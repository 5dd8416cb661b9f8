// Encoding of the project's own messages: little-endian, length-prefixed, bounds-checked on reading. Used by the
// cluster plan, step plan and control link; not a file format and not a general serialiser.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "comm/base/error.h"

namespace chorale {

using Bytes = std::vector<std::byte>;

template <typename T>
concept Scalar = std::is_arithmetic_v<T> || std::is_enum_v<T>;

class ByteWriter {
 public:
  template <Scalar T>
  void put(T value) {
    append(&value, sizeof(T));
  }
  void put(std::string_view text) {
    put(static_cast<uint32_t>(text.size()));
    append(text.data(), text.size());
  }
  template <Scalar T>
  void put(std::span<const T> values) {
    put(static_cast<uint32_t>(values.size()));
    append(values.data(), values.size_bytes());
  }
  template <Scalar T>
  void put(const std::vector<T>& values) {
    put(std::span<const T>(values));
  }
  Bytes take() { return std::move(bytes_); }

 private:
  void append(const void* data, size_t size) {
    const size_t end = bytes_.size();
    bytes_.resize(end + size);
    if (size > 0) std::memcpy(bytes_.data() + end, data, size);
  }
  Bytes bytes_;
};

/// Reads what ByteWriter wrote. Throws Error{kCorrupt} when the bytes end early or a length lies.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <Scalar T>
  T get() {
    T value;
    std::memcpy(&value, need(sizeof(T)), sizeof(T));
    return value;
  }
  template <Scalar T>
  void get(T& value) {
    value = get<T>();
  }
  std::string get_string() {
    const auto size = get<uint32_t>();
    return std::string(reinterpret_cast<const char*>(need(size)), size);
  }
  template <Scalar T>
  std::vector<T> get_vector() {
    const auto size = get<uint32_t>();
    if (size > rest_.size() / sizeof(T)) fail(ErrorCode::kCorrupt, "message ends inside a list of {} items", size);
    std::vector<T> values(size);
    if (size > 0) std::memcpy(values.data(), need(size * sizeof(T)), size * sizeof(T));
    return values;
  }
  /// Reads a count of items that take at least `min_item_bytes` each, so that a lying count cannot make the caller
  /// allocate.
  uint32_t get_count(size_t min_item_bytes) {
    const auto count = get<uint32_t>();
    if (min_item_bytes > 0 && count > rest_.size() / min_item_bytes)
      fail(ErrorCode::kCorrupt, "message claims {} items in {} bytes", count, rest_.size());
    return count;
  }
  size_t remaining() const { return rest_.size(); }
  void expect_end() const {
    if (!rest_.empty()) fail(ErrorCode::kCorrupt, "{} unexpected bytes at the end of a message", rest_.size());
  }

 private:
  const std::byte* need(size_t size) {
    if (size > rest_.size()) fail(ErrorCode::kCorrupt, "message ends {} bytes early", size - rest_.size());
    const std::byte* p = rest_.data();
    rest_ = rest_.subspan(size);
    return p;
  }
  std::span<const std::byte> rest_;
};

}  // namespace chorale
