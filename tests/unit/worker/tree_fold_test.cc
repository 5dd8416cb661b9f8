// tree_fold gives the bits of comm's own sums for every schedule that a cluster can have, on the CPU and on a device.
#include "worker/ops/tree_fold.h"
#include "comm/tree_sum.h"
#include "tests/unit/worker/device_test_support.h"

namespace chorale::worker {
namespace {

void expect_same_sums(TestDevice& device, const comm::TreeSchedule& schedule, int64_t count, int64_t offset) {
  SCOPED_TRACE(schedule.to_string());
  const auto num_nodes = static_cast<int64_t>(schedule.nodes.size());
  std::vector<float> nodes = random_floats(num_nodes * count + offset, 9);
  for (size_t i = 0; i < nodes.size(); ++i) nodes[i] *= static_cast<float>(1 << (i * 7 % 23));  // order shows
  std::vector<const float*> rows;
  for (int64_t k = 0; k < num_nodes; ++k) rows.push_back(nodes.data() + offset + k * count);
  Tensor want(DType::kF32, {1, count}), out(DType::kF32, {1, count});
  comm::tree_sum(schedule, rows, static_cast<size_t>(count), want.as<float>());
  tree_fold(device.cpu(), {&schedule, nodes.data() + offset, count, out.as<float>()});
  EXPECT_TRUE(same_bits(out, want));

  TreeFoldArgs args{&schedule, nullptr, count, nullptr};
  const int kernels = for_each_device_kernel(device, args, [&](const Kernel<TreeFoldArgs>& kernel) {
    const Tensor there = device.upload(nodes);
    Tensor got(device.device(), DType::kF32, {1, count});
    args.nodes = there.as<float>() + offset;
    args.out = got.as<float>();
    kernel.launch(device.ctx(), args);
    EXPECT_TRUE(same_bits(device.download(got), want)) << count;
    args.out = there.as<float>() + offset;  // into its first row
    kernel.launch(device.ctx(), args);
    EXPECT_TRUE(same_bits(MatrixView(device.download(there)).columns(offset, offset + count), want)) << count;
  });
  EXPECT_GT(kernels, 0);
}

TEST(CudaTreeFold, AddsAsTheTreeSays) {
  TestDevice device;
  for (int leaves = 1; leaves <= 16; ++leaves)
    for (int ranks = 1; ranks <= leaves; ++ranks)
      expect_same_sums(device, comm::make_tree_schedule(leaves, comm::share_leaves(leaves, ranks)), 5, 0);
  // Uneven shares: runs that are several nodes each, and one that is empty.
  for (const auto& weights : std::vector<std::vector<double>>{{1, 2}, {3, 1, 1}, {1, 5, 1, 2, 4}, {1, 1, 7}})
    expect_same_sums(
        device, comm::make_tree_schedule(15, comm::share_leaves(15, static_cast<int>(weights.size()), weights)), 7, 0);
  expect_same_sums(device, comm::make_tree_schedule(16, {{0, 1}, {1, 1}, {1, 15}, {15, 16}}), 9, 0);
  std::vector<comm::LeafRange> singles;
  for (int leaf = 0; leaf < 32; ++leaf) singles.push_back({leaf, leaf + 1});
  expect_same_sums(device, comm::make_tree_schedule(32, singles), 3, 0);
}

TEST(CudaTreeFold, OfOddAndLargeCountsAndUnalignedNodes) {
  TestDevice device;
  const comm::TreeSchedule schedule = comm::make_tree_schedule(9, {{0, 4}, {4, 5}, {5, 9}});
  for (int64_t count : {1, 3, 4, 1023, 1024, 1025, 4096, 5001})
    for (int64_t offset : {0, 1}) expect_same_sums(device, schedule, count, offset);
}

}  // namespace
}  // namespace chorale::worker
