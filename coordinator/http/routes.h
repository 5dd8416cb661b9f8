// From a request to what answers it: routes, methods, API keys, and the endpoints that need no generation. Called by
// HTTP sessions; it knows no socket.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/api/error_body.h"
#include "coordinator/api/job_service.h"
#include "coordinator/api/request.h"
#include "coordinator/http/metrics.h"

namespace chorale::coordinator::http {

struct Request {
  std::string method;
  std::string target;
  std::string authorization;
  std::string content_type;
  std::string content_encoding;
  std::string request_id;
  std::string body;
};

struct Reply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};
Reply error_reply(const api::ApiError& error);

/// An answer at once, or jobs to run.
using Routed = std::variant<Reply, api::ParsedRequest>;

/// Where a request is best handled: bodies are tokenized away from the thread that serves the streams.
enum class HandledOn { kConnectionThread, kParseThread };

/// Thread-safe.
class Router {
 public:
  Router(std::vector<std::string> api_keys, std::shared_ptr<const api::ApiContext> context,
         std::shared_ptr<api::JobService> jobs);

  HandledOn handled_on(const Request& request) const;
  /// Never throws: an Error becomes 500.
  Routed route(const Request& request) const;

  /// From now on generations are answered 503.
  void start_draining() { draining_ = true; }
  bool is_draining() const { return draining_; }
  HttpCounters& counters() const { return *counters_; }

 private:
  struct Route;
  static const std::vector<Route>& routes();
  static const Route* find(const std::string& path);
  bool is_authorized(const Request& request) const;
  Routed dispatch(const Request& request) const;

  Routed completions(const Request& request) const;
  Routed chat(const Request& request) const;
  Routed tokenize(const Request& request) const;
  Routed detokenize(const Request& request) const;
  Routed models(const Request& request) const;
  Routed model(const Request& request) const;
  Routed health(const Request& request) const;
  Routed version(const Request& request) const;
  Routed metrics(const Request& request) const;

  std::vector<std::string> key_digests_;  // SHA-256
  std::shared_ptr<const api::ApiContext> context_;
  std::shared_ptr<api::JobService> jobs_;
  std::shared_ptr<HttpCounters> counters_;
  std::atomic<bool> draining_{false};
};

}  // namespace chorale::coordinator::http
