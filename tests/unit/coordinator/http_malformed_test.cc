// Requests that must be refused: exact status, the field they name, and words of the message; afterwards a good one is
// answered.
#include <gtest/gtest.h>

#include "tests/unit/coordinator/http_fixture.h"

namespace chorale::test {
namespace {

struct Case {
  const char* name;
  const char* path;
  std::string body;
  int status;
  const char* param;    // "" is null
  const char* mention;  // in the message
};

constexpr const char* kText = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

std::string text(const std::string& more) { return R"({"prompt": "hi", )" + more + "}"; }
std::string chat(const std::string& more) {
  return R"({"messages": [{"role": "user", "content": "hi"}], )" + more + "}";
}
std::string message(const std::string& one) { return R"({"messages": [)" + one + "]}"; }
std::string repeat(const std::string& item, int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += (i > 0 ? "," : "") + item;
  return list;
}
std::string nested(int depth) {
  return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
}

std::vector<Case> cases() {
  return {
      // The body itself
      {"empty", kText, "", 400, "", "empty"},
      {"not JSON", kText, "{\"prompt\": ", 400, "", "not valid JSON at byte"},
      {"trailing text", kText, "{} {}", 400, "", "not valid JSON at byte"},
      {"comment", kText, "{} // no", 400, "", "not valid JSON"},
      {"NaN", kText, R"({"prompt": "hi", "temperature": NaN})", 400, "", "not valid JSON"},
      {"a list", kText, "[]", 400, "", "must be a JSON object, not a list"},
      {"a string", kChat, "\"hi\"", 400, "", "must be a JSON object, not a string"},
      {"bad UTF-8", kText, "{\"prompt\": \"\xff\"}", 400, "", "not valid UTF-8 (byte 12)"},
      {"overlong UTF-8", kText, "{\"prompt\": \"\xc0\xaf\"}", 400, "", "not valid UTF-8"},
      {"surrogate in UTF-8", kText, "{\"prompt\": \"\xed\xa0\x80\"}", 400, "", "not valid UTF-8"},
      {"lone surrogate escape", kText, R"({"prompt": "\ud800"})", 400, "", "not valid JSON"},
      {"number overflow", kText, text(R"("temperature": 1e999)"), 400, "", "out of range"},
      {"nesting 65", kText, R"({"x": )" + nested(64) + "}", 400, "", "64 levels"},
      {"nesting huge", kText, std::string(100000, '['), 400, "", "64 levels"},
      {"too many members", kText, "{" + repeat("\"a\":1", 1025) + "}", 400, "", "1024 members"},
      // Prompts
      {"no prompt", kText, "{}", 400, "prompt", "missing"},
      {"prompt null", kText, R"({"prompt": null})", 400, "prompt", "missing"},
      {"prompt number", kText, R"({"prompt": 7})", 400, "prompt", "a number"},
      {"prompt object", kText, R"({"prompt": {}})", 400, "prompt", "an object"},
      {"prompt empty list", kText, R"({"prompt": []})", 400, "prompt", "empty list"},
      {"prompt empty inner list", kText, R"({"prompt": [[1], []]})", 400, "prompt", "empty list"},
      {"prompt mixes", kText, R"({"prompt": ["a", [1]]})", 400, "prompt", "mixes"},
      {"prompt of booleans", kText, R"({"prompt": [true]})", 400, "prompt", "a boolean"},
      {"prompt of fractions", kText, R"({"prompt": [1.5]})", 400, "prompt", "integers"},
      {"prompt id negative", kText, R"({"prompt": [-1]})", 400, "prompt", "token id -1"},
      {"prompt id too large", kText, R"({"prompt": [5, 258]})", 400, "prompt", "token id 258"},
      {"prompt id over 64 bits", kText, R"({"prompt": [99999999999999999999]})", 400, "prompt", "integers"},
      {"prompt without tokens", kText, R"({"prompt": "", "add_special_tokens": false})", 400, "prompt", "no tokens"},
      {"too many prompts", kText, R"({"prompt": [)" + repeat("\"a\"", 513) + "]}", 400, "prompt",
       "513 prompts; at most 512"},
      {"prompt too long", kText, R"({"prompt": ")" + std::string(70, 'a') + "\"}", 400, "prompt",
       "64 tokens and the prompt alone has 71"},
      {"answer too long", kText, text(R"("max_tokens": 62)"), 400, "max_tokens",
       "64 tokens and 65 were requested (3 in the prompt, 62"},
      {"chat prompt too long", kChat, message(R"({"role": "user", "content": ")" + std::string(70, 'a') + "\"}"), 400,
       "messages", "64 tokens"},
      {"chat answer too long", kChat, chat(R"("max_completion_tokens": 60)"), 400, "max_completion_tokens",
       "60 in the answer"},
      // Types and ranges
      {"model unknown", kText, text(R"("model": "gpt-9")"), 404, "model", "'gpt-9' does not exist"},
      {"model number", kText, text(R"("model": 9)"), 400, "model", "a string"},
      {"max_tokens zero", kText, text(R"("max_tokens": 0)"), 400, "max_tokens", "at least 1"},
      {"max_tokens negative", kText, text(R"("max_tokens": -5)"), 400, "max_tokens", "-5"},
      {"max_tokens fraction", kText, text(R"("max_tokens": 1.5)"), 400, "max_tokens", "an integer"},
      {"max_tokens text", kText, text(R"("max_tokens": "5")"), 400, "max_tokens", "a string"},
      {"max_tokens boolean", kText, text(R"("max_tokens": true)"), 400, "max_tokens", "a boolean"},
      {"max_tokens over int32", kText, text(R"("max_tokens": 3000000000)"), 400, "max_tokens", "between"},
      {"temperature negative", kText, text(R"("temperature": -0.1)"), 400, "temperature", "at least 0"},
      {"temperature large", kText, text(R"("temperature": 2.1)"), 400, "temperature", "at most 2"},
      {"temperature text", kText, text(R"("temperature": "hot")"), 400, "temperature", "a number"},
      {"top_p zero", kText, text(R"("top_p": 0)"), 400, "top_p", "greater than 0"},
      {"top_p tiny", kText, text(R"("top_p": 1e-60)"), 400, "top_p", "greater than 0"},
      {"top_p large", kText, text(R"("top_p": 1.01)"), 400, "top_p", "at most 1"},
      {"top_k", kText, text(R"("top_k": -2)"), 400, "top_k", "-2"},
      {"min_p", kText, text(R"("min_p": 1.5)"), 400, "min_p", "at most 1"},
      {"repetition_penalty", kText, text(R"("repetition_penalty": 0)"), 400, "repetition_penalty", "greater than 0"},
      {"presence_penalty", kText, text(R"("presence_penalty": 3)"), 400, "presence_penalty", "at most 2"},
      {"frequency_penalty", kText, text(R"("frequency_penalty": -3)"), 400, "frequency_penalty", "at least -2"},
      {"n zero", kText, text(R"("n": 0)"), 400, "n", "between 1 and 128"},
      {"n large", kText, text(R"("n": 129)"), 400, "n", "129"},
      {"n times prompts", kText, R"({"prompt": [)" + repeat("\"a\"", 20) + R"(], "n": 100})", 400, "n",
       "2000 choices; at most 1024"},
      {"best_of", kText, text(R"("best_of": 3, "n": 1)"), 400, "best_of", "best_of"},
      {"stream text", kText, text(R"("stream": "yes")"), 400, "stream", "a boolean"},
      {"stream_options without stream", kText, text(R"("stream_options": {"include_usage": true})"), 400,
       "stream_options", "only allowed"},
      {"stream_options type", kText, text(R"("stream": true, "stream_options": 5)"), 400, "stream_options",
       "an object"},
      {"include_usage type", kText, text(R"("stream": true, "stream_options": {"include_usage": 1})"), 400,
       "stream_options.include_usage", "boolean"},
      {"stop number", kText, text(R"("stop": 5)"), 400, "stop", "a string or a list"},
      {"stop of numbers", kText, text(R"("stop": ["a", 5])"), 400, "stop", "strings"},
      {"stop empty string", kText, text(R"("stop": "")"), 400, "stop", "empty"},
      {"stop too many", kText, text("\"stop\": [" + repeat("\"a\"", 33) + "]"), 400, "stop", "33 strings; at most 32"},
      {"stop too long", kText, text("\"stop\": \"" + std::string(1025, 'a') + "\""), 400, "stop", "1025 bytes"},
      {"stop_token_ids type", kText, text(R"("stop_token_ids": 5)"), 400, "stop_token_ids", "a list"},
      {"stop_token_ids range", kText, text(R"("stop_token_ids": [300])"), 400, "stop_token_ids", "300"},
      {"min_tokens", kText, text(R"("min_tokens": 20, "max_tokens": 10)"), 400, "min_tokens", "(20) must not exceed"},
      {"seed fraction", kText, text(R"("seed": 1.5)"), 400, "seed", "64-bit"},
      {"seed text", kText, text(R"("seed": "x")"), 400, "seed", "64-bit"},
      {"logit_bias type", kText, text(R"("logit_bias": [1])"), 400, "logit_bias", "an object"},
      {"logit_bias key", kText, text(R"("logit_bias": {"the": 1})"), 400, "logit_bias", "'the'"},
      {"logit_bias id", kText, text(R"("logit_bias": {"258": 1})"), 400, "logit_bias", "'258'"},
      {"logit_bias value", kText, text(R"("logit_bias": {"5": 101})"), 400, "logit_bias", "token 5"},
      {"logit_bias twice", kText, text(R"("logit_bias": {"5": 1, "05": 2})"), 400, "logit_bias", "twice"},
      {"logprobs boolean", kText, text(R"("logprobs": true)"), 400, "logprobs", "an integer"},
      {"logprobs large", kText, text(R"("logprobs": 21)"), 400, "logprobs", "between 0 and 20"},
      {"chat logprobs number", kChat, chat(R"("logprobs": 3)"), 400, "logprobs", "a boolean"},
      {"top_logprobs alone", kChat, chat(R"("top_logprobs": 3)"), 400, "top_logprobs", "needs 'logprobs'"},
      {"top_logprobs large", kChat, chat(R"("logprobs": true, "top_logprobs": 21)"), 400, "top_logprobs", "20"},
      {"user number", kText, text(R"("user": 5)"), 400, "user", "a string"},
      {"priority text", kText, text(R"("priority": "high")"), 400, "priority", "an integer"},
      {"ignore_eos number", kText, text(R"("ignore_eos": 1)"), 400, "ignore_eos", "a boolean"},
      {"echo text", kText, text(R"("echo": "yes")"), 400, "echo", "a boolean"},
      // Messages
      {"no messages", kChat, "{}", 400, "messages", "missing"},
      {"messages text", kChat, R"({"messages": "hi"})", 400, "messages", "a list"},
      {"messages empty", kChat, R"({"messages": []})", 400, "messages", "empty"},
      {"message text", kChat, message("\"hi\""), 400, "messages[0]", "an object"},
      {"role missing", kChat, message(R"({"content": "hi"})"), 400, "messages[0].role", "role"},
      {"role unknown", kChat, message(R"({"role": "wizard", "content": "hi"})"), 400, "messages[0].role", "'wizard'"},
      {"content missing", kChat, message(R"({"role": "user"})"), 400, "messages[0].content", "missing"},
      {"content number", kChat, message(R"({"role": "user", "content": 5})"), 400, "messages[0].content", "a number"},
      {"content part without type", kChat, message(R"({"role": "user", "content": [{}]})"), 400,
       "messages[0].content[0]", "'type'"},
      {"content part image", kChat,
       message(R"({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})"), 400,
       "messages[0].content[0]", "image_url"},
      {"content part text number", kChat, message(R"({"role": "user", "content": [{"type": "text", "text": 1}]})"), 400,
       "messages[0].content[0].text", "a string"},
      {"tool calls", kChat, message(R"({"role": "assistant", "tool_calls": [{}]})"), 400, "messages[0].tool_calls",
       "not supported"},
      {"template raises", kChat, message(R"({"role": "user", "content": "raise"})"), 400, "messages",
       "the template raised"},
      {"template kwargs", kChat, chat(R"("chat_template_kwargs": [])"), 400, "chat_template_kwargs", "an object"},
      // Known, not supported
      {"tools", kChat, chat(R"("tools": [{"type": "function"}])"), 400, "tools", "not supported"},
      {"tool_choice", kChat, chat(R"("tool_choice": "auto")"), 400, "tool_choice", "not supported"},
      {"functions", kChat, chat(R"("functions": [{}])"), 400, "functions", "not supported"},
      {"response_format", kChat, chat(R"("response_format": {"type": "json_object"})"), 400, "response_format",
       "not supported"},
      {"guided_json", kText, text(R"("guided_json": {})"), 400, "guided_json", "not supported"},
      {"guided_regex", kText, text(R"("guided_regex": "a+")"), 400, "guided_regex", "not supported"},
      {"guided_choice", kText, text(R"("guided_choice": ["a"])"), 400, "guided_choice", "not supported"},
      {"structured_outputs", kText, text(R"("structured_outputs": {"regex": "a"})"), 400, "structured_outputs",
       "not supported"},
      {"suffix", kText, text(R"("suffix": "end")"), 400, "suffix", "not supported"},
      {"beam search", kText, text(R"("use_beam_search": true)"), 400, "use_beam_search", "not supported"},
      {"logits_processors", kText, text(R"("logits_processors": ["x"])"), 400, "logits_processors", "not supported"},
      {"prompt_embeds", kText, text(R"("prompt_embeds": "AAAA")"), 400, "prompt_embeds", "not supported"},
      {"prompt_logprobs", kText, text(R"("prompt_logprobs": 1)"), 400, "prompt_logprobs", "not supported"},
      {"truncate_prompt_tokens", kText, text(R"("truncate_prompt_tokens": 5)"), 400, "truncate_prompt_tokens",
       "not supported"},
      {"skip_special_tokens", kText, text(R"("skip_special_tokens": false)"), 400, "skip_special_tokens",
       "not supported"},
      {"chat_template", kChat, chat(R"("chat_template": "x")"), 400, "chat_template", "not supported"},
      {"continue_final_message", kChat, chat(R"("continue_final_message": true)"), 400, "continue_final_message",
       "not supported"},
      {"audio", kChat, chat(R"("modalities": ["text", "audio"])"), 400, "modalities", "not supported"},
      {"chat echo", kChat, chat(R"("echo": true)"), 400, "echo", "not supported"},
      // Other endpoints
      {"tokenize without prompt", "/tokenize", "{}", 400, "prompt", "missing"},
      {"tokenize number", "/tokenize", R"({"prompt": 5})", 400, "prompt", "a string"},
      {"detokenize without tokens", "/detokenize", "{}", 400, "tokens", "missing"},
      {"detokenize range", "/detokenize", R"({"tokens": [1000]})", 400, "tokens", "1000"},
      {"no such path", "/v1/embeddings", "{}", 404, "", "/v1/embeddings"},
      {"wrong method", "/v1/models", "{}", 405, "", "GET"},
  };
}

class MalformedRequest : public HttpTest {};

TEST_F(MalformedRequest, GetsItsErrorAndTheNextGoodOneAnAnswer) {
  for (const Case& one : cases()) {
    SCOPED_TRACE(one.name);
    const RawAnswer answer = post(one.path, one.body);
    EXPECT_EQ(answer.status, one.status) << answer.body;
    ASSERT_EQ(answer.headers.at("content-type"), "application/json");
    const auto error = answer.json().at("error");
    EXPECT_FALSE(error.at("type").get<std::string>().empty());
    EXPECT_TRUE(error.contains("code"));
    if (*one.param == '\0')
      EXPECT_TRUE(error.at("param").is_null()) << answer.body;
    else
      EXPECT_EQ(error.at("param"), one.param) << answer.body;
    EXPECT_NE(error.at("message").get<std::string>().find(one.mention), std::string::npos) << answer.body;
  }
  expect_it_still_answers();
}

TEST_F(MalformedRequest, LeavesItsConnectionUsable) {
  RawClient client(port());
  client.post(kText, "{");
  EXPECT_EQ(client.hear().status, 400);
  client.post(kText, R"({"prompt": "hi", "max_tokens": 2})");
  EXPECT_EQ(client.hear().status, 200);
}

TEST_F(MalformedRequest, NeutralValuesAndUnknownFieldsAreNoReason) {
  const RawAnswer answer =
      post(kChat, chat(R"("tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "suffix": null,
      "best_of": 1, "skip_special_tokens": true, "use_beam_search": false, "modalities": ["text"], "temperature": null, "n": null,
      "max_tokens": null, "stop": null, "logit_bias": null, "nobody_knows": {"a": 1}, "metadata": {}, "store": false, "max_tokens": 2.0,
      "top_k": -1, "seed": -3, "user": "me")"));
  EXPECT_EQ(answer.status, 200) << answer.body;
}

TEST_F(MalformedRequest, QueueFullIs429WithRetryAfter) {
  jobs_->set_max_jobs(1);
  const RawAnswer answer = post(kText, R"({"prompt": [[0, 1], [0, 2]]})");
  EXPECT_EQ(answer.status, 429) << answer.body;
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
  EXPECT_TRUE(jobs_->wait_for_jobs(0)) << "the prompt that was admitted must be cancelled";
  expect_it_still_answers();
}

TEST_F(MalformedRequest, WithoutATokenizerTextIsRefusedAndIdsAreServed) {
  context_->text = nullptr;
  const RawAnswer refused = post(kText, R"({"prompt": "hi"})");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("tokenizer.json"), std::string::npos);
  EXPECT_EQ(post(kChat, chat(R"("n": 1)")).status, 400);
  EXPECT_EQ(post(kText, R"({"prompt": [5], "stop": "a"})").status, 400);
  EXPECT_EQ(post("/tokenize", R"({"prompt": "hi"})").status, 400);
  const RawAnswer served = post(kText, R"({"prompt": [5, 6], "max_tokens": 2, "logprobs": 1})");
  EXPECT_EQ(served.status, 200);
  EXPECT_EQ(served.json()["choices"][0]["logprobs"]["tokens"][0], "token_id:97");
}

}  // namespace
}  // namespace chorale::test
