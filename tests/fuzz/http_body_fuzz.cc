// Bodies of requests: any bytes become jobs that keep the limits, or a Failure. The tokenizer is a byte a token.
// needs: coordinator
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <nlohmann/json.hpp>

#include "coordinator/api/answer.h"
#include "coordinator/api/request.h"
#include "tests/support/tiny_text.h"

namespace {

namespace api = chorale::coordinator::api;
using chorale::coordinator::JobRequest;
using chorale::coordinator::TokenEvent;

void expect(bool condition) {
  if (!condition) std::abort();
}

/// What the engine relies on.
void check(const api::ParsedRequest& parsed, const std::shared_ptr<const api::ApiContext>& context) {
  expect(!parsed.jobs.empty());
  for (const JobRequest& job : parsed.jobs) {
    expect(!job.prompt_ids.empty() && job.max_tokens >= 0 && job.num_choices >= 1);
    expect(static_cast<int64_t>(job.prompt_ids.size()) + job.max_tokens <= context->model.max_model_len);
    for (const int32_t id : job.prompt_ids) expect(id >= 0 && id < context->model.vocab_size);
    for (const auto& [id, bias] : job.sampling.logit_bias)
      expect(id >= 0 && id < context->model.vocab_size && bias >= -100 && bias <= 100);
    expect(job.sampling.temperature >= 0 && job.sampling.top_p > 0 && job.sampling.repetition_penalty > 0);
  }
  api::Answer answer(parsed, context, "id", 0);
  for (size_t i = 0; i < parsed.jobs.size(); ++i) {
    TokenEvent event;
    event.token.token.token_id = 'a';
    event.text = "a";
    answer.on_token(i, event);
    answer.on_done(i, 0);
  }
  expect(!(answer.streams() ? answer.take_events() : answer.whole()).empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const api::ApiContext> context = chorale::test::tiny_context();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto body = api::parse_json(text);
  if (!body) return 0;
  if (const auto parsed = api::parse_completion(*body, *context)) check(*parsed, context);
  if (const auto parsed = api::parse_chat(*body, *context)) check(*parsed, context);
  (void)api::parse_tokenize(*body, *context);
  (void)api::parse_detokenize(*body, *context);
  return 0;
}
