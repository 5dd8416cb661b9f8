// Builds checkpoint files for tests: GGUF and safetensors as bytes, one field at a time, so that a case can break any
// of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "comm/base/error.h"

namespace chorale::parallel {

/// Appends raw little-endian values.
class FileBytes {
 public:
  template <typename T>
  FileBytes& put(T value) {
    const auto* p = reinterpret_cast<const char*>(&value);
    bytes_.append(p, sizeof(T));
    return *this;
  }
  FileBytes& raw(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  FileBytes& text(std::string_view text) { return put(uint64_t{text.size()}).raw(text); }  // GGUF string
  FileBytes& pad_to(size_t alignment, size_t extra = 0) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + extra);
    return *this;
  }
  const std::string& str() const { return bytes_; }

 private:
  std::string bytes_;
};

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

inline FileBytes gguf_header(uint64_t num_tensors, uint64_t num_keys, uint32_t version = 3) {
  return FileBytes().raw("GGUF").put(version).put(num_tensors).put(num_keys);
}

/// One row of GGUF's table of tensors; dims in GGUF's order, fastest first.
inline std::string gguf_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                               uint64_t offset) {
  FileBytes row;
  row.text(name).put(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) row.put(dim);
  return row.put(type).put(offset).str();
}

/// A safetensors file: length, `json`, then `data_bytes` zeros.
inline std::string safetensors(std::string_view json, size_t data_bytes = 0) {
  return FileBytes().put(uint64_t{json.size()}).raw(json).raw(std::string(data_bytes, '\0')).str();
}

/// Runs `action`; expects Error{code} whose message is one line and contains `part`.
template <typename Action>
void expect_error(Action action, ErrorCode code, std::string_view part) {
  try {
    action();
    ADD_FAILURE() << "no error; expected: " << part;
  } catch (const Error& e) {
    const std::string_view message = e.what();
    EXPECT_EQ(to_string(e.code()), to_string(code)) << message;
    EXPECT_NE(message.find(part), std::string_view::npos) << "message: " << message << "\nexpected: " << part;
    EXPECT_EQ(message.find('\n'), std::string_view::npos) << message;
    EXPECT_LT(message.size(), 600u) << message;
  }
}

}  // namespace chorale::parallel
