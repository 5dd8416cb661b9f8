// Byte-pair encoding with a table of merges, as the "BPE" model of tokenizer.json and the "gpt2" model of GGUF define
// it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "coordinator/text/json_fields.h"
#include "coordinator/text/model.h"
#include "coordinator/text/pair_merger.h"
#include "coordinator/text/vocabulary.h"

namespace chorale::coordinator::text {

struct BpeOptions {
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix;
  std::string end_of_word_suffix;
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a piece that is a token is that token
  PairTable::IfPresent repeated_merge = PairTable::IfPresent::kReplace;
};

class BpeModel : public Model {
 public:
  using MergeList = std::vector<std::pair<std::string, std::string>>;
  /// `vocabulary` must outlive the model. Throws Error{kCorrupt} naming the merge whose parts or result are no tokens.
  BpeModel(const Vocabulary& vocabulary, const MergeList& merges, BpeOptions options, const std::string& where);

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  void split_into_symbols(std::string_view word, std::vector<Symbol>& symbols) const;
  std::optional<int32_t> find_initial(std::string_view text) const;
  bool push_bytes(std::string_view text, uint32_t begin, std::vector<Symbol>& symbols) const;

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  PairTable pairs_;
  std::vector<int32_t> char_ids_;  // [character] below U+3000; -1 without a token
  std::vector<int32_t> byte_ids_;  // [256] of "<0x00>" and so on; -1 without
  std::optional<int32_t> unk_id_;
  bool cut_at_marks_ = false;  // no merge reaches over the start of a "▁word", so long texts are encoded word by word
  uint64_t serial_ = WordCache::new_owner();
};

/// The "model" of tokenizer.json. Fills `vocabulary`.
std::unique_ptr<const Model> make_bpe_model(const JsonAt& json, Vocabulary& vocabulary);
/// Fills `vocabulary` from a "vocab" object {token: id}.
void read_vocabulary(const JsonAt& json, Vocabulary& vocabulary);
/// "left right" of a merge list; nullopt unless there is exactly one separating blank.
std::optional<std::pair<std::string, std::string>> parse_merge(std::string_view line);

}  // namespace chorale::coordinator::text
