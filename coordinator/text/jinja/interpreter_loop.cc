// The for statement, plain and recursive.
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/interpreter_scope.h"
#include "coordinator/text/jinja/loop.h"
#include "coordinator/text/jinja/operators.h"

namespace chorale::coordinator::jinja {

/// Only the items for which the loop's `if` holds; looked at one by one, as the loop goes.
Cursor Interpreter::filtered(const Statement& statement, Cursor source) {
  return [this, &statement, source = std::move(source), outer = scope_](Value& out) {
    const InScope in_scope(scope_, std::make_shared<Scope>(outer));
    for (Value item; source(item);) {
      meter_.step();
      assign(statement.target, item);
      if (!truthy(evaluate(*statement.test))) continue;
      out = std::move(item);
      return true;
    }
    return false;
  };
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, const Value& iterable, int depth0) {
  Cursor cursor = iterate(*this, iterable);
  std::optional<int64_t> known_length = length(iterable);
  if (statement.test != nullptr) {
    cursor = filtered(statement, std::move(cursor));
    known_length = std::nullopt;
  }
  // Where the template kept the loop, it may have become part of a circle: it is emptied at the end of the render.
  struct Keeper {
    std::vector<Value>& escaped;
    std::shared_ptr<LoopObject> object;
    ~Keeper() {
      if (object.use_count() > 1) escaped.emplace_back(Kind::kLoop, std::move(object));
    }
  };
  const Keeper keeper{escaped_loops_,
                      std::make_shared<LoopObject>(*this, iterable, std::move(cursor), known_length, depth0)};
  LoopObject* const object = keeper.object.get();
  if (statement.recursive)
    object->recurse = [this, &statement, outer = scope_, depth0](const Value& inner) {
      return recurse_loop(statement, outer, inner, depth0 + 1);
    };
  const Value loop(Kind::kLoop, keeper.object);
  ScopePtr turn = std::make_shared<Scope>(scope_);
  Flow flow = Flow::kNext;
  bool any = false;
  while (object->advance()) {
    any = true;
    meter_.step();
    // A scope for each turn; the last turn's is used again unless a macro holds it.
    if (turn.use_count() > 1) turn = std::make_shared<Scope>(scope_);
    turn->variables.clear();
    const InScope in_scope(scope_, turn);
    assign(statement.target, object->current);
    if (statement.uses_loop) turn->set(template_.loop_name, loop);
    flow = execute(statement.body);
    if (flow == Flow::kBreak) break;
  }
  return any ? Flow::kNext : execute_in_scope(statement.else_body);
}

std::string Interpreter::recurse_loop(const Statement& statement, const ScopePtr& scope, const Value& iterable,
                                      int depth0) {
  const Meter::Level level(meter_);
  std::string text;
  const InScope in_scope(scope_, scope);
  const Capture capture(*this, text);
  run_loop(statement, iterable, depth0);
  return text;
}

}  // namespace chorale::coordinator::jinja
