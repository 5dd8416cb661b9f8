// How a checkpoint stores numbers: plain types and GGUF's block-quantised ones. The planner needs sizes, the loader
// needs dequantisation (parallel/checkpoint/dequantize.h); arithmetic on quantised weights is a kernel's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chorale::parallel {

enum class StorageType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K };

std::string_view to_string(StorageType type);  // "F32", "Q4_K", ...
int block_elements(StorageType type);          // elements that share a block; 1 for plain types
int block_bytes(StorageType type);             // bytes of one block

}  // namespace chorale::parallel
