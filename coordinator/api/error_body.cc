#include "coordinator/api/error_body.h"

#include <nlohmann/json.hpp>

#include "coordinator/api/json.h"

namespace chorale::coordinator::api {
namespace {

constexpr int kRetryAfterSeconds = 1;

std::string_view type_of(int status) {
  switch (status) {
    case 401: return "authentication_error";
    case 408: return "timeout_error";
    case 429: return "rate_limit_error";
    case 500: return "server_error";
    case 503: return "service_unavailable_error";
    case 504: return "timeout_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

ApiError parse_error(const Failure& failure) {
  switch (failure.code) {
    case ErrorCode::kNotFound: return make_error(404, failure.message, "model_not_found");
    case ErrorCode::kResourceExhausted: return make_error(400, failure.message, "context_length_exceeded");
    case ErrorCode::kUnsupported: return make_error(400, failure.message, "unsupported_parameter");
    default: return make_error(400, failure.message);
  }
}

ApiError submit_error(const Failure& failure) {
  switch (failure.code) {
    case ErrorCode::kInvalidArgument: return make_error(400, failure.message);
    case ErrorCode::kResourceExhausted: {
      ApiError error = make_error(429, failure.message, "rate_limit_exceeded");
      error.retry_after_s = kRetryAfterSeconds;
      return error;
    }
    case ErrorCode::kUnsupported: {
      ApiError error = make_error(503, failure.message, "draining");
      error.retry_after_s = kRetryAfterSeconds;
      return error;
    }
    case ErrorCode::kPeerLost: return make_error(503, failure.message, "world_lost");
    default: return make_error(500, failure.message);
  }
}

ApiError run_error(const Failure& failure) {
  switch (failure.code) {
    case ErrorCode::kInvalidArgument: return make_error(400, failure.message);
    case ErrorCode::kDeadlineExceeded: return make_error(504, failure.message, "deadline_exceeded");
    case ErrorCode::kPeerLost: return make_error(503, failure.message, "world_lost");
    case ErrorCode::kUnsupported: return make_error(503, failure.message, "draining");
    case ErrorCode::kResourceExhausted: return make_error(503, failure.message, "resource_exhausted");
    default: return make_error(500, failure.message);
  }
}

}  // namespace

ApiError make_error(int status, std::string message, std::string code) {
  return ApiError{status, std::string(type_of(status)), std::move(message), "", std::move(code), 0};
}

ApiError to_api_error(const Failure& failure, FailedAt at) {
  ApiError error = at == FailedAt::kParse    ? parse_error(failure)
                   : at == FailedAt::kSubmit ? submit_error(failure)
                                             : run_error(failure);
  error.param = failure.param;
  return error;
}

std::string error_body(const ApiError& error) {
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  Json body;
  body["message"] = error.message;
  body["type"] = error.type;
  body["param"] = or_null(error.param);
  body["code"] = or_null(error.code);
  Json outer;
  outer["error"] = std::move(body);
  return to_text(outer);
}

}  // namespace chorale::coordinator::api
