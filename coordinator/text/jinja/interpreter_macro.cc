// Macros, call blocks, and calls of any callable value.
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/interpreter_scope.h"
#include "coordinator/text/jinja/loop.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"

namespace chorale::coordinator::jinja {
namespace {

/// Takes the named argument out of the call.
std::optional<Value> take_named(Arguments& arguments, std::string_view name) {
  for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it)
    if (it->first == name) {
      Value value = std::move(it->second);
      arguments.named.erase(it);
      return value;
    }
  return std::nullopt;
}

}  // namespace

Value Interpreter::make_macro(const MacroNode& macro) {
  auto object = std::make_shared<CallableObject>(&meter_, macro.name, Value(), nullptr);
  object->macro = &macro;
  object->scope = scope_;
  if (captured_scopes_.empty() || captured_scopes_.back() != scope_) {
    meter_.charge(sizeof(Scope));  // kept until the render ends
    captured_scopes_.push_back(scope_);
  }
  return Value(Kind::kCallable, std::move(object));
}

/// Parameters by position, then by name, then defaults; then caller, kwargs and varargs where the body uses them.
Value Interpreter::call_macro(const CallableObject& callable, Arguments& arguments) {
  const MacroNode& macro = *callable.macro;
  const size_t num_parameters = macro.parameters.size();
  const InScope in_scope(scope_, std::make_shared<Scope>(callable.scope));
  const ScopePtr scope = scope_;
  size_t given = std::min(num_parameters, arguments.positional.size());
  std::vector<size_t> missing;
  bool caller_is_parameter = false;
  for (size_t i = 0; i < num_parameters; ++i) {
    const auto& [name, id] = macro.parameters[i];
    caller_is_parameter = caller_is_parameter || name == "caller";
    if (i < given)
      scope->set(id, arguments.positional[i]);
    else if (auto value = take_named(arguments, name))
      scope->set(id, std::move(*value));
    else
      missing.push_back(i);
  }
  if (macro.uses_caller && !caller_is_parameter) {
    auto caller = take_named(arguments, "caller");
    scope->set(template_.caller_name, caller ? std::move(*caller) : undefined("No caller defined"));
  }
  if (macro.uses_kwargs) {
    const auto kwargs = std::make_shared<DictObject>(&meter_);
    for (auto& [name, value] : arguments.named) kwargs->set(*this, string(name), std::move(value));
    scope->set(template_.kwargs_name, Value(Kind::kDict, kwargs));
  } else if (!arguments.named.empty()) {
    raise("macro '{}' takes no keyword argument '{}'", macro.name, arguments.named[0].first);
  }
  if (macro.uses_varargs) {
    const auto begin = arguments.positional.begin() + static_cast<ptrdiff_t>(given);
    scope->set(template_.varargs_name, tuple({begin, arguments.positional.end()}));
  } else if (arguments.positional.size() > num_parameters) {
    raise("macro '{}' takes not more than {} argument(s)", macro.name, num_parameters);
  }
  for (const size_t i : missing) {
    const auto& [name, id] = macro.parameters[i];
    const size_t first_default = num_parameters - macro.defaults.size();
    scope->set(id, i >= first_default ? evaluate(*macro.defaults[i - first_default])
                                      : undefined(fmt::format("parameter '{}' was not provided", name)));
  }
  std::string text;
  {
    const Capture capture(*this, text);
    execute(macro.body);
  }
  return string(std::move(text));
}

void Interpreter::execute_call_block(const Statement& statement) {
  const Expr& call_expr = *statement.exprs[0];
  const Value callee = evaluate(*call_expr.operands[0]);
  Arguments arguments = evaluate_arguments(call_expr.call);
  arguments.named.emplace_back("caller", make_macro(*statement.macro));
  output(str(*this, call(callee, arguments)));
}

Value Interpreter::call(const Value& callee, Arguments& arguments) {
  const Meter::Level level(meter_);
  meter_.step();
  if (callee.is_undefined()) raise_undefined(callee);
  if (callee.is(Kind::kLoop)) return call_loop(*this, callee, arguments);
  if (!callee.is(Kind::kCallable)) raise("'{}' object is not callable", type_name(callee));
  const auto& callable = callee.as<CallableObject>();
  if (callable.macro == nullptr) return callable.call(*this, arguments);
  const Value keep = callee;  // the macro may overwrite the variable that holds it
  return call_macro(callable, arguments);
}

}  // namespace chorale::coordinator::jinja
