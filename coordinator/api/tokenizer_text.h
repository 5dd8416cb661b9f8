// A model's tokenizer and chat template as the API sees them. Made once by the command that serves a model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "coordinator/api/model_text.h"

namespace chorale::coordinator::api {

/// `chat_template`: source of the template, or nothing. One that does not compile is logged once; chats are then
/// refused with the reason, completions go on.
std::shared_ptr<const ModelText> make_tokenizer_text(std::shared_ptr<const Tokenizer> tokenizer,
                                                     const std::optional<std::string>& chat_template);

}  // namespace chorale::coordinator::api
