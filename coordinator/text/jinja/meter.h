// What one render has used and may use, and the exception by which a template stops. Everything that works in
// proportion to a template's wishes charges the meter, so that a hostile template ends with an error. Used inside
// coordinator/text/jinja only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "coordinator/text/chat_template.h"

namespace chorale::coordinator::jinja {

/// A template is wrong or asked for too much. Caught in chat_template.cc only, which turns it into a Failure.
class TemplateError : public std::runtime_error {
 public:
  enum class Kind {
    kSyntax,     // at compile
    kRaised,     // the template called raise_exception
    kUndefined,  // an undefined value was used
    kSecurity,   // the sandbox refused
    kRuntime,    // a type or value is wrong
    kLimit,      // a RenderLimits member was passed
  };
  TemplateError(Kind kind, const std::string& message, int line = 0)
      : std::runtime_error(message), kind_(kind), line_(line) {}
  Kind kind() const { return kind_; }
  int line() const { return line_; }  // 0: where the interpreter stands

 private:
  Kind kind_;
  int line_;
};

template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw TemplateError(TemplateError::Kind::kRuntime, fmt::format(format, std::forward<Args>(args)...));
}

/// Counts one render's steps, live bytes and depth against its limits. Thread: one render.
class Meter {
 public:
  explicit Meter(const RenderLimits& limits) : limits_(limits) {}

  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.max_steps) exceeded("steps", limits_.max_steps);
  }
  /// Work and room for `bytes` more; the owner gives the room back with refund().
  void charge(size_t bytes) {
    if (bytes > limits_.max_live_bytes - live_bytes_) exceeded("bytes of values", limits_.max_live_bytes);
    step(1 + bytes / 64);
    live_bytes_ += bytes;
  }
  void refund(size_t bytes) { live_bytes_ -= bytes; }
  void check_output(size_t bytes) const {
    if (bytes > limits_.max_output_bytes) exceeded("bytes of output", limits_.max_output_bytes);
  }
  size_t live_bytes() const { return live_bytes_; }

  /// One level of recursion, for as long as it lives.
  class Level {
   public:
    explicit Level(Meter& meter) : meter_(meter) {
      if (meter_.depth_ >= meter_.limits_.max_depth) exceeded("nested calls", static_cast<uint64_t>(meter_.depth_));
      ++meter_.depth_;
    }
    ~Level() { --meter_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Meter& meter_;
  };

 private:
  [[noreturn]] static void exceeded(const char* what, uint64_t limit) {
    throw TemplateError(
        TemplateError::Kind::kLimit,
        fmt::format("the template needs more than {} {}; it is not a usable chat template", limit, what));
  }

  const RenderLimits limits_;
  uint64_t steps_ = 0;
  size_t live_bytes_ = 0;
  int depth_ = 0;
};

}  // namespace chorale::coordinator::jinja
