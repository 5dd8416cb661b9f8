// The "WordLevel" model of tokenizer.json: a piece is a token or it is unknown.
#pragma once

#include <memory>

#include "coordinator/text/json_fields.h"
#include "coordinator/text/model.h"
#include "coordinator/text/vocabulary.h"

namespace chorale::coordinator::text {

/// Fills `vocabulary`, which must outlive the model. Encoding an unknown piece without an unk_token in the vocabulary
/// throws Error.
std::unique_ptr<const Model> make_word_level_model(const JsonAt& json, Vocabulary& vocabulary);

}  // namespace chorale::coordinator::text
