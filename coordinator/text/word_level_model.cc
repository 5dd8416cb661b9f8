#include "coordinator/text/word_level_model.h"

#include <optional>
#include <string>
#include <utility>

#include "comm/base/error.h"
#include "coordinator/text/bpe_model.h"

namespace chorale::coordinator::text {
namespace {

class WordLevelModel : public Model {
 public:
  WordLevelModel(const Vocabulary& vocabulary, std::string unk_token)
      : vocabulary_(vocabulary), unk_token_(std::move(unk_token)), unk_id_(vocabulary.find(unk_token_)) {}

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override {
    const auto id = vocabulary_.find(piece);
    if (!id && !unk_id_)
      fail(ErrorCode::kInvalidArgument,
           "'{:.60}' is not in the word-level vocabulary and neither is its unk_token '{:.60}'", piece, unk_token_);
    ids.push_back(id ? *id : *unk_id_);
  }

 private:
  const Vocabulary& vocabulary_;
  std::string unk_token_;
  std::optional<int32_t> unk_id_;
};

}  // namespace

std::unique_ptr<const Model> make_word_level_model(const JsonAt& json, Vocabulary& vocabulary) {
  read_vocabulary(json.member("vocab"), vocabulary);
  return std::make_unique<WordLevelModel>(vocabulary, json.string_or("unk_token", "<unk>"));
}

}  // namespace chorale::coordinator::text
