// A blocking HTTP client for `chorale submit`, `bench serve` and tests: one request a connection, a deadline on
// everything, answers whole or as server-sent events. It speaks plain HTTP/1.1; it retries nothing and follows no
// redirect.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "comm/base/deadline.h"
#include "comm/base/error.h"

namespace chorale::coordinator::http {

struct HttpAnswer {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // empty for a stream that was handed over as events
};

/// Thread: one call at a time; make one client a thread.
class HttpClient {
 public:
  /// True to give up (Ctrl-C); asked ten times a second while a call waits.
  using Interrupted = std::function<bool()>;
  /// `url` is "http://HOST[:PORT]", an optional "/v1" at its end is cut. Throws Error{kInvalidArgument}.
  explicit HttpClient(const std::string& url, std::string api_key = "", Interrupted interrupted = nullptr);

  // All throw Error: kPeerLost (refused, or closed too early), kDeadlineExceeded, kCorrupt (not HTTP), kSystem
  // (interrupted).
  HttpAnswer get(const std::string& path, Deadline deadline) const;
  HttpAnswer post(const std::string& path, const std::string& json, Deadline deadline) const;
  /// Hands over the data of each event, "[DONE]" too, as it comes. Where the answer is no stream, its body is returned
  /// whole.
  HttpAnswer post_stream(const std::string& path, const std::string& json,
                         const std::function<void(std::string_view)>& on_event, Deadline deadline) const;

 private:
  struct Call;
  HttpAnswer call(const Call& call) const;

  std::string host_;
  std::string port_;
  std::string api_key_;
  Interrupted interrupted_;
};

/// Cuts a byte stream into the data of server-sent events (WHATWG HTML, 9.2), whatever pieces it comes in.
class SseReader {
 public:
  void feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event);

 private:
  std::string line_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace chorale::coordinator::http
