#include "coordinator/api/answer.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

/// vLLM prints a stop token as a number, a stop string as it is; the engine gives both as text.
Json stop_reason_json(const std::optional<std::string>& reason, const std::vector<std::string>& stops) {
  if (!reason) return nullptr;
  if (std::find(stops.begin(), stops.end(), *reason) != stops.end()) return *reason;
  const bool digits =
      !reason->empty() && reason->size() < 11 && reason->find_first_not_of("0123456789") == std::string::npos;
  return digits ? Json(std::stoll(*reason)) : Json(*reason);
}

}  // namespace

Answer::Answer(const ParsedRequest& request, std::shared_ptr<const ApiContext> context, const std::string& id,
               int64_t created)
    : options_(request.options),
      context_(std::move(context)),
      logprobs_writer_(context_->text.get(), options_),
      id_((options_.endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + id),
      created_(created) {
  for (size_t i = 0; i < request.jobs.size(); ++i) {
    const JobRequest& job = request.jobs[i];
    Prompt& prompt = prompts_.emplace_back();
    prompt.num_choices = job.num_choices;
    prompt.ids = job.prompt_ids;
    prompt.stops = job.stop;
    if (i < request.prompt_texts.size()) prompt.text = request.prompt_texts[i];
    first_choice_.push_back(choices_.size());
    choices_.resize(choices_.size() + static_cast<size_t>(job.num_choices));
  }
}

void Answer::on_prompt_logprobs(size_t job, std::vector<parallel::SampledToken> tokens) {
  Prompt& prompt = prompts_.at(job);
  prompt.logprobs.push_back({prompt.ids.front(), std::nullopt, {}});
  for (auto& token : tokens)
    prompt.logprobs.push_back({token.token.token_id, token.token.logprob, std::move(token.top)});
}

/// The first event of a choice carries the role (chat) or the echoed prompt (completions).
void Answer::start(const Prompt& prompt, Choice& choice) {
  if (std::exchange(choice.started, true)) return;
  if (options_.echo == Toggle::kYes) {
    choice.text = prompt.text;
    choice.logprobs = prompt.logprobs;
  }
  if (!streams() || options_.endpoint != Endpoint::kChat) return;
  Json json;
  json["index"] = &choice - choices_.data();
  json["delta"] = {{"role", "assistant"}, {"content", ""}};
  json["logprobs"] = nullptr;
  json["finish_reason"] = nullptr;
  Json event = head("chat.completion.chunk");
  event["choices"] = Json::array({std::move(json)});
  if (options_.continuous_usage == Toggle::kYes)
    event["usage"] = usage();
  else if (options_.include_usage == Toggle::kYes)
    event["usage"] = nullptr;
  emit(event);
}

void Answer::on_token(size_t job, TokenEvent event) {
  const Prompt& prompt = prompts_.at(job);
  Choice& choice = choice_at(job, event.choice);
  start(prompt, choice);
  choice.text += event.text;
  ++choice.num_tokens;
  if (options_.num_logprobs)
    choice.logprobs.push_back({event.token.token.token_id, event.token.token.logprob, std::move(event.token.top)});
  if (options_.return_token_ids == Toggle::kYes) choice.token_ids.push_back(event.token.token.token_id);
  if (event.finish) {
    choice.finish = event.finish;
    choice.stop_reason = std::move(event.stop_reason);
  }
  if (streams()) flush(job, event.choice);
}

void Answer::on_done(size_t job, int64_t num_cached_tokens) {
  Prompt& prompt = prompts_.at(job);
  prompt.num_cached_tokens = num_cached_tokens;
  for (int i = 0; i < prompt.num_choices; ++i) {
    Choice& choice = choice_at(job, i);
    start(prompt, choice);
    if (choice.finish) continue;
    choice.finish = FinishReason::kLength;  // max_tokens was 0
    if (streams()) flush(job, i);
  }
  ++num_done_;
  if (!is_complete() || !streams()) return;
  if (options_.include_usage == Toggle::kYes) {
    Json event = head(options_.endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion");
    event["choices"] = Json::array();
    event["usage"] = usage();
    emit(event);
  }
  events_ += "data: [DONE]\n\n";
}

/// Sends what the choice has gathered. Text that is held back sends nothing, unless something else goes with the token.
void Answer::flush(size_t job, int index) {
  Choice& choice = choice_at(job, index);
  if (choice.text.empty() && choice.logprobs.empty() && choice.token_ids.empty() && !choice.finish) return;
  Json event = head(options_.endpoint == Endpoint::kChat ? "chat.completion.chunk" : "text_completion");
  event["choices"] =
      Json::array({choice_json(prompts_.at(job), first_choice_.at(job) + static_cast<size_t>(index), choice)});
  if (options_.continuous_usage == Toggle::kYes)
    event["usage"] = usage();
  else if (options_.include_usage == Toggle::kYes)
    event["usage"] = nullptr;
  emit(event);
  choice.text.clear();
  choice.logprobs.clear();
  choice.token_ids.clear();
}

Json Answer::choice_json(const Prompt& prompt, size_t choice_index, Choice& choice) const {
  const bool chat = options_.endpoint == Endpoint::kChat;
  Json json;
  json["index"] = choice_index;
  if (!chat)
    json["text"] = choice.text;
  else if (streams())
    json["delta"] = {{"content", choice.text}};
  else
    json["message"] = {{"role", "assistant"}, {"content", choice.text}};
  json["logprobs"] = nullptr;
  if (options_.num_logprobs)
    json["logprobs"] = chat ? logprobs_writer_.chat(choice.logprobs)
                            : logprobs_writer_.completion(choice.logprobs, choice.text_offset);
  json["finish_reason"] = choice.finish ? Json(std::string(to_string(*choice.finish))) : Json();
  json["stop_reason"] = stop_reason_json(choice.stop_reason, prompt.stops);
  if (options_.return_token_ids == Toggle::kYes) {
    json["token_ids"] = choice.token_ids;
    const bool first = !streams() || choice.num_tokens <= 1;
    if (first) json["prompt_token_ids"] = prompt.ids;
  }
  return json;
}

Json Answer::head(const char* object) const {
  Json json;
  json["id"] = id_;
  json["object"] = object;
  json["created"] = created_;
  json["model"] = options_.model;
  return json;
}

Json Answer::usage() const {
  int64_t prompt_tokens = 0, cached = 0, completion_tokens = 0;
  for (const Prompt& prompt : prompts_) {
    prompt_tokens += static_cast<int64_t>(prompt.ids.size());
    cached += prompt.num_cached_tokens;
  }
  for (const Choice& choice : choices_) completion_tokens += choice.num_tokens;
  Json json;
  json["prompt_tokens"] = prompt_tokens;
  json["total_tokens"] = prompt_tokens + completion_tokens;
  json["completion_tokens"] = completion_tokens;
  json["prompt_tokens_details"] = {{"cached_tokens", cached}};
  return json;
}

void Answer::emit(const Json& event) { events_ += "data: " + to_text(event) + "\n\n"; }

std::string Answer::take_events() { return std::exchange(events_, {}); }

std::string Answer::whole() {
  CHECK(is_complete() && !streams());
  Json json = head(options_.endpoint == Endpoint::kChat ? "chat.completion" : "text_completion");
  Json choices = Json::array();
  for (size_t job = 0; job < prompts_.size(); ++job)
    for (int i = 0; i < prompts_[job].num_choices; ++i)
      choices.push_back(choice_json(prompts_[job], first_choice_[job] + static_cast<size_t>(i), choice_at(job, i)));
  json["choices"] = std::move(choices);
  json["usage"] = usage();
  return to_text(json);
}

std::string Answer::error_events(const ApiError& error) {
  return "data: " + error_body(error) + "\n\ndata: [DONE]\n\n";
}

}  // namespace chorale::coordinator::api
