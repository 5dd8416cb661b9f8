// SentencePiece's BPE (Kudo and Richardson, 2018) as GGUF's "llama" vocabularies define it: no list of merges, but a
// score for every token; any two neighbours whose join is a token may merge, the highest score first. What no token
// covers becomes bytes.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/text/model.h"
#include "coordinator/text/pair_merger.h"
#include "coordinator/text/vocabulary.h"

namespace chorale::coordinator::text {

class SpmModel : public Model {
 public:
  /// `scores` has one finite number for each id of `vocabulary`, which must outlive the model. Throws Error{kCorrupt}.
  SpmModel(const Vocabulary& vocabulary, const std::vector<double>& scores, std::optional<int32_t> unk_id,
           const std::string& where);

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  void add_splits(int32_t id, uint32_t rank);
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  int32_t symbol_id(std::string_view text) const;

  const Vocabulary& vocabulary_;
  /// Characters that are no tokens but stand in some: they take part in merges under ids behind the vocabulary's.
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> parts_;
  PairTable pairs_;
  std::vector<int32_t> byte_ids_;  // [256]; -1 without a token
  std::optional<int32_t> unk_id_;
  bool cut_at_marks_ = true;
  uint64_t serial_ = WordCache::new_owner();
};

}  // namespace chorale::coordinator::text
