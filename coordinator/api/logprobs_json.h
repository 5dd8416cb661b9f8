// Log-probabilities as OpenAI prints them: two shapes, one for completions, one for chat. Used by Answer only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/json.h"
#include "coordinator/api/request.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator::api {

/// One token with its log-probability; the first token of an echoed prompt has none.
struct LogprobEntry {
  int32_t token_id = 0;
  std::optional<float> logprob;
  std::vector<parallel::TokenLogprob> top;
};

class LogprobsWriter {
 public:
  /// `text` may be null: tokens are then named "token_id:7".
  LogprobsWriter(const ModelText* text, const AnswerOptions& options) : text_(text), options_(options) {}

  /// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; `offset` counts code points and moves past the
  /// tokens.
  Json completion(const std::vector<LogprobEntry>& entries, int64_t& offset) const;
  /// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}
  Json chat(const std::vector<LogprobEntry>& entries) const;

 private:
  std::string bytes_of(int32_t id) const;
  std::string name_of(int32_t id) const;

  const ModelText* text_;
  const AnswerOptions& options_;
};

/// JSON has no infinity: a masked token prints -9999, as in vLLM.
float printable(float logprob);

}  // namespace chorale::coordinator::api
