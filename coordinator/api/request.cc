#include "coordinator/api/request.h"

#include <limits>
#include <mutex>
#include <random>

#include <nlohmann/json.hpp>

#include "coordinator/api/chat_messages.h"
#include "coordinator/api/fields.h"
#include "coordinator/api/sampling_fields.h"
#include "coordinator/api/unsupported_fields.h"

namespace chorale::coordinator::api {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

Failure not_an_object(const Json& body) {
  return Failure{ErrorCode::kInvalidArgument, fmt::format("the request must be a JSON object, not {}", kind_of(body)),
                 ""};
}

AddSpecial add_special(Fields& fields, AddSpecial otherwise) {
  const auto value = fields.boolean("add_special_tokens");
  return !value ? otherwise : *value ? AddSpecial::kYes : AddSpecial::kNo;
}

/// Appends the ids of one prompt, a string or a list of ids.
void read_prompt(Fields& fields, const Json& prompt, AddSpecial special, const ApiContext& context,
                 std::vector<std::vector<int32_t>>& ids) {
  if (prompt.is_array()) {
    ids.push_back(fields.token_ids(prompt, "prompt", context.model.vocab_size));
    if (prompt.empty()) fields.reject("prompt", "'prompt' holds an empty list of token ids");
    return;
  }
  if (!prompt.is_string()) {
    fields.reject("prompt",
                  fmt::format("'prompt' must be a string, a list of strings, a list of token ids or a list of such "
                              "lists; it holds {}",
                              kind_of(prompt)));
    return;
  }
  if (context.text == nullptr) {
    fields.reject(
        "prompt",
        fmt::format("the model '{}' has no tokenizer (tokenizer.json is missing): send the prompt as token ids",
                    context.model.root));
    return;
  }
  auto encoded = context.text->encode(prompt.get_ref<const std::string&>(), special);
  if (!encoded) return fields.reject("prompt", encoded.failure().message);
  ids.push_back(std::move(*encoded));
}

/// All prompts of a completions body. Stops at the first that is wrong, before it tokenizes the rest.
std::vector<std::vector<int32_t>> read_prompts(Fields& fields, AddSpecial special, const ApiContext& context) {
  std::vector<std::vector<int32_t>> ids;
  const Json* prompt = fields.find("prompt");
  if (prompt == nullptr) {
    fields.reject("prompt", "'prompt' is missing");
    return ids;
  }
  const bool many = prompt->is_array() && !prompt->empty() && !(*prompt)[0].is_number();
  if (!many) {
    read_prompt(fields, *prompt, special, context, ids);
    return ids;
  }
  if (prompt->size() > static_cast<size_t>(context.limits.max_prompts)) {
    fields.reject("prompt", fmt::format("'prompt' holds {} prompts; at most {} are allowed in one request",
                                        prompt->size(), context.limits.max_prompts));
    return ids;
  }
  const Json::value_t kind = (*prompt)[0].type();
  for (const Json& item : *prompt) {
    if (item.type() != kind) fields.reject("prompt", "'prompt' mixes strings and lists of token ids");
    if (fields.failure()) break;
    read_prompt(fields, item, special, context, ids);
  }
  return ids;
}

/// Completions: an integer. The number of alternatives; the chosen token is reported always.
void read_completion_logprobs(Fields& fields, const ApiContext& context, AnswerOptions& options, JobRequest& job) {
  const auto count = fields.integer("logprobs", 0, context.limits.max_top_logprobs);
  if (!count) return;
  options.num_logprobs = static_cast<int>(*count);
  job.sampling.num_top_logprobs = static_cast<int32_t>(*count);
}

/// Chat: a boolean, and the number apart.
void read_chat_logprobs(Fields& fields, const ApiContext& context, AnswerOptions& options, JobRequest& job) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto count = fields.integer("top_logprobs", 0, context.limits.max_top_logprobs);
  if (count.value_or(0) > 0 && !wanted) fields.reject("top_logprobs", "'top_logprobs' needs 'logprobs': true");
  if (!wanted) return;
  options.num_logprobs = static_cast<int>(count.value_or(0));
  job.sampling.num_top_logprobs = static_cast<int32_t>(count.value_or(0));
}

}  // namespace

uint64_t random_seed() {
  static std::mutex mutex;
  static std::random_device device;
  const std::lock_guard lock(mutex);
  return static_cast<uint64_t>(device()) << 32 | device();
}

namespace {

/// What echo repeats: the client's own string; ids are decoded.
std::string echoed_text(const Json& prompt, size_t index, std::span<const int32_t> ids, const ApiContext& context) {
  if (prompt.is_string()) return prompt.get<std::string>();
  if (prompt.is_array() && index < prompt.size() && prompt[index].is_string()) return prompt[index].get<std::string>();
  return context.text == nullptr ? "" : context.text->decode(ids);
}

}  // namespace

Result<ParsedRequest> parse_completion(const Json& body, const ApiContext& context) {
  if (!body.is_object()) return not_an_object(body);
  Fields fields(body);
  ParsedRequest parsed;
  AnswerOptions& options = parsed.options;
  options.endpoint = Endpoint::kCompletions;
  JobRequest job;
  read_model(fields, context, options);
  reject_unsupported_fields(body, Endpoint::kCompletions, fields);
  read_sampling(fields, context, job);
  read_answer_options(fields, options);
  read_completion_logprobs(fields, context, options, job);
  if (fields.boolean("echo").value_or(false)) options.echo = Toggle::kYes;
  const auto max_tokens = fields.integer("max_tokens", 0, kInt32Max);
  if (max_tokens == 0 && options.echo == Toggle::kNo)
    fields.reject("max_tokens", "'max_tokens' must be at least 1 (0 is for 'echo': true)");
  if (options.echo == Toggle::kYes && options.num_logprobs) job.prompt_logprobs = parallel::PromptLogprobs::kYes;
  const AddSpecial special = add_special(fields, AddSpecial::kYes);
  if (fields.failure()) return *fields.failure();

  auto prompts = read_prompts(fields, special, context);
  if (fields.failure()) return *fields.failure();
  if (static_cast<int64_t>(prompts.size()) * job.num_choices > context.limits.max_total_choices)
    return Failure{
        ErrorCode::kInvalidArgument,
        fmt::format("{} prompts with n = {} make {} choices; at most {} are allowed in one request", prompts.size(),
                    job.num_choices, prompts.size() * job.num_choices, context.limits.max_total_choices),
        "n"};
  for (size_t i = 0; i < prompts.size(); ++i) {
    JobRequest& one = parsed.jobs.emplace_back(job);
    one.prompt_ids = std::move(prompts[i]);
    if (auto failure = fit_tokens(one, max_tokens.value_or(16), "max_tokens", "prompt", context)) return *failure;
    if (options.echo == Toggle::kYes)
      parsed.prompt_texts.push_back(echoed_text(body["prompt"], i, one.prompt_ids, context));
  }
  return parsed;
}

Result<ParsedRequest> parse_chat(const Json& body, const ApiContext& context) {
  if (!body.is_object()) return not_an_object(body);
  Fields fields(body);
  ParsedRequest parsed;
  AnswerOptions& options = parsed.options;
  options.endpoint = Endpoint::kChat;
  JobRequest& job = parsed.jobs.emplace_back();
  read_model(fields, context, options);
  reject_unsupported_fields(body, Endpoint::kChat, fields);
  read_sampling(fields, context, job);
  read_answer_options(fields, options);
  read_chat_logprobs(fields, context, options, job);
  // OpenAI renamed the field; the new name wins.
  const auto old_max = fields.integer("max_tokens", 1, kInt32Max);
  const auto new_max = fields.integer("max_completion_tokens", 1, kInt32Max);
  const AddSpecial special = add_special(fields, AddSpecial::kNo);
  if (!fields.failure()) job.prompt_ids = read_chat_prompt(fields, special, context);
  if (fields.failure()) return *fields.failure();
  if (auto failure = fit_tokens(job, new_max ? new_max : old_max, new_max ? "max_completion_tokens" : "max_tokens",
                                "messages", context))
    return *failure;
  return parsed;
}

Result<ParsedRequest> parse_request(std::string_view text, const ApiContext& context) {
  auto body = parse_json(text);
  if (!body) return body.failure();
  const auto messages = body->is_object() ? body->find("messages") : body->end();
  return messages != body->end() && !messages->is_null() ? parse_chat(*body, context)  // null is absent, as everywhere
                                                         : parse_completion(*body, context);
}

Result<TokenizeRequest> parse_tokenize(const Json& body, const ApiContext& context) {
  if (!body.is_object()) return not_an_object(body);
  Fields fields(body);
  AnswerOptions options;
  TokenizeRequest parsed;
  read_model(fields, context, options);
  const bool chat = fields.find("messages") != nullptr;
  reject_unsupported_fields(body, chat ? Endpoint::kChat : Endpoint::kCompletions, fields);
  if (fields.boolean("return_token_strs").value_or(false)) parsed.return_token_strs = Toggle::kYes;
  const AddSpecial special = add_special(fields, chat ? AddSpecial::kNo : AddSpecial::kYes);
  if (context.text == nullptr) fields.reject("", "this model has no tokenizer");
  const auto prompt = chat ? std::nullopt : fields.string("prompt");
  if (!chat && !prompt) fields.reject("prompt", "'prompt' or 'messages' is missing");
  if (fields.failure()) return *fields.failure();
  if (chat) {
    parsed.ids = read_chat_prompt(fields, special, context);
  } else {
    auto encoded = context.text->encode(*prompt, special);
    if (!encoded) return Failure{ErrorCode::kInvalidArgument, encoded.failure().message, "prompt"};
    parsed.ids = std::move(*encoded);
  }
  if (fields.failure()) return *fields.failure();
  return parsed;
}

Result<std::vector<int32_t>> parse_detokenize(const Json& body, const ApiContext& context) {
  if (!body.is_object()) return not_an_object(body);
  Fields fields(body);
  AnswerOptions options;
  read_model(fields, context, options);
  const Json* tokens = fields.find("tokens");
  if (tokens == nullptr) fields.reject("tokens", "'tokens' is missing");
  if (context.text == nullptr) fields.reject("", "this model has no tokenizer");
  std::vector<int32_t> ids;
  if (tokens != nullptr) ids = fields.token_ids(*tokens, "tokens", context.model.vocab_size);
  if (fields.failure()) return *fields.failure();
  return ids;
}

}  // namespace chorale::coordinator::api
