// The project's three kinds of error (docs/style: errors). A bug is CHECK: it prints and aborts. The world failing
// (file, socket, MPI, peer, corrupt input) throws Error. An expected outcome (queue full, bad request) is std::optional
// or Result<T>.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <fmt/format.h>

namespace chorale {

enum class ErrorCode {
  kInvalidArgument,    // a value the user gave is wrong
  kNotFound,           // a file, tensor, model or route does not exist
  kCorrupt,            // outside bytes violate their format
  kUnsupported,        // valid, but nothing here implements it
  kResourceExhausted,  // memory, queue, blocks, ports
  kDeadlineExceeded,   // a blocking call did not finish in time
  kPeerLost,           // a rank, socket or process went away
  kSystem,             // a system or library call failed
};
std::string_view to_string(ErrorCode code);

/// The world failed. Caught in three places only: HTTP session, engine thread, main.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// An expected failure: what was wrong, what was expected, what to do. `param` names the offending field, if any.
struct Failure {
  ErrorCode code = ErrorCode::kInvalidArgument;
  std::string message;
  std::string param;
};

/// A value or a Failure. Reading the wrong one is a bug.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}            // NOLINT(google-explicit-constructor)
  Result(Failure failure) : state_(std::move(failure)) {}  // NOLINT(google-explicit-constructor)
  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Failure& failure() const { return std::get<1>(state_); }

 private:
  std::variant<T, Failure> state_;
};

namespace internal {
[[noreturn]] void check_failed(const char* expression, const std::string& details, const char* file, int line);

template <typename A, typename B>
std::string show_both(const A& a, const B& b) {
  return fmt::format("({} vs {})", a, b);
}
}  // namespace internal

/// Sets what CHECK prints as the rank of this process ("rank 2 of 4"); once, after the world is known.
void set_check_context(std::string context);

}  // namespace chorale

#define CHECK(condition)                                                                     \
  do {                                                                                       \
    if (!(condition)) ::chorale::internal::check_failed(#condition, "", __FILE__, __LINE__); \
  } while (false)
#define CHECK_OP_(a, op, b)                                                                                    \
  do {                                                                                                         \
    const auto& check_a_ = (a);                                                                                \
    const auto& check_b_ = (b);                                                                                \
    if (!(check_a_ op check_b_))                                                                               \
      ::chorale::internal::check_failed(#a " " #op " " #b, ::chorale::internal::show_both(check_a_, check_b_), \
                                        __FILE__, __LINE__);                                                   \
  } while (false)
#define CHECK_EQ(a, b) CHECK_OP_(a, ==, b)
#define CHECK_NE(a, b) CHECK_OP_(a, !=, b)
#define CHECK_LT(a, b) CHECK_OP_(a, <, b)
#define CHECK_LE(a, b) CHECK_OP_(a, <=, b)
#define CHECK_GT(a, b) CHECK_OP_(a, >, b)
#define CHECK_GE(a, b) CHECK_OP_(a, >=, b)
