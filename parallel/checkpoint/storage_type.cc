#include "parallel/checkpoint/storage_type.h"

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

struct Entry {
  StorageType type;
  std::string_view name;
  int elements;
  int bytes;
};

// In the order of the enumerators.
constexpr Entry kEntries[] = {
    {StorageType::kF32, "F32", 1, 4},       {StorageType::kF16, "F16", 1, 2},
    {StorageType::kBF16, "BF16", 1, 2},     {StorageType::kQ8_0, "Q8_0", 32, 34},
    {StorageType::kQ4_0, "Q4_0", 32, 18},   {StorageType::kQ4_1, "Q4_1", 32, 20},
    {StorageType::kQ5_0, "Q5_0", 32, 22},   {StorageType::kQ5_1, "Q5_1", 32, 24},
    {StorageType::kQ4_K, "Q4_K", 256, 144}, {StorageType::kQ5_K, "Q5_K", 256, 176},
    {StorageType::kQ6_K, "Q6_K", 256, 210},
};

const Entry& entry(StorageType type) {
  const auto i = static_cast<size_t>(type);
  CHECK_LT(i, std::size(kEntries));
  return kEntries[i];
}

}  // namespace

std::string_view to_string(StorageType type) { return entry(type).name; }
int block_elements(StorageType type) { return entry(type).elements; }
int block_bytes(StorageType type) { return entry(type).bytes; }

}  // namespace chorale::parallel
