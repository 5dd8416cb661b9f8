// Tokens that are found in the text before the model sees it ("<|im_end|>"): the "added_tokens" of a tokenizer.json.
// They may carry ids of the model's vocabulary or stand behind it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coordinator/text/json_fields.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/vocabulary.h"

namespace chorale::coordinator::text {

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool special = false;      // left out of decoded text, and out of the search with ParseSpecial::kNo
  bool normalized = false;   // searched in the normalised text
  bool lstrip = false;       // swallows white space before it
  bool rstrip = false;       // and behind it
  bool single_word = false;  // not inside a word
};

/// A part of a text: a token, or text without tokens (id negative).
struct Segment {
  int32_t id;
  std::string_view text;
};

/// Finds the longest of several strings at the leftmost place.
class StringSearch {
 public:
  void add(std::string_view text, size_t value);
  struct Match {
    size_t begin;
    size_t end;
    size_t value;
  };
  std::optional<Match> find(std::string_view text, size_t from) const;
  /// The values of all strings that stand anywhere in `text`, overlaps included, ascending.
  std::vector<size_t> occurring(std::string_view text) const;

 private:
  struct Node {
    std::optional<size_t> value;
    std::unordered_map<unsigned char, size_t> next;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};
};

/// Thread: read-only after loading.
class AddedTokens {
 public:
  /// `json` is the list. Ids are given as the reference library does: a token of the model keeps its id, others count
  /// up from the end; Throws Error{kCorrupt} for tokens or ids that occur twice.
  void load(const JsonAt& json, const Vocabulary& vocabulary, const Normalizer* normalizer);

  /// Cuts `text` at tokens that are searched in raw text, or in normalised text.
  enum class Stage { kRaw, kNormalized };
  void split(std::string_view text, Stage stage, ParseSpecial parse_special, std::vector<Segment>& out) const;

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  const std::vector<AddedToken>& all() const { return tokens_; }
  int32_t end_id() const { return end_id_; }

 private:
  void add(AddedToken token, const Vocabulary& vocabulary, const std::string& where);

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, StringHash, std::equal_to<>> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  StringSearch raw_;
  StringSearch normalized_;
  int32_t end_id_ = 0;
};

}  // namespace chorale::coordinator::text
