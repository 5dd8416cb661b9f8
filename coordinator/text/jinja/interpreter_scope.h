// Guards that the interpreter's files share: a scope for some time, and a place where output goes for some time.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "coordinator/text/jinja/interpreter.h"

namespace chorale::coordinator::jinja {

/// Makes `inner` the scope while it lives.
class InScope {
 public:
  InScope(std::shared_ptr<Scope>& scope, std::shared_ptr<Scope> inner)
      : scope_(scope), outer_(std::exchange(scope, std::move(inner))) {}
  ~InScope() { scope_ = std::move(outer_); }
  InScope(const InScope&) = delete;
  InScope& operator=(const InScope&) = delete;

 private:
  std::shared_ptr<Scope>& scope_;
  std::shared_ptr<Scope> outer_;
};

/// Sends output to `text` while it lives, and then stops counting it as live: whoever keeps the text charges for it.
class Interpreter::Capture {
 public:
  Capture(Interpreter& interpreter, std::string& text)
      : interpreter_(interpreter), outer_(std::exchange(interpreter.out_, &text)), text_(text) {}
  ~Capture() {
    interpreter_.meter_.refund(text_.size());
    interpreter_.out_ = outer_;
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

 private:
  Interpreter& interpreter_;
  std::string* outer_;
  std::string& text_;
};

}  // namespace chorale::coordinator::jinja
