// Answers of generations, whole and streamed, many at once, and to clients that leave, stall or see a job fail.
#include <thread>

#include <gtest/gtest.h>

#include "tests/unit/coordinator/http_fixture.h"

namespace chorale::test {
namespace {

constexpr const char* kText = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

class HttpStreamTest : public HttpTest {};

TEST_F(HttpStreamTest, WholeCompletion) {
  const auto json = post(kText, R"({"model": "alias", "prompt": ["hi", "you"], "n": 2, "max_tokens": 3})").json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_EQ(json["model"], "alias");
  ASSERT_EQ(json["choices"].size(), 4u);
  for (int i = 0; i < 4; ++i) {
    const auto& choice = json["choices"][static_cast<size_t>(i)];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["text"], "abc");
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_TRUE(choice["logprobs"].is_null());
    EXPECT_TRUE(choice["stop_reason"].is_null());
  }
  EXPECT_EQ(json["usage"]["prompt_tokens"], 7);
  EXPECT_EQ(json["usage"]["completion_tokens"], 12);
  EXPECT_EQ(json["usage"]["total_tokens"], 19);
  EXPECT_EQ(json["usage"]["prompt_tokens_details"]["cached_tokens"], 8);
}

TEST_F(HttpStreamTest, WholeChat) {
  const auto json =
      post(
          kChat,
          R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
      "max_completion_tokens": 2, "max_tokens": 9, "logprobs": true, "top_logprobs": 2, "chat_template_kwargs": {"prefix": "P"}})")
          .json();
  EXPECT_EQ(json["object"], "chat.completion");
  const auto& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "ab");
  const auto& first = choice["logprobs"]["content"][0];
  EXPECT_EQ(first["token"], "a");
  EXPECT_EQ(first["logprob"], -0.25);
  EXPECT_EQ(first["bytes"], std::vector<int>{97});
  EXPECT_EQ(first["top_logprobs"][1]["token"], "b");
  const std::string expected = "P[user]a\nb[assistant]";
  EXPECT_EQ(jobs_->last_request().prompt_ids, std::vector<int32_t>(expected.begin(), expected.end()));
  EXPECT_EQ(json["usage"]["completion_tokens"], 2);
}

TEST_F(HttpStreamTest, EchoWithLogprobs) {
  const auto choice =
      post(kText, R"({"prompt": "hi", "max_tokens": 2, "echo": true, "logprobs": 1, "add_special_tokens": false})")
          .json()["choices"][0];
  EXPECT_EQ(choice["text"], "hiab");
  EXPECT_EQ(choice["logprobs"]["tokens"], (std::vector<std::string>{"h", "i", "a", "b"}));
  EXPECT_TRUE(choice["logprobs"]["token_logprobs"][0].is_null());
  EXPECT_EQ(choice["logprobs"]["token_logprobs"][1], -0.5);
  EXPECT_EQ(choice["logprobs"]["text_offset"], (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][3]["b"], -0.25);
}

TEST_F(HttpStreamTest, EchoOfThePromptAlone) {
  const std::string body =
      R"({"prompt": "hi", "max_tokens": 0, "echo": true, "logprobs": 1, "add_special_tokens": false)";
  const auto choice = post(kText, body + "}").json()["choices"][0];
  EXPECT_EQ(choice["text"], "hi");
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), 2u);
  const auto chunks = events(post(kText, body + R"(, "stream": true})").body);
  ASSERT_EQ(chunks.size(), 1u);
  EXPECT_EQ(chunks[0]["choices"][0], choice);
}

TEST_F(HttpStreamTest, StreamsACompletion) {
  const RawAnswer answer = post(kText, R"({"prompt": "hi", "max_tokens": 3, "stream": true, "logprobs": 0,
      "stream_options": {"include_usage": true}})");
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream; charset=utf-8");
  const auto chunks = events(answer.body);
  ASSERT_EQ(chunks.size(), 4u);
  std::string text;
  for (size_t i = 0; i < 3; ++i) {
    text += chunks[i]["choices"][0]["text"];
    EXPECT_EQ(chunks[i]["choices"][0]["logprobs"]["text_offset"], std::vector<size_t>{i});
    EXPECT_TRUE(chunks[i]["usage"].is_null());
    EXPECT_EQ(chunks[i]["choices"][0]["finish_reason"], i < 2 ? nlohmann::json() : nlohmann::json("length"));
  }
  EXPECT_EQ(text, "abc");
  EXPECT_TRUE(chunks[3]["choices"].empty());
  EXPECT_EQ(chunks[3]["usage"]["total_tokens"], 6);
}

TEST_F(HttpStreamTest, StreamsAChat) {
  const RawAnswer answer =
      post(kChat, R"({"messages": [{"role": "user", "content": "a"}], "n": 2, "max_tokens": 2, "stream": true,
      "stream_options": {"continuous_usage_stats": true}})");
  std::string texts[2];
  int roles = 0, ends = 0;
  for (const auto& chunk : events(answer.body)) {
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["usage"]["prompt_tokens"], 18);
    const auto& choice = chunk["choices"][0];
    roles += choice["delta"].contains("role") ? 1 : 0;
    ends += choice["finish_reason"] == "length" ? 1 : 0;
    texts[choice["index"].get<int>()] += choice["delta"].value("content", "");
  }
  EXPECT_EQ(roles, 2);
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(texts[0], "ab");
  EXPECT_EQ(texts[1], "ab");
}

TEST_F(HttpStreamTest, PassesEveryParameterToTheEngine) {
  post(
      kText,
      R"({"prompt": "x", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2,
      "presence_penalty": 0.3, "frequency_penalty": -0.4, "seed": 18446744073709551615, "logit_bias": {"9": -100, "3": 1.5},
      "min_tokens": 2,
      "stop": ["s1", "s2"],
      "stop_token_ids": [4], "ignore_eos": true, "include_stop_str_in_output": true, "priority": -3, "logprobs": 5})");
  const JobRequest job = jobs_->last_request();
  EXPECT_EQ(job.prompt_ids, (std::vector<int32_t>{kTinyBos, 'x'}));
  EXPECT_EQ(job.max_tokens, 9);
  EXPECT_EQ(job.sampling.temperature, 0.5f);
  EXPECT_EQ(job.sampling.top_p, 0.9f);
  EXPECT_EQ(job.sampling.top_k, 7);
  EXPECT_EQ(job.sampling.min_p, 0.1f);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.2f);
  EXPECT_EQ(job.sampling.presence_penalty, 0.3f);
  EXPECT_EQ(job.sampling.frequency_penalty, -0.4f);
  EXPECT_EQ(job.sampling.seed, UINT64_MAX);
  EXPECT_EQ(job.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{3, 1.5f}, {9, -100.0f}}));
  EXPECT_EQ(job.sampling.min_tokens, 2);
  EXPECT_EQ(job.sampling.num_top_logprobs, 5);
  EXPECT_EQ(job.stop, (std::vector<std::string>{"s1", "s2"}));
  EXPECT_EQ(job.stop_token_ids, std::vector<int32_t>{4});
  EXPECT_EQ(job.ignore_eos, coordinator::IgnoreEos::kYes);
  EXPECT_EQ(job.stop_text, coordinator::StopText::kInclude);
  EXPECT_EQ(job.priority, -3);
}

TEST_F(HttpStreamTest, DefaultsAreOpenAis) {
  post(kText, R"({"prompt": "x"})");
  EXPECT_EQ(jobs_->last_request().max_tokens, 16);
  EXPECT_EQ(jobs_->last_request().sampling.seed, 99u);
  EXPECT_EQ(jobs_->last_request().sampling.temperature, 1.0f);
  post(kChat, R"({"messages": [{"role": "user", "content": "a"}]})");
  EXPECT_EQ(jobs_->last_request().max_tokens, 64 - 18);
}

TEST_F(HttpStreamTest, RequestTimeoutReachesTheJob) {
  options_.request_timeout = std::chrono::seconds(5);
  post(kText, R"({"prompt": "x", "max_tokens": 1})");
  ASSERT_TRUE(jobs_->last_request().deadline.has_value());
}

TEST_F(HttpStreamTest, AJobThatFailsFirstGetsAStatus) {
  for (const char* stream : {"false", "true"}) {
    const RawAnswer answer = post(kText, fmt::format(R"({{"prompt": [[1], [0]], "stream": {}}})", stream));
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.json()["error"]["code"], "world_lost");
    EXPECT_TRUE(jobs_->wait_for_jobs(0)) << "the other prompt must be cancelled";
  }
}

TEST_F(HttpStreamTest, AJobThatFailsLaterEndsItsStreamWithAnError) {
  RawClient client(port());
  client.post(kText, R"({"prompt": [2], "stream": true})");
  const auto chunks = events(client.hear().body);
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_EQ(chunks[3]["error"]["message"], "the world was lost: rank 1 left");
  client.get("/version");
  EXPECT_EQ(client.hear().status, 200);
}

TEST_F(HttpStreamTest, LeavingOrResettingWhileWaitingCancels) {
  int num_cancelled = 0;
  for (void (RawClient::*go)() : {&RawClient::leave, &RawClient::reset}) {
    RawClient client(port());
    client.post(kText, R"({"prompt": [[0], [0, 1]]})");
    ASSERT_TRUE(jobs_->wait_for_jobs(2));
    (client.*go)();
    num_cancelled += 2;
    EXPECT_TRUE(jobs_->wait_for_cancelled(num_cancelled));
  }
}

TEST_F(HttpStreamTest, LeavingWhileStreamingCancels) {
  options_.stream_buffer_bytes = 4096;
  options_.send_buffer_bytes = 4096;
  context_->model.max_model_len = 10'000'000;
  RawClient client(port(), 4096);
  client.post(kText, R"({"prompt": "x", "max_tokens": 9000000, "stream": true})");
  ASSERT_TRUE(client.hear_until("data: "));
  client.leave();
  EXPECT_TRUE(jobs_->wait_for_cancelled(1));
}

TEST_F(HttpStreamTest, AClientThatSaysNoMoreStillGetsItsAnswer) {
  for (const char* stream : {"false", "true"}) {
    jobs_->hold();
    RawClient client(port());
    const int32_t slow = ScriptedJobs::kWait;
    client.post(kText, fmt::format(R"({{"prompt": [{}], "max_tokens": 3, "stream": {}}})", slow, stream));
    client.get("/version");
    ASSERT_TRUE(jobs_->wait_for_jobs(1));
    client.say_no_more();
    ASSERT_TRUE(client.hear_until("HT")) << "a client that may be gone is asked, more than once";
    jobs_->let_go();
    const RawAnswer answer = client.hear();
    EXPECT_EQ(answer.status, 200);
    if (std::string_view(stream) == "true")
      EXPECT_EQ(events(answer.body).size(), 3u);
    else
      EXPECT_EQ(answer.json()["choices"][0]["text"], "abc");
    EXPECT_EQ(client.hear().status, 200) << "the request behind it";
    EXPECT_TRUE(client.is_closed());
  }
}

TEST_F(HttpStreamTest, AJobThatFailsAfterAClientSaidNoMoreStillHasAStatus) {
  RawClient client(port());
  client.post(kText, fmt::format(R"({{"prompt": [{}], "max_tokens": 3}})", ScriptedJobs::kWait));
  ASSERT_TRUE(jobs_->wait_for_jobs(1));
  client.say_no_more();
  ASSERT_TRUE(client.hear_until("H"));
  jobs_->fail_waiting();
  EXPECT_EQ(client.hear().status, 503);
}

TEST_F(HttpStreamTest, LeavingAfterSayingNoMoreCancels) {
  for (const char* stream : {"false", "true"}) {
    RawClient client(port());
    client.post(kText, fmt::format(R"({{"prompt": [0], "stream": {}}})", stream));
    ASSERT_TRUE(jobs_->wait_for_jobs(1));
    client.say_no_more();
    ASSERT_TRUE(client.hear_until("H"));
    client.leave();
    EXPECT_TRUE(jobs_->wait_for_jobs(0));
  }
}

TEST_F(HttpStreamTest, ASlowReaderPausesItsOwnJobAndLosesNothing) {
  options_.stream_buffer_bytes = 64 << 10;
  options_.send_buffer_bytes = 16 << 10;
  context_->model.max_model_len = 10'000;
  RawClient slow(port(), 4096);
  slow.post(kText, R"({"prompt": [3], "max_tokens": 300, "stream": true})");
  ASSERT_TRUE(jobs_->wait_for_congestion());
  expect_it_still_answers();
  const auto chunks = events(slow.hear().body);
  EXPECT_EQ(chunks.size(), 300u);
  EXPECT_GT(jobs_->num_wakes(), 0);
}

TEST_F(HttpStreamTest, AReaderThatStopsIsClosedAndItsJobCancelled) {
  options_.stream_buffer_bytes = 64 << 10;
  options_.send_buffer_bytes = 16 << 10;
  options_.write_timeout = std::chrono::milliseconds(200);
  context_->model.max_model_len = 10'000'000;
  RawClient stopped(port(), 4096);
  stopped.post(kText, R"({"prompt": [3], "max_tokens": 9000000, "stream": true})");
  EXPECT_TRUE(jobs_->wait_for_cancelled(1));
  expect_it_still_answers();
}

TEST_F(HttpStreamTest, Serves64StreamsAtOnce) {
  context_->model.max_model_len = 1000;
  const int bound = port();
  std::vector<std::thread> clients;
  std::vector<size_t> counts(64);
  for (size_t i = 0; i < counts.size(); ++i)
    clients.emplace_back([&, i] {
      RawClient client(bound);
      client.post(kChat, R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 100, "stream": true})");
      counts[i] = events(client.hear().body).size();
    });
  for (auto& client : clients) client.join();
  for (const size_t count : counts) EXPECT_EQ(count, 101u);
}

TEST_F(HttpStreamTest, ReturnsTokenIdsWhenAsked) {
  const auto choice = post(kText, R"({"prompt": [7], "max_tokens": 2, "return_token_ids": true})").json()["choices"][0];
  EXPECT_EQ(choice["token_ids"], (std::vector<int>{97, 98}));
  EXPECT_EQ(choice["prompt_token_ids"], std::vector<int>{7});
}

}  // namespace
}  // namespace chorale::test
