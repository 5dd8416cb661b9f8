// A job as the engine sees it: token ids in, token events out. The API layer makes JobRequests from HTTP bodies (and
// `generate` from lines of a file) and turns events into answers; neither sockets nor JSON are known here.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/error.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator {

enum class IgnoreEos : uint8_t { kNo, kYes };
enum class StopText : uint8_t { kExclude, kInclude };  // whether a matched stop string stays in the text

/// One prompt, `num_choices` independent continuations. All token ids are inside the vocabulary (checked by the API
/// layer).
struct JobRequest {
  std::string request_id;  // for logs
  std::vector<int32_t> prompt_ids;
  int num_choices = 1;
  /// Generated tokens per choice. 0 only computes the prompt: no on_token follows, on_done ends every choice as
  /// kLength.
  int32_t max_tokens = 16;
  parallel::SamplingParams sampling;  // `choice` and `banned_until_min` are set by the engine
  std::vector<std::string> stop;
  StopText stop_text = StopText::kExclude;
  std::vector<int32_t> stop_token_ids;
  IgnoreEos ignore_eos = IgnoreEos::kNo;
  parallel::PromptLogprobs prompt_logprobs = parallel::PromptLogprobs::kNo;
  int priority = 0;  // smaller is served earlier, under --scheduling-policy priority
  std::optional<std::chrono::steady_clock::time_point> deadline;  // then the job ends with an error
};

enum class FinishReason : uint8_t { kStop, kLength, kAbort };
std::string_view to_string(FinishReason reason);  // "stop", "length", "abort"

/// One generated token of one choice, or its end. Text is whole UTF-8 that became final with this token; it may be
/// empty (held back because a stop string or a character may still be incomplete). Special tokens have no text. `token`
/// of the last event is the EOS or stop token when one ended the choice; its text is left out (StopText::kInclude keeps
/// a stop token's).
struct TokenEvent {
  int choice = 0;
  parallel::SampledToken token;
  std::string text;
  std::optional<FinishReason> finish;      // set on a choice's last event
  std::optional<std::string> stop_reason;  // the stop string that matched, or the stop token's id as text
};

/// Receives the events of one job. Called on the engine thread; must return at once and never throw.
class JobSink {
 public:
  virtual ~JobSink() = default;
  /// Before the first token, for jobs with prompt_logprobs: one entry per prompt position 1 .. n-1 (token = the
  /// prompt's own).
  virtual void on_prompt_logprobs(std::vector<parallel::SampledToken> tokens) = 0;
  virtual void on_token(TokenEvent event) = 0;
  /// All choices ended; nothing follows. `num_cached_tokens`: prompt tokens served by the prefix cache.
  virtual void on_done(int64_t num_cached_tokens) = 0;
  /// The job failed (deadline, world lost, ...); nothing follows.
  virtual void on_error(const Failure& failure) = 0;
  /// True while the reader is too slow to take more: the engine plans no further tokens of this job meanwhile, and
  /// cancels it after its slow-reader timeout. Others go on.
  virtual bool is_congested() const = 0;
};

using JobId = uint64_t;

}  // namespace chorale::coordinator
