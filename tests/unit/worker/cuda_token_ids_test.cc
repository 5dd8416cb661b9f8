// resolve_ids and keep_ids, on the emulator or a GPU.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/token_ids.h"

namespace chorale::worker {
namespace {

constexpr int kCount = 300;  // three blocks

TEST(CudaTokenIds, TakesIdsFromThePlanOrFromTheTable) {
  TestDevice device;
  std::vector<int32_t> table(64), sources, wanted;
  std::iota(table.begin(), table.end(), 1000);
  for (int i = 0; i < kCount; ++i) {
    const int32_t slot = (i * 7) % 64;
    sources.push_back(i % 3 == 0 ? i : id_source_of_slot(slot));
    wanted.push_back(i % 3 == 0 ? i : 1000 + slot);
  }
  const Tensor on_device = device.upload(table), from = device.upload(sources);
  const Tensor ids(device.device(), DType::kI32, {kCount});
  resolve_ids(
      device.ctx(),
      {.sources = from.as<int32_t>(), .table = on_device.as<int32_t>(), .count = kCount, .ids = ids.as<int32_t>()});
  const Tensor got = device.download(ids);
  EXPECT_EQ(std::vector<int32_t>(got.as<int32_t>(), got.as<int32_t>() + kCount), wanted);
}

TEST(CudaTokenIds, KeepsTheIdsOfRowsThatHaveASlot) {
  TestDevice device;
  std::vector<int32_t> ids, slots, wanted(kCount, 0);
  for (int i = 0; i < kCount; ++i) {
    ids.push_back(500 + i);
    slots.push_back(i % 5 == 0 ? -1 : kCount - 1 - i);
    if (i % 5 != 0) wanted[static_cast<size_t>(kCount - 1 - i)] = 500 + i;
  }
  const Tensor from = device.upload(ids), places = device.upload(slots);
  const Tensor table(device.device(), DType::kI32, {kCount});
  keep_ids(device.ctx(),
           {.ids = from.as<int32_t>(), .slots = places.as<int32_t>(), .count = kCount, .table = table.as<int32_t>()});
  const Tensor got = device.download(table);
  EXPECT_EQ(std::vector<int32_t>(got.as<int32_t>(), got.as<int32_t>() + kCount), wanted);
}

}  // namespace
}  // namespace chorale::worker
