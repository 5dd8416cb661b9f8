#include "coordinator/jobs/choice.h"

#include <algorithm>
#include <utility>

#include "comm/base/error.h"

namespace chorale::coordinator {

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
  }
  return "?";
}

Choice::Choice(const JobRequest& request, int index, std::span<const int32_t> eos_ids, std::unique_ptr<TextStream> text)
    : request_(request),
      index_(index),
      eos_ids_(eos_ids),
      text_(std::move(text)),
      stops_(request.stop, request.stop_text) {}

TokenEvent Choice::accept(parallel::SampledToken token) {
  CHECK(!is_finished_);
  TokenEvent event;
  event.choice = index_;
  const int32_t id = token.token.token_id;
  event.token = std::move(token);
  ++num_generated_;

  const bool is_eos = request_.ignore_eos == IgnoreEos::kNo && std::ranges::find(eos_ids_, id) != eos_ids_.end();
  const bool is_stop = std::ranges::find(request_.stop_token_ids, id) != request_.stop_token_ids.end();
  if (is_eos || is_stop) {
    event.finish = FinishReason::kStop;
    if (!is_eos) {
      event.stop_reason = std::to_string(id);
      if (request_.stop_text == StopText::kInclude) append_text(event, text_->push(id));
    }
  } else {
    append_text(event, text_->push(id));
    if (!event.finish && num_generated_ >= request_.max_tokens) event.finish = FinishReason::kLength;
  }
  if (event.finish) finish_text(event);
  is_finished_ = event.finish.has_value();
  return event;
}

void Choice::append_text(TokenEvent& event, std::string_view piece) {
  // What the first min_tokens tokens spell can not end the answer, so it is not looked at (as in vLLM).
  if (num_generated_ <= request_.sampling.min_tokens) {
    event.text += piece;
    return;
  }
  StopMatcher::Output output = stops_.append(piece);
  event.text += output.text;
  if (!output.matched) return;
  event.finish = FinishReason::kStop;
  event.stop_reason = std::move(output.matched);
}

void Choice::finish_text(TokenEvent& event) {
  // A stop string ended the text where it matched.
  if (stops_.has_matched()) return;
  append_text(event, text_->finish());
  if (!stops_.has_matched()) event.text += stops_.finish();
}

std::vector<int32_t> banned_until_min_tokens(const JobRequest& request, std::span<const int32_t> eos_ids) {
  if (request.sampling.min_tokens <= 0) return {};
  std::vector<int32_t> ids(eos_ids.begin(), eos_ids.end());
  ids.insert(ids.end(), request.stop_token_ids.begin(), request.stop_token_ids.end());
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace chorale::coordinator
