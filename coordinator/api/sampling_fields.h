// The fields that completions and chats share: sampling, stops, counts, streaming. Called by the two request parsers
// only.
#pragma once

#include "coordinator/api/fields.h"
#include "coordinator/api/request.h"

namespace chorale::coordinator::api {

/// Rejects (kNotFound) a model that is not served; fills the name shown in the answer.
void read_model(Fields& fields, const ApiContext& context, AnswerOptions& options);

/// Fills everything of `job` but its prompt, its log-probabilities and max_tokens.
void read_sampling(Fields& fields, const ApiContext& context, JobRequest& job);

/// Fills stream, stream_options and the flags of vLLM.
void read_answer_options(Fields& fields, AnswerOptions& options);

/// Checks prompt and answer against the model's length, fills max_tokens where the request named none, and what depends
/// on it. Failure{kResourceExhausted} names both numbers.
std::optional<Failure> fit_tokens(JobRequest& job, std::optional<int64_t> max_tokens,
                                  const std::string& max_tokens_name, const std::string& prompt_name,
                                  const ApiContext& context);

}  // namespace chorale::coordinator::api
