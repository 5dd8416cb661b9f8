// The "pre_tokenizer" of a tokenizer.json: cuts normalised text into the pieces that the model encodes one by one.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/text/json_fields.h"
#include "coordinator/text/regex.h"

namespace chorale::coordinator::text {

struct Piece {
  std::string_view text;  // never empty
  bool at_start;          // of the whole text given to encode
};

/// The pieces of one text. Views point into the caller's text or into buffers kept here.
struct Pieces {
  std::vector<Piece> items;
  std::deque<std::string> buffers;

  std::string& new_buffer(size_t reserve) {
    buffers.emplace_back().reserve(reserve);
    return buffers.back();
  }
};

/// Thread: immutable, any.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Appends what `spans` of `piece` become: what happens to matches is `behavior`'s choice. Empty pieces are dropped.
void split_piece(const Piece& piece, std::vector<Regex::Span>& spans, SplitBehavior behavior, std::vector<Piece>& out);

/// Splits by a pattern of tokenizer.json; with kYes matches and gaps change places.
enum class Invert { kNo, kYes };
std::unique_ptr<const PreTokenizer> make_split(std::string_view pattern, SplitBehavior behavior, Invert invert);
/// Writes every byte as its character of the byte-level alphabet.
std::unique_ptr<const PreTokenizer> make_byte_level_alphabet();
std::unique_ptr<const PreTokenizer> make_sequence(std::vector<std::unique_ptr<const PreTokenizer>> items);

/// Throws Error{kUnsupported} naming the type, Error{kCorrupt} for wrong fields.
std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const JsonAt& json);

/// GPT-2's pattern, which ByteLevel applies unless it is told not to.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace chorale::coordinator::text
