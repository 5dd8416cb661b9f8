// A server on a free loopback port with a scripted engine behind it: the ground of all HTTP tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/http/server.h"
#include "tests/support/tiny_text.h"
#include "tests/unit/coordinator/raw_client.h"
#include "tests/unit/coordinator/scripted_jobs.h"

namespace chorale::test {

class HttpTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.port = 0;
    context_ = tiny_context();
  }
  void serve() {
    start_without_world();
    server_->open(context_, jobs_);
  }
  void start_without_world() {
    server_ = std::make_unique<coordinator::http::HttpServer>(options_);
    server_->start();
  }
  int port() {
    if (server_ == nullptr) serve();
    return server_->port();
  }
  RawAnswer post(const std::string& path, const std::string& body, const std::string& headers = "") {
    RawClient client(port());
    client.post(path, body, headers);
    return client.hear();
  }
  RawAnswer get(const std::string& path, const std::string& headers = "") {
    RawClient client(port());
    client.get(path, headers);
    return client.hear();
  }
  void expect_it_still_answers() {
    const RawAnswer answer = post("/v1/completions", R"({"prompt": "hello", "max_tokens": 3})");
    ASSERT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.json().at("choices").at(0).at("text"), "abc");
  }
  /// The JSON of each event of a stream, without the last "[DONE]", whose presence is checked.
  static std::vector<nlohmann::json> events(const std::string& body) {
    std::vector<nlohmann::json> list;
    size_t at = 0;
    bool done = false;
    while (at < body.size()) {
      const size_t end = body.find("\n\n", at);
      if (end == std::string::npos || body.compare(at, 6, "data: ") != 0) {
        ADD_FAILURE() << "not an event: " << body.substr(at, 200);
        break;
      }
      const std::string data = body.substr(at + 6, end - at - 6);
      EXPECT_FALSE(done) << "after [DONE]: " << data;
      if (data == "[DONE]")
        done = true;
      else
        list.push_back(nlohmann::json::parse(data));
      at = end + 2;
    }
    EXPECT_TRUE(done);
    return list;
  }

  coordinator::http::HttpOptions options_;
  std::shared_ptr<coordinator::api::ApiContext> context_;
  std::shared_ptr<ScriptedJobs> jobs_ = std::make_shared<ScriptedJobs>();
  std::unique_ptr<coordinator::http::HttpServer> server_;
};

}  // namespace chorale::test
