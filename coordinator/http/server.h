// The HTTP/1.1 server of the coordinator: accepts connections and serves them on one thread, parses bodies on a few
// others. The serve command makes one, starts it, drains it on a signal and stops it. It owns neither the engine nor
// the model.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "comm/base/deadline.h"
#include "coordinator/api/job_service.h"
#include "coordinator/api/request.h"

namespace chorale::coordinator::http {

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;                         // 0: any free one
  std::vector<std::string> api_keys;       // any of them opens /v1/*; none: open to all
  int parse_threads = 1;                   // parse and tokenize bodies; as many more do so with long ones
  size_t long_body_bytes = 64 << 10;       // from here on a body is long: short ones do not wait for its tokenizing
  int max_connections = 1024;              // more are answered 503 and closed
  size_t max_header_bytes = 16 << 10;      // 431
  size_t max_body_bytes = 4 << 20;         // 413; each connection may hold one body
  size_t stream_buffer_bytes = 256 << 10;  // unsent text of one stream above which its job pauses
  int send_buffer_bytes = 128 << 10;       // of the kernel, per connection; 0: the system's own, which may be megabytes
  std::chrono::milliseconds idle_timeout{75000};   // between requests
  std::chrono::milliseconds read_timeout{30000};   // from a request's first byte to its last; 408
  std::chrono::milliseconds write_timeout{60000};  // without any progress; the connection is closed
  std::chrono::milliseconds request_timeout{0};    // from a request's last byte to its answer's end; 504. 0: none
};

/// Thread: one owner; drain may be called while requests run.
class HttpServer {
 public:
  /// Until open(), whatever needs a world is answered 503, with what it still waits for.
  explicit HttpServer(HttpOptions options);
  ~HttpServer();  // stops

  /// Binds and serves from then on. Throws Error{kInvalidArgument} for a host that does not resolve, {kSystem} for a
  /// port in use.
  void start();
  /// Thread: any.
  void set_waiting_for(const std::string& what);
  /// The world is there: from now on requests are served. Once, before or after start().
  void open(std::shared_ptr<const api::ApiContext> context, std::shared_ptr<api::JobService> jobs);
  /// The bound port; "http://host:port". REQUIRES start().
  int port() const;
  std::string url() const;

  /// Answers new generations 503, lets open ones finish until the deadline. True when all did. Other endpoints stay.
  bool drain(Deadline deadline);
  /// Closes every connection, which cancels its jobs, joins the threads and lets go of the job service.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chorale::coordinator::http
