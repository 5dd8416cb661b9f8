// The greedy merging that all byte-pair encodings share (Sennrich et al., 2016): of all neighbouring pairs the one with
// the lowest rank, leftmost first, becomes one symbol, until no pair can. Used by the BPE and SentencePiece models.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace chorale::coordinator::text {

/// What a pair of ids becomes. Open addressing, since encoding is mostly look-ups here.
class PairTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  explicit PairTable(size_t num_pairs);
  enum class IfPresent { kKeep, kReplace };
  void add(int32_t left, int32_t right, Merge merge, IfPresent if_present);
  /// nullptr when the pair never merges. Negative ids never do.
  const Merge* find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i].merge;
      if (slots_[i].key == kFree) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Merge merge{};
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    if (left < 0 || right < 0) return kFree - 1;
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    key *= 0x9e3779b97f4a7c15u;
    return (key ^ key >> 32) & mask_;
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  size_t mask_ = 0;
};

struct Symbol {
  int32_t id;      // negative: in no pair
  uint32_t begin;  // of its bytes in the piece
  uint32_t length;
};

/// Merges in place. Short words scan, long ones keep a heap: O(n log n) in any case.
void merge_pairs(const PairTable& pairs, std::vector<Symbol>& symbols);

/// Remembers the ids of recent words. One per thread, bounded, emptied when another tokenizer uses it.
class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 48;
  static constexpr size_t kMaxIds = 12;

  /// The calling thread's cache, for the model with this serial number.
  static WordCache& of_thread(uint64_t owner);
  /// Appends the ids and returns true, or returns false.
  bool get(std::string_view word, std::vector<int32_t>& ids) const;
  void put(std::string_view word, const int32_t* ids, size_t num_ids);
  static uint64_t new_owner();

 private:
  struct Entry {
    uint8_t word_bytes = 0;
    uint8_t num_ids = 0;
    char word[kMaxWordBytes];
    int32_t ids[kMaxIds];
  };
  static size_t slot_of(std::string_view word);

  uint64_t owner_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace chorale::coordinator::text
