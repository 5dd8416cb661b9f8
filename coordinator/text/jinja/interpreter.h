// Walks a parsed template and writes its text. One Interpreter serves one render on one thread; chat_template.cc makes
// it. Filters, tests, methods and globals get it for its meter and to call back into values.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// Names and values of one block; names not here are looked for in the parent.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> outer) : parent(std::move(outer)) {}
  const Value* find(NameId id) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get())
      for (const auto& [name, value] : scope->variables)
        if (name == id) return &value;
    return nullptr;
  }
  void set(NameId id, Value value) {
    for (auto& [name, old] : variables)
      if (name == id) {
        old = std::move(value);
        return;
      }
    variables.emplace_back(id, std::move(value));
  }
  std::vector<std::pair<NameId, Value>> variables;
  std::shared_ptr<Scope> parent;
};

class Interpreter {
 public:
  Interpreter(const Template& parsed, const RenderLimits& limits, const ChatTemplate::Clock& clock);
  ~Interpreter();

  /// `variable(name)` gives a render variable, or nothing; asked once for each name that the template mentions.
  std::string run(const std::function<std::optional<Value>(const std::string&)>& variable);
  /// Where the last error arose.
  int line() const { return line_; }

  Meter& meter() { return meter_; }
  std::tm now() const { return clock_(); }
  Value string(std::string text, Markup markup = Markup::kNo) { return make_string(&meter_, std::move(text), markup); }
  Value list(std::vector<Value> items) { return make_list(&meter_, std::move(items)); }
  Value tuple(std::vector<Value> items) { return make_tuple(&meter_, std::move(items)); }
  Value undefined(std::string message) { return make_undefined(&meter_, std::move(message)); }
  Value make_namespace();

  Value call(const Value& callee, Arguments& arguments);
  Value call_filter(const std::string& name, const Value& input, Arguments& arguments);
  bool call_test(const std::string& name, const Value& input, Arguments& arguments);

 private:
  friend struct LoopObject;
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Capture;
  using ScopePtr = std::shared_ptr<Scope>;

  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_if(const Statement& statement);
  Flow execute_in_scope(const Body& body);
  Flow execute_set_block(const Statement& statement);
  Flow execute_filter_block(const Statement& statement);
  void execute_call_block(const Statement& statement);
  Flow execute_with(const Statement& statement);
  Flow run_loop(const Statement& statement, const Value& iterable, int depth0);
  std::string recurse_loop(const Statement& statement, const ScopePtr& scope, const Value& iterable, int depth0);
  Cursor filtered(const Statement& statement, Cursor source);
  void assign(const Target& target, const Value& value);
  void output(std::string_view text);

  Value evaluate(const Expr& expr);
  Value evaluate_name(const Expr& expr);
  Value evaluate_call(const Expr& expr);
  Value evaluate_filter(const Expr& expr, const Value& input);
  Value evaluate_compare(const Expr& expr);
  Value evaluate_arithmetic(const Expr& expr);
  Value evaluate_slice(const Expr& expr);
  Value evaluate_collection(const Expr& expr);
  Value evaluate_concat(const Expr& expr);
  Value evaluate_condition(const Expr& expr);
  static bool chain_starts_empty(const Expr& expr);
  bool evaluate_test(const Expr& expr);
  Arguments evaluate_arguments(const CallArguments& call);
  Value make_macro(const MacroNode& macro);
  Value call_macro(const CallableObject& macro, Arguments& arguments);

  Meter meter_;  // first: every value refunds to it
  const Template& template_;
  const ChatTemplate::Clock& clock_;
  ScopePtr scope_;
  std::string* out_ = nullptr;
  int line_ = 0;
  // What may hold a reference to itself; emptied at the end, so that nothing is left behind.
  std::vector<ScopePtr> captured_scopes_;
  std::vector<Value> namespaces_;
  std::vector<Value> escaped_loops_;
};

}  // namespace chorale::coordinator::jinja
