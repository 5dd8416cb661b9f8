#include "comm/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace chorale {
namespace {
std::string& check_context() {
  static std::string context = "single process";
  return context;
}
}  // namespace

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid argument";
    case ErrorCode::kNotFound: return "not found";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kResourceExhausted: return "resource exhausted";
    case ErrorCode::kDeadlineExceeded: return "deadline exceeded";
    case ErrorCode::kPeerLost: return "peer lost";
    case ErrorCode::kSystem: return "system error";
  }
  return "unknown";
}

void set_check_context(std::string context) { check_context() = std::move(context); }

void internal::check_failed(const char* expression, const std::string& details, const char* file, int line) {
  std::fprintf(stderr, "chorale: CHECK failed: %s %s [%s] at %s:%d\n", expression, details.c_str(),
               check_context().c_str(), file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace chorale
