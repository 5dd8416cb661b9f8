// KV blocks by id: who uses them, which are free, and which free ones still hold tokens worth finding again (prefix
// cache, N9). The scheduler is the only caller. Pure bookkeeping: no byte of a block is touched, and nothing here knows
// a sequence or a step.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "parallel/layout.h"

namespace chorale::coordinator {

/// Names the content of one full block together with everything before it. Never reused, so that an evicted parent can
/// not be mistaken for another block that later has its id.
using ContentId = uint64_t;
constexpr ContentId kRootContent = 0;  // the parent of a sequence's first block

/// What a hit compares: the parent's content and all token ids. The hash only finds the bucket.
struct BlockKey {
  ContentId parent = kRootContent;
  std::array<int32_t, parallel::kBlockTokens> tokens{};
  bool operator==(const BlockKey&) const = default;
};
struct BlockKeyHash {
  size_t operator()(const BlockKey& key) const;
};

/// A full block that a completed step filled.
struct CachedBlock {
  int32_t block = 0;
  ContentId content = kRootContent;
};

/// The blocks [0, num_blocks) of every rank.
///
///   never used / forgotten  --allocate-->  used (references > 0)  --release-->  free, findable if published (LRU)
///            ^                                     ^                                   |            |
///            |                                     +--------------- acquire -----------+            |
///            +------------------------------------- evicted by allocate ---------------------------+
class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks);

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  /// Blocks nobody uses: what allocate can give, counting those it would evict.
  int64_t num_free() const { return static_cast<int64_t>(empty_.size() + lru_.size()); }
  int64_t num_used() const { return num_blocks() - num_free(); }

  /// A block with one reference and no content. Evicts the least recently released one if it must. REQUIRES: num_free()
  /// > 0.
  int32_t allocate();
  /// One more user of a published block.
  void acquire(int32_t block);
  /// One user less. A published block without users stays findable until it is evicted. Release a sequence's blocks
  /// from the last to the first: then a block is evicted before its parent, without which it could not be found.
  void release(int32_t block);

  /// The longest run of blocks that hold the start of `tokens`, each with its parent, at most `max_blocks`. Takes no
  /// reference.
  std::vector<CachedBlock> find(std::span<const int32_t> tokens, int64_t max_blocks) const;
  /// Makes a used, full block findable. REQUIRES: the step that filled it completed. Returns the content's id; where
  /// another block already holds the same content that one stays the findable one, and its content id is returned.
  ContentId publish(int32_t block, ContentId parent, std::span<const int32_t> tokens);

  int references(int32_t block) const { return blocks_[static_cast<size_t>(block)].references; }
  /// CHECKs that the lists, the index and the counts agree.
  void check_integrity() const;

 private:
  struct Block {
    int references = 0;
    ContentId content = kRootContent;  // kRootContent: not findable
    BlockKey key;                      // of the entry in index_, where content is set
    std::list<int32_t>::iterator place_in_lru;
  };
  Block& at(int32_t block) { return blocks_[static_cast<size_t>(block)]; }

  std::vector<Block> blocks_;
  std::vector<int32_t> empty_;  // free without content; taken from the back
  std::list<int32_t> lru_;      // free with content; the front is evicted first
  std::unordered_map<BlockKey, CachedBlock, BlockKeyHash> index_;
  ContentId next_content_ = kRootContent + 1;
};

}  // namespace chorale::coordinator
