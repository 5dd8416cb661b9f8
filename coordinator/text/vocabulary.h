// Strings of tokens and their ids, both ways. Filled by a loader, then read-only; shared by models, added tokens and
// decoding.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace chorale::coordinator::text {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// Thread: read-only after loading.
class Vocabulary {
 public:
  /// `where` stands in messages. Throws Error{kCorrupt} when the id is negative or far beyond `expected_size`, or when
  /// the id or the token is taken.
  void add(std::string token, int64_t id, size_t expected_size, const std::string& where);

  std::optional<int32_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    if (found == ids_.end()) return std::nullopt;
    return found->second;
  }
  bool contains(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() && tokens_[static_cast<size_t>(id)];
  }
  /// Empty where no token has this id.
  const std::string& token(int32_t id) const;
  /// One more than the largest id.
  int32_t end_id() const { return static_cast<int32_t>(tokens_.size()); }
  size_t size() const { return ids_.size(); }

 private:
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids_;  // its nodes own the strings
  std::vector<const std::string*> tokens_;                                     // [id]; nullptr in gaps
};

}  // namespace chorale::coordinator::text
