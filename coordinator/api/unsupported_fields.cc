#include "coordinator/api/unsupported_fields.h"

#include <array>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

enum class Neutral { kNothing, kFalse, kTrue, kEmpty, kNone, kTextFormat, kTextModality };
enum class Where { kBoth, kChat, kCompletions };

struct Entry {
  const char* name;
  Neutral neutral;  // the value, besides null, that changes nothing
  Where where = Where::kBoth;
};

constexpr std::array kEntries = {
    Entry{"tools", Neutral::kEmpty},
    Entry{"tool_choice", Neutral::kNone},
    Entry{"functions", Neutral::kEmpty},
    Entry{"function_call", Neutral::kNone},
    Entry{"response_format", Neutral::kTextFormat},
    Entry{"structured_outputs", Neutral::kNothing},
    Entry{"structural_tag", Neutral::kNothing},
    Entry{"guided_json", Neutral::kNothing},
    Entry{"guided_regex", Neutral::kNothing},
    Entry{"guided_choice", Neutral::kNothing},
    Entry{"guided_grammar", Neutral::kNothing},
    Entry{"guided_decoding_backend", Neutral::kNothing},
    Entry{"guided_whitespace_pattern", Neutral::kNothing},
    Entry{"grammar", Neutral::kNothing},
    Entry{"suffix", Neutral::kEmpty, Where::kCompletions},
    Entry{"echo", Neutral::kFalse, Where::kChat},
    Entry{"use_beam_search", Neutral::kFalse},
    Entry{"logits_processors", Neutral::kEmpty},
    Entry{"logit_processors", Neutral::kEmpty},
    Entry{"prompt_embeds", Neutral::kNothing},
    Entry{"prompt_logprobs", Neutral::kNothing},
    Entry{"bad_words", Neutral::kEmpty},
    Entry{"allowed_token_ids", Neutral::kNothing},
    Entry{"truncate_prompt_tokens", Neutral::kNothing},
    Entry{"skip_special_tokens", Neutral::kTrue},
    Entry{"continue_final_message", Neutral::kFalse},
    Entry{"chat_template", Neutral::kNothing},
    Entry{"documents", Neutral::kEmpty},
    Entry{"audio", Neutral::kNothing},
    Entry{"modalities", Neutral::kTextModality},
    Entry{"mm_processor_kwargs", Neutral::kEmpty},
    Entry{"reasoning_effort", Neutral::kNone},
    Entry{"thinking_token_budget", Neutral::kNothing},
    Entry{"verbosity", Neutral::kNothing},
    Entry{"web_search_options", Neutral::kNothing},
    Entry{"lora_request", Neutral::kNothing},
    Entry{"lora_name", Neutral::kNothing},
    Entry{"kv_transfer_params", Neutral::kNothing},
    Entry{"vllm_xargs", Neutral::kEmpty},
};

bool changes_nothing(const Json& value, Neutral neutral) {
  switch (neutral) {
    case Neutral::kNothing: return false;
    case Neutral::kFalse: return value == false;
    case Neutral::kTrue: return value == true;
    case Neutral::kEmpty: return (value.is_structured() && value.empty()) || value == "";
    case Neutral::kNone: return value == "none";
    case Neutral::kTextFormat: return value.is_object() && value.contains("type") && value.at("type") == "text";
    case Neutral::kTextModality: return value.is_array() && value.size() == 1 && value[0] == "text";
  }
  return false;
}

}  // namespace

void reject_unsupported_fields(const Json& body, Endpoint endpoint, Fields& fields) {
  const Where other = endpoint == Endpoint::kChat ? Where::kCompletions : Where::kChat;
  for (const Entry& entry : kEntries) {
    if (entry.where == other) continue;
    const Json* value = fields.find(entry.name);
    if (value != nullptr && !changes_nothing(*value, entry.neutral))
      fields.reject(entry.name, fmt::format("'{}' is not supported by this server; leave it out", entry.name),
                    ErrorCode::kUnsupported);
  }
}

}  // namespace chorale::coordinator::api
