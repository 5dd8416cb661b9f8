#include "coordinator/schedule/block_pool.h"

#include <numeric>

#include <gtest/gtest.h>

namespace chorale::coordinator {
namespace {

std::vector<int32_t> tokens_from(int32_t first, int count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

/// Fills and publishes a chain of blocks for `tokens`; they keep one reference each.
std::vector<int32_t> fill(BlockPool& pool, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> blocks;
  ContentId parent = kRootContent;
  for (size_t i = 0; i + 16 <= tokens.size(); i += 16) {
    blocks.push_back(pool.allocate());
    parent = pool.publish(blocks.back(), parent, std::span(tokens).subspan(i, 16));
  }
  return blocks;
}

void release_all(BlockPool& pool, const std::vector<int32_t>& blocks) {
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) pool.release(*block);
}

TEST(BlockPool, FindsWholeBlocksOfACommonStart) {
  BlockPool pool(8);
  auto tokens = tokens_from(100, 48);
  const auto blocks = fill(pool, tokens);
  tokens[40] = 7;  // the third block differs
  const auto found = pool.find(tokens, 8);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].block, blocks[0]);
  EXPECT_EQ(found[1].block, blocks[1]);
  EXPECT_EQ(pool.find(tokens, 1).size(), 1U);
  EXPECT_TRUE(pool.find(tokens_from(100, 15), 8).empty());
  pool.check_integrity();
}

TEST(BlockPool, ComparesTheParentAndNotOnlyTheTokens) {
  BlockPool pool(8);
  auto first = tokens_from(0, 16);
  auto same_tail = tokens_from(500, 16);
  auto a = first;
  a.insert(a.end(), same_tail.begin(), same_tail.end());
  fill(pool, a);
  auto b = tokens_from(1, 16);
  fill(pool, b);
  b.insert(b.end(), same_tail.begin(), same_tail.end());
  EXPECT_EQ(pool.find(b, 8).size(), 1U);  // same second block, other parent
}

TEST(BlockPool, AnEvictedParentIsNotMistakenForItsSuccessor) {
  BlockPool pool(2);
  auto a = tokens_from(0, 32);
  const auto blocks = fill(pool, a);
  pool.release(blocks[0]);  // the wrong order on purpose: the parent goes first
  const int32_t reused = pool.allocate();
  ASSERT_EQ(reused, blocks[0]);
  auto b = tokens_from(1000, 16);
  pool.publish(reused, kRootContent, b);
  b.insert(b.end(), a.begin() + 16, a.end());
  EXPECT_EQ(pool.find(b, 8).size(), 1U);
  pool.check_integrity();
}

TEST(BlockPool, EvictsTheLeastRecentlyReleasedAndChildrenBeforeParents) {
  BlockPool pool(4);
  const auto a = tokens_from(0, 32);
  const auto b = tokens_from(100, 32);
  const auto blocks_a = fill(pool, a);
  const auto blocks_b = fill(pool, b);
  release_all(pool, blocks_a);
  release_all(pool, blocks_b);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.allocate(), blocks_a[1]);
  EXPECT_EQ(pool.find(a, 8).size(), 1U);
  EXPECT_EQ(pool.find(b, 8).size(), 2U);
  pool.check_integrity();
}

TEST(BlockPool, AHitTakesAFreeBlockOutOfTheEvictionList) {
  BlockPool pool(2);
  const auto a = tokens_from(0, 16);
  release_all(pool, fill(pool, a));
  const auto found = pool.find(a, 1);
  ASSERT_EQ(found.size(), 1U);
  pool.acquire(found[0].block);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_NE(pool.allocate(), found[0].block);
  EXPECT_EQ(pool.num_free(), 0);
  pool.check_integrity();
}

TEST(BlockPool, TheFirstOfTwoEqualBlocksStaysTheFindableOne) {
  BlockPool pool(3);
  const auto a = tokens_from(0, 16);
  const int32_t first = pool.allocate();
  const int32_t second = pool.allocate();
  const ContentId content = pool.publish(first, kRootContent, a);
  EXPECT_EQ(pool.publish(second, kRootContent, a), content);
  pool.release(second);
  EXPECT_EQ(pool.find(a, 1)[0].block, first);
  EXPECT_EQ(pool.allocate(), second);  // never findable, so it is empty at once
  pool.check_integrity();
}

}  // namespace
}  // namespace chorale::coordinator
