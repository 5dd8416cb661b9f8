#include "coordinator/api/sampling_fields.h"

#include <algorithm>
#include <limits>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr double kFloatMax = std::numeric_limits<float>::max();

void read_stops(Fields& fields, const ApiContext& context, JobRequest& job) {
  const RequestLimits& limits = context.limits;
  if (const Json* stop = fields.find("stop")) {
    const Json list = stop->is_string() ? Json::array({*stop}) : *stop;
    if (!list.is_array()) {
      fields.reject("stop", fmt::format("'stop' must be a string or a list of strings, not {}", kind_of(*stop)));
    } else if (list.size() > static_cast<size_t>(limits.max_stop_strings)) {
      fields.reject(
          "stop", fmt::format("'stop' holds {} strings; at most {} are allowed", list.size(), limits.max_stop_strings));
    } else {
      for (const Json& item : list) {
        if (!item.is_string()) {
          fields.reject("stop", fmt::format("'stop' must hold strings, not {}", kind_of(item)));
          continue;
        }
        const auto& text = item.get_ref<const std::string&>();
        if (text.empty()) fields.reject("stop", "'stop' must not hold an empty string");
        if (text.size() > limits.max_stop_bytes)
          fields.reject("stop", fmt::format("'stop' holds a string of {} bytes; at most {} are allowed", text.size(),
                                            limits.max_stop_bytes));
        job.stop.push_back(text);
      }
      if (!job.stop.empty() && context.text == nullptr)
        fields.reject("stop", "'stop' needs a tokenizer and this model has none; use 'stop_token_ids'");
    }
  }
  if (const Json* ids = fields.find("stop_token_ids")) {
    if (ids->is_array() && ids->size() > static_cast<size_t>(limits.max_stop_token_ids))
      fields.reject("stop_token_ids", fmt::format("'stop_token_ids' holds {} ids; at most {} are allowed", ids->size(),
                                                  limits.max_stop_token_ids));
    job.stop_token_ids = fields.token_ids(*ids, "stop_token_ids", context.model.vocab_size);
  }
  if (fields.boolean("include_stop_str_in_output").value_or(false)) job.stop_text = StopText::kInclude;
  if (fields.boolean("ignore_eos").value_or(false)) job.ignore_eos = IgnoreEos::kYes;
}

void read_logit_bias(Fields& fields, const ApiContext& context, JobRequest& job) {
  const Json* biases = fields.object("logit_bias");
  if (biases == nullptr) return;
  for (const auto& [key, value] : biases->items()) {
    int64_t id = -1;
    const bool digits = !key.empty() && key.size() <= 10 && key.find_first_not_of("0123456789") == std::string::npos;
    if (digits) id = std::stoll(key);
    if (id < 0 || id >= context.model.vocab_size) {
      fields.reject("logit_bias", fmt::format("'logit_bias' has the key '{}'; keys are token ids, 0 to {}",
                                              key.substr(0, 32), context.model.vocab_size - 1));
      return;
    }
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100)) {
      fields.reject("logit_bias", fmt::format("'logit_bias' of token {} must be a number between -100 and 100", id));
      return;
    }
    job.sampling.logit_bias.emplace_back(static_cast<int32_t>(id), value.get<float>());
  }
  // "7" and "07" name one token; a sampler that reads both would apply both.
  auto& list = job.sampling.logit_bias;
  std::sort(list.begin(), list.end());
  const auto same_id = [](const auto& a, const auto& b) { return a.first == b.first; };
  if (std::adjacent_find(list.begin(), list.end(), same_id) != list.end())
    fields.reject("logit_bias", "'logit_bias' names one token twice");
}

void read_choices(Fields& fields, const ApiContext& context, JobRequest& job) {
  job.num_choices = static_cast<int>(fields.integer("n", 1, context.limits.max_choices).value_or(1));
  const auto best_of = fields.integer("best_of", 1, kInt32Max);
  if (best_of && *best_of != job.num_choices)
    fields.reject("best_of",
                  fmt::format("'best_of' ({}) other than 'n' ({}) is not supported", *best_of, job.num_choices),
                  ErrorCode::kUnsupported);
}

}  // namespace

void read_model(Fields& fields, const ApiContext& context, AnswerOptions& options) {
  const auto& names = context.model.served_names;
  options.model = names.empty() ? context.model.root : names.front();
  const auto model = fields.string("model");
  if (!model) return;
  if (std::find(names.begin(), names.end(), *model) != names.end()) {
    options.model = *model;
    return;
  }
  fields.reject(
      "model", fmt::format("the model '{}' does not exist; this server has '{}'", model->substr(0, 200), options.model),
      ErrorCode::kNotFound);
}

void read_sampling(Fields& fields, const ApiContext& context, JobRequest& job) {
  auto& sampling = job.sampling;
  read_choices(fields, context, job);
  sampling.temperature = fields.number("temperature", 0, 2).value_or(1.0f);
  sampling.top_p = fields.number("top_p", 0, 1, Bound::kExclusive).value_or(1.0f);
  sampling.top_k = static_cast<int32_t>(std::max<int64_t>(0, fields.integer("top_k", -1, kInt32Max).value_or(0)));
  sampling.min_p = fields.number("min_p", 0, 1).value_or(0.0f);
  sampling.repetition_penalty = fields.number("repetition_penalty", 0, kFloatMax, Bound::kExclusive).value_or(1.0f);
  sampling.presence_penalty = fields.number("presence_penalty", -2, 2).value_or(0.0f);
  sampling.frequency_penalty = fields.number("frequency_penalty", -2, 2).value_or(0.0f);
  sampling.min_tokens = static_cast<int32_t>(fields.integer("min_tokens", 0, kInt32Max).value_or(0));
  const auto seed = fields.bits64("seed");
  sampling.seed = seed ? *seed : (context.draw_seed ? context.draw_seed() : random_seed());
  job.priority = static_cast<int>(fields.integer("priority", -kInt32Max, kInt32Max).value_or(0));
  read_stops(fields, context, job);
  read_logit_bias(fields, context, job);
  fields.string("user");
}

void read_answer_options(Fields& fields, AnswerOptions& options) {
  const auto toggle = [](std::optional<bool> value) { return value.value_or(false) ? Toggle::kYes : Toggle::kNo; };
  options.stream = toggle(fields.boolean("stream"));
  options.tokens_as_ids = toggle(fields.boolean("return_tokens_as_token_ids"));
  options.return_token_ids = toggle(fields.boolean("return_token_ids"));
  const Json* stream_options = fields.object("stream_options");
  if (stream_options == nullptr) return;
  if (options.stream == Toggle::kNo)
    fields.reject("stream_options", "'stream_options' is only allowed with 'stream': true");
  Fields inner(*stream_options);
  options.include_usage = toggle(inner.boolean("include_usage"));
  options.continuous_usage = toggle(inner.boolean("continuous_usage_stats"));
  if (inner.failure()) fields.reject("stream_options." + inner.failure()->param, inner.failure()->message);
}

std::optional<Failure> fit_tokens(JobRequest& job, std::optional<int64_t> max_tokens,
                                  const std::string& max_tokens_name, const std::string& prompt_name,
                                  const ApiContext& context) {
  const int64_t limit = context.model.max_model_len;
  const auto prompt = static_cast<int64_t>(job.prompt_ids.size());
  if (prompt == 0)
    return Failure{ErrorCode::kInvalidArgument, fmt::format("'{}' holds no tokens", prompt_name), prompt_name};
  const int64_t least = max_tokens == 0 ? 0 : 1;
  if (prompt + least > limit)
    return Failure{
        ErrorCode::kResourceExhausted,
        fmt::format("the model's context is {} tokens and the prompt alone has {}; shorten the prompt", limit, prompt),
        prompt_name};
  if (prompt + max_tokens.value_or(0) > limit)
    return Failure{
        ErrorCode::kResourceExhausted,
        fmt::format("the model's context is {} tokens and {} were requested ({} in the prompt, {} in the answer); "
                    "shorten the prompt or lower '{}'",
                    limit, prompt + *max_tokens, prompt, *max_tokens, max_tokens_name),
        max_tokens_name};
  job.max_tokens = static_cast<int32_t>(max_tokens.value_or(limit - prompt));
  if (job.sampling.min_tokens > job.max_tokens)
    return Failure{ErrorCode::kInvalidArgument,
                   fmt::format("'min_tokens' ({}) must not exceed the answer's most tokens ({})",
                               job.sampling.min_tokens, job.max_tokens),
                   "min_tokens"};
  return std::nullopt;
}

}  // namespace chorale::coordinator::api
