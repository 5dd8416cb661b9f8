// Bodies of /v1/completions, /v1/chat/completions, /tokenize and /detokenize, made into jobs. The HTTP server and
// `chorale generate
// --jobs` parse with it; no socket is known here. Field by field: docs/api.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/error.h"
#include "coordinator/api/json.h"
#include "coordinator/api/model_text.h"
#include "coordinator/jobs/job.h"

namespace chorale::coordinator::api {

struct RequestLimits {
  int max_prompts = 512;         // in one completions request
  int max_choices = 128;         // n
  int max_total_choices = 1024;  // prompts x n
  int max_top_logprobs = 20;
  int max_stop_strings = 32;
  size_t max_stop_bytes = 1024;  // of one stop string
  int max_stop_token_ids = 256;
};

struct ModelCard {
  std::vector<std::string> served_names;  // the first is shown in answers
  std::string root;                       // the path that was given
  int64_t max_model_len = 0;              // tokens, prompt and answer together
  int64_t vocab_size = 0;
  int64_t created = 0;  // seconds since 1970
};

/// All that parsing needs besides the body. Immutable while requests are parsed.
struct ApiContext {
  ModelCard model;
  std::shared_ptr<const ModelText> text;  // null: prompts of ids only
  RequestLimits limits;
  std::function<uint64_t()> draw_seed;  // for requests without a seed; called from several threads. Empty: random_seed
};

enum class Endpoint : uint8_t { kCompletions, kChat };
enum class Toggle : uint8_t { kNo, kYes };

/// How the answer is to look; nothing here reaches the engine.
struct AnswerOptions {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string model;  // name in the answer
  Toggle stream = Toggle::kNo;
  Toggle include_usage = Toggle::kNo;     // a last chunk with the usage
  Toggle continuous_usage = Toggle::kNo;  // usage in every chunk
  Toggle echo = Toggle::kNo;              // completions: the prompt before the answer
  std::optional<int> num_logprobs;        // alternatives per token; absent: no log-probabilities
  Toggle tokens_as_ids = Toggle::kNo;     // log-probabilities name tokens "token_id:7"
  Toggle return_token_ids = Toggle::kNo;
};

struct ParsedRequest {
  std::vector<JobRequest> jobs;           // one a prompt
  std::vector<std::string> prompt_texts;  // one a prompt with echo, else empty
  AnswerOptions options;
};

/// Failure: kNotFound (model), kUnsupported (a known field that nothing here implements), kResourceExhausted (too many
/// tokens; both numbers), kInvalidArgument (the rest). `param` names the field.
Result<ParsedRequest> parse_completion(const Json& body, const ApiContext& context);
Result<ParsedRequest> parse_chat(const Json& body, const ApiContext& context);
/// parse_chat for an object with `messages`, else parse_completion: a line of a jobs file.
Result<ParsedRequest> parse_request(std::string_view text, const ApiContext& context);

struct TokenizeRequest {
  std::vector<int32_t> ids;
  Toggle return_token_strs = Toggle::kNo;
};
Result<TokenizeRequest> parse_tokenize(const Json& body, const ApiContext& context);
/// The ids to decode.
Result<std::vector<int32_t>> parse_detokenize(const Json& body, const ApiContext& context);

/// A seed nobody can guess. Thread-safe.
uint64_t random_seed();

}  // namespace chorale::coordinator::api
