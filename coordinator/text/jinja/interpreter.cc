// Statements: output, set, if, with, capture blocks. Loops and macros are in interpreter_loop.cc and
// interpreter_macro.cc.
#include "coordinator/text/jinja/interpreter.h"

#include "coordinator/text/jinja/globals.h"
#include "coordinator/text/jinja/interpreter_scope.h"
#include "coordinator/text/jinja/loop.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"

namespace chorale::coordinator::jinja {

Interpreter::Interpreter(const Template& parsed, const RenderLimits& limits, const ChatTemplate::Clock& clock)
    : meter_(limits), template_(parsed), clock_(clock), scope_(std::make_shared<Scope>(nullptr)) {}

Interpreter::~Interpreter() {
  // Namespaces, loops and captured scopes may hold themselves; emptied one by one, nothing recurses and nothing is
  // left.
  for (const Value& value : namespaces_) {
    auto attributes = std::move(value.as<NamespaceObject>().attributes);
    attributes.clear();
  }
  for (const Value& value : escaped_loops_) value.as<LoopObject>().clear();
  captured_scopes_.push_back(std::move(scope_));
  for (const ScopePtr& scope : captured_scopes_) {
    auto variables = std::move(scope->variables);
    variables.clear();
  }
}

std::string Interpreter::run(const std::function<std::optional<Value>(const std::string&)>& variable) {
  for (NameId id = 0; id < template_.names.size(); ++id) {
    const std::string& name = template_.names[id];
    if (auto value = variable(name))
      scope_->set(id, std::move(*value));
    else if (auto global = find_global(*this, name))
      scope_->set(id, std::move(*global));
  }
  scope_ = std::make_shared<Scope>(scope_);
  std::string text;
  {
    const Capture capture(*this, text);
    execute(template_.body);
  }
  return text;
}

Value Interpreter::make_namespace() {
  namespaces_.emplace_back(Kind::kNamespace, std::make_shared<NamespaceObject>(&meter_));
  return namespaces_.back();
}

void Interpreter::output(std::string_view text) {
  meter_.charge(text.size());  // given back when the capture ends
  out_->append(text);
  meter_.check_output(out_->size());
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const Statement& statement : body) {
    const Flow flow = execute(statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  const Meter::Level level(meter_);
  meter_.step();
  line_ = statement.line;
  switch (statement.kind) {
    case StatementKind::kText: output(statement.text); break;
    case StatementKind::kOutput:
      for (const ExprPtr& expr : statement.exprs) {
        const Value value = evaluate(*expr);
        if (value.is_string())
          output(value.text());
        else if (!value.is_undefined())
          output(str(*this, value));
      }
      break;
    case StatementKind::kIf: return execute_if(statement);
    case StatementKind::kFor:
      if (!statement.recursive) return run_loop(statement, evaluate(*statement.exprs[0]), 0);
      output(recurse_loop(statement, scope_, evaluate(*statement.exprs[0]), 0));
      break;
    case StatementKind::kSet: assign(statement.target, evaluate(*statement.exprs[0])); break;
    case StatementKind::kSetBlock: return execute_set_block(statement);
    case StatementKind::kMacro: scope_->set(statement.macro->name_id, make_macro(*statement.macro)); break;
    case StatementKind::kCallBlock: execute_call_block(statement); break;
    case StatementKind::kFilterBlock: return execute_filter_block(statement);
    case StatementKind::kWith: return execute_with(statement);
    case StatementKind::kScope: return execute_in_scope(statement.body);
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
    case StatementKind::kUnsupported: raise("{}", statement.text);
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_if(const Statement& statement) {
  for (const Statement::Branch& branch : statement.branches)
    if (truthy(evaluate(*branch.test))) return execute(branch.body);
  return execute(statement.else_body);
}

Interpreter::Flow Interpreter::execute_in_scope(const Body& body) {
  const InScope in_scope(scope_, std::make_shared<Scope>(scope_));
  return execute(body);
}

Interpreter::Flow Interpreter::execute_set_block(const Statement& statement) {
  std::string text;
  Flow flow;
  {
    const Capture capture(*this, text);
    flow = execute_in_scope(statement.body);
  }
  if (flow != Flow::kNext) return flow;
  Value value = string(std::move(text));
  if (statement.filter != nullptr) value = evaluate_filter(*statement.filter, value);
  assign(statement.target, value);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_filter_block(const Statement& statement) {
  std::string text;
  Flow flow;
  {
    const Capture capture(*this, text);
    flow = execute_in_scope(statement.body);
  }
  if (flow != Flow::kNext) return flow;
  output(str(*this, evaluate_filter(*statement.filter, string(std::move(text)))));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_with(const Statement& statement) {
  std::vector<Value> values;  // all in the outer scope: with a = 1, b = a does not see the new a
  for (const ExprPtr& expr : statement.exprs) values.push_back(evaluate(*expr));
  const InScope in_scope(scope_, std::make_shared<Scope>(scope_));
  for (size_t i = 0; i < values.size(); ++i) assign(statement.targets[i], values[i]);
  return execute(statement.body);
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.kind == Target::Kind::kName) return scope_->set(target.name_id, value);
  if (target.kind == Target::Kind::kNamespaceAttribute) {
    const Value* owner = scope_->find(target.name_id);
    if (owner == nullptr || !owner->is(Kind::kNamespace)) raise("cannot assign attribute on non-namespace object");
    return owner->as<NamespaceObject>().set(*this, target.attribute, value);
  }
  const Cursor cursor = iterate(*this, value);
  const size_t wanted = target.items.size();
  for (size_t i = 0; i < wanted; ++i) {
    Value item;
    if (!cursor(item)) raise("not enough values to unpack (expected {}, got {})", wanted, i);
    assign(target.items[i], item);
  }
  Value extra;
  if (cursor(extra)) raise("too many values to unpack (expected {})", wanted);
}

}  // namespace chorale::coordinator::jinja
