// From a request to what answers it: routes, methods, API keys, and the endpoints that need no generation. Called by
// HTTP sessions; it knows no socket.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
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

/// Thread-safe, but for open() and close().
class Router {
 public:
  /// Answers 503 to all that needs a world, with what the world still waits for, until open().
  explicit Router(const std::vector<std::string>& api_keys);
  void set_waiting_for(const std::string& what);
  /// Once.
  void open(std::shared_ptr<const api::ApiContext> context, std::shared_ptr<api::JobService> jobs);
  /// Lets go of both. REQUIRES: no request is being routed.
  void close();

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
  Reply not_ready() const;

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
  std::atomic<bool> is_open_{false};      // context_ and jobs_ are written before and read after
  std::shared_ptr<const api::ApiContext> context_;
  std::shared_ptr<api::JobService> jobs_;
  mutable std::mutex waits_mutex_;  // guards waits_for_
  std::string waits_for_ = "the world of workers is starting";
  std::shared_ptr<HttpCounters> counters_;
  std::atomic<bool> draining_{false};
};

}  // namespace chorale::coordinator::http
