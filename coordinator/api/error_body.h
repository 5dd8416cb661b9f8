// OpenAI's error object and the HTTP status that goes with a Failure. Everything the server refuses is answered through
// it.
#pragma once

#include <string>
#include <string_view>

#include "comm/base/error.h"

namespace chorale::coordinator::api {

struct ApiError {
  int status = 500;
  std::string type;  // "invalid_request_error", ...
  std::string message;
  std::string param;      // "" prints null
  std::string code;       // "" prints null
  int retry_after_s = 0;  // 0: no Retry-After
};

/// Where a Failure came from decides its status: the same code means the client's fault while parsing, the server's
/// state afterwards.
enum class FailedAt { kParse, kSubmit, kRun };
ApiError to_api_error(const Failure& failure, FailedAt at);
ApiError make_error(int status, std::string message, std::string code = "");

/// {"error": {"message", "type", "param", "code"}}
std::string error_body(const ApiError& error);

}  // namespace chorale::coordinator::api
