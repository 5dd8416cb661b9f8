// Turns the events of one request's jobs into its answer: whole, as one JSON object, or streamed, as server-sent
// events. Fed by the HTTP server; it knows no socket and no engine.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/error_body.h"
#include "coordinator/api/json.h"
#include "coordinator/api/logprobs_json.h"
#include "coordinator/api/request.h"

namespace chorale::coordinator::api {

/// Thread: one at a time.
class Answer {
 public:
  /// Takes what it needs out of `request`; its jobs may be moved to the engine afterwards. `id` stands in "id" after
  /// "cmpl-" or "chatcmpl-"; `created` is in seconds since 1970.
  Answer(const ParsedRequest& request, std::shared_ptr<const ApiContext> context, const std::string& id,
         int64_t created);

  // Events of job `job`, in the order they came.
  void on_prompt_logprobs(size_t job, std::vector<parallel::SampledToken> tokens);
  void on_token(size_t job, TokenEvent event);
  void on_done(size_t job, int64_t num_cached_tokens);

  bool streams() const { return options_.stream == Toggle::kYes; }
  bool is_complete() const { return num_done_ == prompts_.size(); }

  /// Streaming: the events made since the last call, with "data: [DONE]" after the last.
  std::string take_events();
  /// Not streaming: the object. REQUIRES is_complete().
  std::string whole();
  /// Streaming: what ends a stream that failed in the middle.
  static std::string error_events(const ApiError& error);

 private:
  struct Prompt {
    int num_choices = 1;
    std::vector<int32_t> ids;
    std::string text;  // with echo
    std::vector<std::string> stops;
    std::vector<LogprobEntry> logprobs;  // with echo
    int64_t num_cached_tokens = 0;
  };
  /// What of a choice is not yet sent; all of it when not streaming.
  struct Choice {
    bool started = false;
    std::string text;
    std::vector<LogprobEntry> logprobs;
    std::vector<int32_t> token_ids;
    std::optional<FinishReason> finish;
    std::optional<std::string> stop_reason;
    int64_t text_offset = 0;
    int64_t num_tokens = 0;
  };

  void start(const Prompt& prompt, Choice& choice);
  void flush(size_t job, int index);
  Json choice_json(const Prompt& prompt, size_t choice_index, Choice& choice) const;
  Json head(const char* object) const;
  Json usage() const;
  Choice& choice_at(size_t job, int index) { return choices_.at(first_choice_.at(job) + static_cast<size_t>(index)); }
  void emit(const Json& event);

  AnswerOptions options_;
  std::shared_ptr<const ApiContext> context_;
  LogprobsWriter logprobs_writer_;
  std::string id_;
  int64_t created_;
  std::vector<Prompt> prompts_;
  std::vector<size_t> first_choice_;  // of each prompt, in choices_
  std::vector<Choice> choices_;
  size_t num_done_ = 0;
  std::string events_;
};

}  // namespace chorale::coordinator::api
