// The server as a peer on a socket: keeping connections, order, limits, keys, methods, draining; and the endpoints
// around generation.
#include <future>

#include <gtest/gtest.h>

#include "tests/unit/coordinator/http_fixture.h"

namespace chorale::test {
namespace {

using namespace std::chrono_literals;

constexpr const char* kText = "/v1/completions";
constexpr const char* kGood = R"({"prompt": "hi", "max_tokens": 3})";

class HttpServerTest : public HttpTest {};

TEST_F(HttpServerTest, AnswersRequestsOfOneConnectionInOrder) {
  RawClient client(port());
  client.post(kText, kGood, "X-Request-Id: first\r\n");
  client.get("/version", "X-Request-Id: second\r\n");
  client.post(kText, R"({"prompt": "hi", "max_tokens": 2, "stream": true})", "X-Request-Id: third\r\n");
  client.get("/v1/models", "X-Request-Id: fourth\r\n");
  for (const char* id : {"first", "second", "third", "fourth"}) {
    const RawAnswer answer = client.hear();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.headers.at("x-request-id"), id);
  }
}

TEST_F(HttpServerTest, MakesARequestIdWhereNoneOrAHarmfulOneWasSent) {
  EXPECT_EQ(get("/version").headers.at("x-request-id").size(), 32u);
  EXPECT_EQ(get("/version", "X-Request-Id: a b\r\n").headers.at("x-request-id").size(), 32u);
  const RawAnswer answer = post(kText, kGood, "X-Request-Id: my-id_1\r\n");
  EXPECT_EQ(answer.json().at("id"), "cmpl-my-id_1");
  EXPECT_EQ(jobs_->last_request().request_id, "my-id_1");
}

/// Keeps the thread that encodes a text of at least `long_bytes` until it is let go.
class SlowText : public TinyText {
 public:
  explicit SlowText(size_t long_bytes) : long_bytes_(long_bytes) {}
  Result<std::vector<int32_t>> encode(std::string_view text, coordinator::AddSpecial add_special) const override {
    if (text.size() >= long_bytes_) {
      started.set_value();
      go_on.get_future().wait_for(20s);
    }
    return TinyText::encode(text.substr(0, 8), add_special);
  }
  mutable std::promise<void> started, go_on;

 private:
  const size_t long_bytes_;
};

TEST_F(HttpServerTest, AShortBodyDoesNotWaitForALongOnesTokens) {
  const auto text = std::make_shared<SlowText>(options_.long_body_bytes);
  context_->text = text;
  RawClient patient(port());
  patient.post(kText, R"({"max_tokens": 3, "prompt": ")" + std::string(options_.long_body_bytes, 'x') + "\"}");
  ASSERT_EQ(text->started.get_future().wait_for(20s), std::future_status::ready);
  expect_it_still_answers();
  text->go_on.set_value();
  EXPECT_EQ(patient.hear().status, 200);
}

TEST_F(HttpServerTest, ClosesWhenAskedTo) {
  RawClient client(port());
  client.get("/version", "Connection: close\r\n");
  EXPECT_EQ(client.hear().headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
}

TEST_F(HttpServerTest, SpeaksHttp10) {
  RawClient client(port());
  client.say("GET /version HTTP/1.0\r\n\r\n");
  EXPECT_EQ(client.hear().status, 200);
  EXPECT_TRUE(client.is_closed());
  RawClient stream(port());
  const std::string body = R"({"prompt": "hi", "max_tokens": 3, "stream": true})";
  stream.say(fmt::format("POST {} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", kText, body.size(), body));
  const RawAnswer answer = stream.hear();
  EXPECT_EQ(answer.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(events(answer.body).size(), 3u);
}

TEST_F(HttpServerTest, AnswersAPeerThatHasSaidAll) {
  RawClient client(port());
  client.get("/version");
  client.get("/v1/models");
  client.say_no_more();
  EXPECT_EQ(client.hear().status, 200);
  EXPECT_EQ(client.hear().status, 200);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(HttpServerTest, TakesTargetsAsProxiesGetThem) {
  RawClient client(port());
  for (const char* target : {"http://test/version", "HTTP://test:8000/version?x=1", "https://[::1]:80/version"}) {
    client.get(target);
    EXPECT_EQ(client.hear().status, 200) << target;
  }
  client.get("http://test?version");
  EXPECT_EQ(client.hear().json()["error"]["message"], "there is no /");
  client.get("ftp://test/version");
  EXPECT_EQ(client.hear().status, 404);
}

TEST_F(HttpServerTest, TellsWhatItWaitsForUntilThereIsAWorld) {
  options_.api_keys = {"key"};
  start_without_world();
  RawClient client(port());
  const auto message = [](const RawAnswer& answer) { return answer.json()["error"]["message"].get<std::string>(); };
  client.get("/health");
  RawAnswer answer = client.hear();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(message(answer), "the world of workers is starting");
  server_->set_waiting_for("waiting for workers: 1 of 4 have joined");
  for (const char* path : {"/health", "/metrics", "/v1/models", "/v1/models/x"}) {
    client.get(path, "Authorization: Bearer key\r\n");
    answer = client.hear();
    EXPECT_EQ(answer.status, 503) << path;
    EXPECT_EQ(message(answer), "waiting for workers: 1 of 4 have joined");
    EXPECT_NE(answer.headers["retry-after"], "");
  }
  for (const char* path : {kText, "/v1/chat/completions", "/tokenize", "/detokenize"}) {
    client.post(path, kGood, "Authorization: Bearer key\r\n");
    answer = client.hear();
    EXPECT_EQ(answer.status, 503) << path;
    EXPECT_NE(answer.headers["retry-after"], "");
  }
  client.post(kText, kGood);
  EXPECT_EQ(client.hear().status, 401) << "a key is asked for as ever";
  client.get("/version");
  EXPECT_EQ(client.hear().status, 200);
  server_->open(context_, jobs_);
  client.get("/health");
  EXPECT_EQ(client.hear().status, 200);
  client.post(kText, kGood, "Authorization: Bearer key\r\n");
  EXPECT_EQ(client.hear().status, 200);
}

TEST_F(HttpServerTest, NeedsOneHost) {
  for (const char* head : {"", "Host: a\r\nHost: a\r\n", "Host: two words\r\n", "Host: a/b\r\n"}) {
    RawClient client(port());
    client.say(fmt::format("GET /version HTTP/1.1\r\n{}\r\n", head));
    const RawAnswer answer = client.hear();
    EXPECT_EQ(answer.status, 400) << head;
    EXPECT_NE(answer.json()["error"]["message"].get<std::string>().find("Host"), std::string::npos);
    EXPECT_TRUE(client.is_closed());
  }
  RawClient client(port());
  client.say("GET /version HTTP/1.1\r\nHost:\r\n\r\n");  // empty, where the target has no authority
  EXPECT_EQ(client.hear().status, 200);
}

TEST_F(HttpServerTest, ReadsABodyInPiecesAndInChunks) {
  RawClient client(port());
  client.say("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le");
  client.say("ngth: 33\r\n\r\n{\"prompt\": \"hi\"");
  client.say(", \"max_tokens\": 3}");
  EXPECT_EQ(client.hear().status, 200);
  client.say(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"prompt\": \"hi\"\r\n");
  client.say("12\r\n, \"max_tokens\": 3}\r\n0\r\n\r\n");
  const RawAnswer answer = client.hear();
  EXPECT_EQ(answer.status, 200) << answer.body;
}

TEST_F(HttpServerTest, InvitesABodyThatWaitsForIt) {
  RawClient client(port());
  client.say(fmt::format("POST {} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", kText,
                         std::string(kGood).size()));
  EXPECT_EQ(client.hear().status, 100);
  client.say(kGood);
  EXPECT_EQ(client.hear().status, 200);
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  RawClient client(port());
  client.say("HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  const RawAnswer head = client.hear(RawClient::Body::kNone);
  EXPECT_EQ(head.status, 200);
  client.get("/v1/models");
  EXPECT_EQ(std::to_string(client.hear().body.size()), head.headers.at("content-length"));
}

TEST_F(HttpServerTest, RefusesWrongMethodsAndPaths) {
  RawClient client(port());
  client.get(kText);
  const RawAnswer answer = client.hear();
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.headers.at("allow"), "POST");
  client.say("BREW /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(client.hear().headers.at("allow"), "GET, HEAD");
  client.get("/nowhere?x=1");
  EXPECT_EQ(client.hear().json()["error"]["code"], "not_found");
}

TEST_F(HttpServerTest, RefusesWhatIsNotHttp) {
  for (const char* words : {"hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nNo colon\r\n\r\n",
                            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
                            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    RawClient client(port());
    client.say(words);
    const RawAnswer answer = client.hear();
    EXPECT_EQ(answer.status, 400) << words;
    EXPECT_EQ(answer.json()["error"]["type"], "invalid_request_error");
    EXPECT_TRUE(client.is_closed());
  }
  expect_it_still_answers();
}

TEST_F(HttpServerTest, LimitsBodyAndHeader) {
  options_.max_body_bytes = 1000;
  options_.max_header_bytes = 2000;
  RawClient told(port());
  told.post(kText, std::string(1001, ' '));
  EXPECT_EQ(told.hear().status, 413);
  EXPECT_TRUE(told.is_closed());
  RawClient untold(port());
  untold.say("POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + std::string(1024, ' ') +
             "\r\n");
  EXPECT_EQ(untold.hear().status, 413);
  EXPECT_EQ(post(kText, kGood, "X-Long: " + std::string(3000, 'a') + "\r\n").status, 431);
  EXPECT_EQ(get("/" + std::string(3000, 'a')).status, 431);
  expect_it_still_answers();
}

TEST_F(HttpServerTest, TellsAClientThatStopsInTheMiddle) {
  options_.read_timeout = 100ms;
  RawClient client(port());
  client.say("POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{");
  const RawAnswer answer = client.hear();
  EXPECT_EQ(answer.status, 408);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(HttpServerTest, ClosesAnIdleConnection) {
  options_.idle_timeout = 50ms;
  RawClient client(port());
  client.get("/version");
  EXPECT_EQ(client.hear().status, 200);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(HttpServerTest, RefusesMoreThanItsConnections) {
  options_.max_connections = 2;
  RawClient first(port()), second(port());
  first.get("/version");
  second.get("/version");
  EXPECT_EQ(first.hear().status, 200);
  EXPECT_EQ(second.hear().status, 200);
  RawClient third(port());
  const RawAnswer answer = third.hear();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.at("retry-after"), "1");
}

TEST_F(HttpServerTest, AsksForTheKeyUnderV1Only) {
  options_.api_keys = {"secret", "other"};
  EXPECT_EQ(post(kText, kGood).status, 401);
  EXPECT_EQ(get("/v1/models").status, 401);
  EXPECT_EQ(post(kText, kGood, "Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(post(kText, kGood, "Authorization: Basic secret\r\n").status, 401);
  const RawAnswer nowhere = get("/v1/nowhere");
  EXPECT_EQ(nowhere.status, 401);
  EXPECT_EQ(nowhere.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(post(kText, kGood, "Authorization: Bearer secret\r\n").status, 200);
  EXPECT_EQ(post(kText, kGood, "authorization: bearer other\r\n").status, 200);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/metrics").status, 200);
}

TEST_F(HttpServerTest, TakesJsonOnly) {
  RawClient client(port());
  client.say("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client.hear().status, 415);
  client.say(
      "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: "
      "gzip\r\nContent-Length: "
      "2\r\n\r\n{}");
  EXPECT_EQ(client.hear().status, 415);
  const std::string body = R"({"prompt": "a"})";
  for (const char* type : {"", "Content-Type: Application/JSON; charset=utf-8\r\n",
                           "Content-Type: application/x-www-form-urlencoded\r\n"}) {
    client.say(
        fmt::format("POST /tokenize HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}", type, body.size(), body));
    EXPECT_EQ(client.hear().status, 200) << type;
  }
}

TEST_F(HttpServerTest, ShowsItsModelsAndVersion) {
  const auto models = get("/v1/models").json();
  EXPECT_EQ(models["object"], "list");
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "tiny");
  EXPECT_EQ(models["data"][0]["root"], "/models/tiny");
  EXPECT_EQ(models["data"][0]["max_model_len"], 64);
  EXPECT_EQ(get("/v1/models/alias").json()["id"], "alias");
  EXPECT_EQ(get("/v1/models/none").status, 404);
  EXPECT_FALSE(get("/version").json()["version"].get<std::string>().empty());
}

TEST_F(HttpServerTest, TokenizesAndBack) {
  const auto plain = post("/tokenize", R"({"prompt": "ab", "return_token_strs": true})").json();
  EXPECT_EQ(plain["tokens"], (std::vector<int>{kTinyBos, 'a', 'b'}));
  EXPECT_EQ(plain["token_strs"], (std::vector<std::string>{"<s>", "a", "b"}));
  EXPECT_EQ(plain["count"], 3);
  EXPECT_EQ(plain["max_model_len"], 64);
  const auto chat =
      post("/tokenize", R"({"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": false})").json();
  EXPECT_EQ(chat["count"], 7);
  EXPECT_EQ(post("/detokenize", R"({"tokens": [97, 98]})").json()["prompt"], "ab");
}

TEST_F(HttpServerTest, TellsItsHealth) {
  EXPECT_EQ(get("/health").status, 200);
  jobs_->set_lost(true);
  const RawAnswer answer = get("/health");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.json()["error"]["message"], "the world is lost");
  EXPECT_EQ(post(kText, kGood).status, 503);
  jobs_->set_lost(false);
  expect_it_still_answers();
}

TEST_F(HttpServerTest, ExposesMetrics) {
  const RawAnswer answer = get("/metrics");
  EXPECT_EQ(answer.headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  for (const char* line :
       {"vllm:num_requests_running{model_name=\"tiny\"} 0", "# TYPE vllm:time_to_first_token_seconds histogram",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"tiny\",le=\"+Inf\"} 1",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"tiny\",le=\"0.02\"} 0",
        "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"stop\"} 0",
        "chorale:stage_compute_seconds_total{model_name=\"tiny\",stage=\"1\"} 0", "vllm:prompt_tokens_total",
        "vllm:kv_cache_usage_perc", "chorale:kv_blocks{model_name=\"tiny\",state=\"free\"} 0"})
    EXPECT_NE(answer.body.find(line), std::string::npos) << line << "\n" << answer.body;
}

TEST_F(HttpServerTest, DrainWaitsForWhatRunsAndRefusesMore) {
  RawClient running(port());
  running.post(kText, R"({"prompt": [0]})");
  ASSERT_TRUE(jobs_->wait_for_jobs(1));
  EXPECT_FALSE(server_->drain(Deadline::after(50ms)));
  const RawAnswer refused = post(kText, kGood);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(refused.headers.at("connection"), "close");
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_EQ(get("/metrics").status, 200);
  running.leave();
  EXPECT_TRUE(server_->drain(Deadline::after(10s)));
}

TEST_F(HttpServerTest, StopCancelsWhatRuns) {
  RawClient running(port());
  running.post(kText, R"({"prompt": [[0], [0]]})");
  ASSERT_TRUE(jobs_->wait_for_jobs(2));
  server_->stop();
  EXPECT_TRUE(jobs_->wait_for_jobs(0));
  EXPECT_TRUE(running.is_closed());
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  serve();
  coordinator::http::HttpOptions taken;
  taken.port = server_->port();
  coordinator::http::HttpServer second(taken);
  EXPECT_THROW(second.start(), Error);
  coordinator::http::HttpOptions nowhere;
  nowhere.host = "256.0.0.1";
  coordinator::http::HttpServer third(nowhere);
  EXPECT_THROW(third.start(), Error);
}

}  // namespace
}  // namespace chorale::test
