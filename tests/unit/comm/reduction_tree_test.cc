#include "comm/reduction_tree.h"

#include <bit>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "comm/tree_sum.h"

namespace chorale::comm {
namespace {

/// The definition, written once more and without a schedule: the sum of node [a, b).
float serial_sum(const std::vector<float>& leaves, LeafRange node) {
  if (node.size() == 1) return leaves[node.begin];
  const int middle = node.begin + (node.size() - node.size() / 2);
  return serial_sum(leaves, {node.begin, middle}) + serial_sum(leaves, {middle, node.end});
}

/// Leaf sums of which nearly every order of additions rounds differently.
std::vector<float> awkward_leaves(int count) {
  std::vector<float> leaves(count);
  uint32_t state = 12345;
  for (float& leaf : leaves) {
    state = state * 1664525u + 1013904223u;
    leaf = static_cast<float>(static_cast<int32_t>(state)) * std::ldexp(1.0f, static_cast<int>(state >> 28) - 20);
  }
  return leaves;
}

float sum_by_schedule(const std::vector<float>& leaves, const std::vector<LeafRange>& runs) {
  const TreeSchedule schedule = make_tree_schedule(static_cast<int>(leaves.size()), runs);
  std::vector<float> partials;
  for (const LeafRange& node : schedule.nodes) partials.push_back(serial_sum(leaves, node));
  std::vector<const float*> nodes;
  for (const float& partial : partials) nodes.push_back(&partial);
  float root = 0;
  tree_sum(schedule, nodes, 1, &root);
  return root;
}

TEST(ReductionTree, SplitsTheLargerHalfToTheLeft) {
  EXPECT_EQ(split_point({0, 9}), 5);
  EXPECT_EQ(split_point({5, 9}), 7);
  EXPECT_EQ(split_point({3, 5}), 4);
}

TEST(ReductionTree, CoversARunWithMaximalNodes) {
  EXPECT_EQ(maximal_nodes(9, {0, 9}), (std::vector<LeafRange>{{0, 9}}));
  EXPECT_EQ(maximal_nodes(9, {3, 6}), (std::vector<LeafRange>{{3, 5}, {5, 6}}));
  EXPECT_EQ(maximal_nodes(16, {1, 15}), (std::vector<LeafRange>{{1, 2}, {2, 4}, {4, 8}, {8, 12}, {12, 14}, {14, 15}}));
  EXPECT_TRUE(maximal_nodes(9, {4, 4}).empty());
  EXPECT_THROW(maximal_nodes(9, {4, 10}), Error);
}

TEST(ReductionTree, SharesOfAPowerOfTwoAreOneNodeEach) {
  EXPECT_EQ(share_leaves(9, 2), (std::vector<LeafRange>{{0, 5}, {5, 9}}));
  EXPECT_EQ(share_leaves(9, 4), (std::vector<LeafRange>{{0, 3}, {3, 5}, {5, 7}, {7, 9}}));
  for (int leaves = 8; leaves <= 40; ++leaves) {
    const TreeSchedule schedule = make_tree_schedule(leaves, share_leaves(leaves, 8));
    EXPECT_EQ(schedule.nodes.size(), 8u);
    ASSERT_EQ(schedule.additions.size(), 7u);
    EXPECT_EQ(schedule.additions[0].left, 0);
    EXPECT_EQ(schedule.additions[0].right, 1);
    EXPECT_EQ(schedule.additions[6].right, 4);
  }
}

TEST(ReductionTree, SharesGiveEveryRankALeafAndFollowWeights) {
  for (int leaves = 1; leaves <= 33; ++leaves) {
    for (int ranks = 1; ranks <= leaves; ++ranks) {
      const auto shares = share_leaves(leaves, ranks);
      ASSERT_EQ(shares.size(), static_cast<size_t>(ranks));
      for (const LeafRange& share : shares) {
        EXPECT_GE(share.size(), 1);
        EXPECT_LE(share.size(), leaves / ranks + 1);
      }
    }
  }
  EXPECT_EQ(share_leaves(16, 3, {2, 1, 1}), (std::vector<LeafRange>{{0, 8}, {8, 12}, {12, 16}}));
  EXPECT_EQ(share_leaves(4, 3, {100, 1, 1}), (std::vector<LeafRange>{{0, 2}, {2, 3}, {3, 4}}));
  EXPECT_EQ(share_leaves(9, 2, {1, 1}), share_leaves(9, 2));
}

TEST(ReductionTree, RefusesSharesThatCannotBe) {
  try {
    share_leaves(9, 10);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("10"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("9"), std::string::npos);
  }
  EXPECT_THROW(share_leaves(9, 2, {1}), Error);
  EXPECT_THROW(share_leaves(9, 2, {1, 0}), Error);
  EXPECT_THROW(make_tree_schedule(4, {{0, 2}, {3, 4}}), Error);
  EXPECT_THROW(make_tree_schedule(4, {{0, 2}}), Error);
  EXPECT_THROW(make_tree_schedule(0, {}), Error);
}

TEST(ReductionTree, EveryCutGivesTheSerialBits) {
  for (int leaves = 1; leaves <= 17; ++leaves) {
    const auto values = awkward_leaves(leaves);
    const auto expected = std::bit_cast<uint32_t>(serial_sum(values, {0, leaves}));
    for (int ranks = 1; ranks <= leaves; ++ranks)
      EXPECT_EQ(std::bit_cast<uint32_t>(sum_by_schedule(values, share_leaves(leaves, ranks))), expected);
    for (int a = 0; a <= leaves; ++a)
      for (int b = a; b <= leaves; ++b)
        ASSERT_EQ(std::bit_cast<uint32_t>(sum_by_schedule(values, {{0, a}, {a, b}, {b, leaves}})), expected)
            << leaves << " leaves cut at " << a << " and " << b;
  }
}

TEST(ReductionTree, ALeftToRightSumWouldFailTheseTests) {
  const auto values = awkward_leaves(16);
  float sum = 0;
  for (float value : values) sum += value;
  EXPECT_NE(sum, serial_sum(values, {0, 16}));
}

TEST(TreeSum, AddsLongVectorsIntoANodesOwnMemory) {
  const TreeSchedule schedule = make_tree_schedule(3, {{0, 1}, {1, 2}, {2, 3}});
  constexpr size_t kCount = 1301;
  std::vector<std::vector<float>> partials(3, std::vector<float>(kCount));
  std::vector<float> expected(kCount);
  for (size_t i = 0; i < kCount; ++i) {
    const auto leaves = awkward_leaves(3 + static_cast<int>(i));
    for (int k = 0; k < 3; ++k) partials[k][i] = leaves[i + k];
    expected[i] = (partials[0][i] + partials[1][i]) + partials[2][i];
  }
  const float* nodes[] = {partials[0].data(), partials[1].data(), partials[2].data()};
  tree_sum(schedule, nodes, kCount, partials[0].data());
  EXPECT_EQ(partials[0], expected);
}

}  // namespace
}  // namespace chorale::comm
