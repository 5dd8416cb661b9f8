// The messages of a chat, checked, flattened to what a chat template expects, rendered and tokenized. Used by the
// parsers of /v1/chat/completions and /tokenize.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/api/fields.h"
#include "coordinator/api/request.h"

namespace chorale::coordinator::api {

/// Reads messages, add_generation_prompt and chat_template_kwargs; returns the prompt's ids. On a Failure (in `fields`)
/// it is empty.
std::vector<int32_t> read_chat_prompt(Fields& fields, AddSpecial special, const ApiContext& context);

}  // namespace chorale::coordinator::api
