// Expressions.
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/tests.h"

namespace chorale::coordinator::jinja {

Value Interpreter::evaluate(const Expr& expr) {
  const Meter::Level level(meter_);
  meter_.step();
  switch (expr.kind) {
    case ExprKind::kConstant: return expr.constant;
    case ExprKind::kName: return evaluate_name(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
    case ExprKind::kDict: return evaluate_collection(expr);
    case ExprKind::kAttribute: return get_attribute(*this, evaluate(*expr.operands[0]), expr.name);
    case ExprKind::kItem: {
      const Value owner = evaluate(*expr.operands[0]);
      return get_item(*this, owner, evaluate(*expr.operands[1]));
    }
    case ExprKind::kSlice: return evaluate_slice(expr);
    case ExprKind::kCall: return evaluate_call(expr);
    case ExprKind::kFilter: return evaluate_filter(expr, evaluate(*expr.operands[0]));
    case ExprKind::kTest: return Value(evaluate_test(expr));
    case ExprKind::kCondition: return evaluate_condition(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      Value left = evaluate(*expr.operands[0]);
      return truthy(left) == (expr.kind == ExprKind::kOr) ? left : evaluate(*expr.operands[1]);
    }
    case ExprKind::kNot: return Value(!truthy(evaluate(*expr.operands[0])));
    case ExprKind::kNegative: return negative(evaluate(*expr.operands[0]));
    case ExprKind::kPositive: return positive(evaluate(*expr.operands[0]));
    case ExprKind::kConcat: return evaluate_concat(expr);
    case ExprKind::kCompare: return evaluate_compare(expr);
    default: return evaluate_arithmetic(expr);
  }
}

Value Interpreter::evaluate_name(const Expr& expr) {
  if (const Value* value = scope_->find(expr.name_id)) return *value;
  return undefined(fmt::format("'{}' is undefined", template_.names[expr.name_id]));
}

Value Interpreter::evaluate_arithmetic(const Expr& expr) {
  const Value left = evaluate(*expr.operands[0]);
  const Value right = evaluate(*expr.operands[1]);
  line_ = expr.line;
  return arithmetic(*this, expr.kind, left, right);
}

Value Interpreter::evaluate_slice(const Expr& expr) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i)
    if (expr.operands[i] != nullptr) parts[i] = evaluate(*expr.operands[i]);
  return get_slice(*this, parts[0], parts[1], parts[2], parts[3]);
}

Value Interpreter::evaluate_collection(const Expr& expr) {
  if (expr.kind == ExprKind::kDict) {
    const auto dict = std::make_shared<DictObject>(&meter_);
    for (size_t i = 0; i < expr.operands.size(); i += 2) {
      const Value key = evaluate(*expr.operands[i]);
      dict->set(*this, key, evaluate(*expr.operands[i + 1]));
    }
    return Value(Kind::kDict, dict);
  }
  std::vector<Value> items;
  items.reserve(expr.operands.size());
  for (const ExprPtr& operand : expr.operands) items.push_back(evaluate(*operand));
  return expr.kind == ExprKind::kList ? list(std::move(items)) : tuple(std::move(items));
}

Value Interpreter::evaluate_concat(const Expr& expr) {
  std::string text;
  for (const ExprPtr& operand : expr.operands) {
    text += str(*this, evaluate(*operand));
    meter_.check_output(text.size());
  }
  return string(std::move(text));
}

Value Interpreter::evaluate_condition(const Expr& expr) {
  if (truthy(evaluate(*expr.operands[0]))) return evaluate(*expr.operands[1]);
  if (expr.operands[2] != nullptr) return evaluate(*expr.operands[2]);
  return undefined(fmt::format(
      "the inline if-expression on line {} evaluated to false and no else section was defined.", expr.line));
}

Value Interpreter::evaluate_compare(const Expr& expr) {
  Value left = evaluate(*expr.operands[0]);
  for (size_t i = 0; i < expr.compare_ops.size(); ++i) {
    Value right = evaluate(*expr.operands[i + 1]);
    if (!compare(*this, expr.compare_ops[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Arguments Interpreter::evaluate_arguments(const CallArguments& call) {
  constexpr size_t kMaxArguments = 1000;  // they are not charged to the meter
  Arguments arguments;
  for (const ExprPtr& argument : call.positional) arguments.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : call.named) arguments.named.emplace_back(name, evaluate(*argument));
  if (call.star != nullptr) {
    const Cursor cursor = iterate(*this, evaluate(*call.star));
    for (Value item; cursor(item);) {
      arguments.positional.push_back(std::move(item));
      if (arguments.positional.size() > kMaxArguments) raise("a call has more than {} arguments", kMaxArguments);
    }
  }
  if (call.double_star != nullptr) {
    const Value more = evaluate(*call.double_star);
    if (more.is_undefined()) raise_undefined(more);
    if (!more.is(Kind::kDict)) raise("argument after ** must be a mapping, not {}", type_name(more));
    if (more.dict().entries.size() > kMaxArguments) raise("a call has more than {} arguments", kMaxArguments);
    for (const auto& [key, value] : more.dict().entries) {
      if (!key.is_string()) raise("keywords must be strings");
      for (const auto& [name, other] : arguments.named)
        if (name == key.text()) raise("got multiple values for keyword argument '{}'", name);
      arguments.named.emplace_back(key.text(), value);
    }
  }
  return arguments;
}

Value Interpreter::evaluate_call(const Expr& expr) {
  const Value callee = evaluate(*expr.operands[0]);
  Arguments arguments = evaluate_arguments(expr.call);
  line_ = expr.line;
  return call(callee, arguments);
}

Value Interpreter::evaluate_filter(const Expr& expr, const Value& given) {
  // In a filter block the innermost filter has no operand: it takes the block's text.
  const Expr* inner = expr.operands[0].get();
  const bool in_chain = inner != nullptr && inner->kind == ExprKind::kFilter && chain_starts_empty(*inner);
  const Value input = in_chain ? evaluate_filter(*inner, given) : given;
  if (expr.filter == nullptr) raise("No filter named '{}'.", expr.name);
  Arguments arguments = evaluate_arguments(expr.call);
  line_ = expr.line;
  meter_.step();
  return expr.filter->apply(*this, input, arguments);
}

bool Interpreter::chain_starts_empty(const Expr& expr) {
  const Expr* at = &expr;
  while (at != nullptr && at->kind == ExprKind::kFilter) at = at->operands[0].get();
  return at == nullptr;
}

bool Interpreter::evaluate_test(const Expr& expr) {
  if (expr.test == nullptr) raise("No test named '{}'.", expr.name);
  const Value input = evaluate(*expr.operands[0]);
  Arguments arguments = evaluate_arguments(expr.call);
  line_ = expr.line;
  return expr.test->holds(*this, input, arguments);
}

Value Interpreter::call_filter(const std::string& name, const Value& input, Arguments& arguments) {
  const Meter::Level level(meter_);
  const Filter* filter = find_filter(name);
  if (filter == nullptr) raise("No filter named '{}'.", name);
  return filter->apply(*this, input, arguments);
}

bool Interpreter::call_test(const std::string& name, const Value& input, Arguments& arguments) {
  const Meter::Level level(meter_);
  const Test* test = find_test(name);
  if (test == nullptr) raise("No test named '{}'.", name);
  return test->holds(*this, input, arguments);
}

}  // namespace chorale::coordinator::jinja
