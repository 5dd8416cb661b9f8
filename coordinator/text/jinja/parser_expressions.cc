#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/parser.h"
#include "coordinator/text/jinja/tests.h"

namespace chorale::coordinator::jinja {
namespace {

constexpr int kMaxExpressionDepth = 200;

}  // namespace

ExprPtr Parser::make(ExprKind kind, int line) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExprPtr Parser::make(ExprKind kind, int line, ExprPtr first, ExprPtr second) const {
  ExprPtr node = make(kind, line);
  node->operands.push_back(std::move(first));
  if (second != nullptr) node->operands.push_back(std::move(second));
  return finish(std::move(node));
}

ExprPtr Parser::finish(ExprPtr node) const {
  const auto include = [&](const ExprPtr& child) {
    if (child != nullptr) node->depth = std::max(node->depth, child->depth + 1);
  };
  for (const ExprPtr& operand : node->operands) include(operand);
  for (const ExprPtr& argument : node->call.positional) include(argument);
  for (const auto& [name, argument] : node->call.named) include(argument);
  include(node->call.star);
  include(node->call.double_star);
  if (node->depth > kMaxExpressionDepth)
    fail(fmt::format("an expression is nested more than {} deep", kMaxExpressionDepth), node->line);
  return node;
}

ExprPtr Parser::parse_expression(Conditional conditional) {
  const Nesting nesting(*this);
  return conditional == Conditional::kAllowed ? parse_condition() : parse_or();
}

ExprPtr Parser::parse_condition() {
  const Nesting nesting(*this);
  const size_t unknown_before = unknown_.size();
  ExprPtr node = parse_or();
  while (at_name("if")) {
    const int line = next().line;
    ExprPtr condition = make(ExprKind::kCondition, line);
    condition->operands.push_back(parse_or());
    condition->operands.push_back(std::move(node));
    condition->operands.push_back(skip_name("else") ? parse_condition() : nullptr);
    node = finish(std::move(condition));
    unknown_.resize(unknown_before);
  }
  return node;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (at_name("or")) {
    const int line = next().line;
    left = make(ExprKind::kOr, line, std::move(left), parse_and());
  }
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (at_name("and")) {
    const int line = next().line;
    left = make(ExprKind::kAnd, line, std::move(left), parse_not());
  }
  return left;
}

ExprPtr Parser::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Nesting nesting(*this);
  const int line = next().line;
  return make(ExprKind::kNot, line, parse_not());
}

ExprPtr Parser::parse_compare() {
  const int line = current().line;
  ExprPtr first = parse_sum();
  static const std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
      {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe},
  };
  ExprPtr node = make(ExprKind::kCompare, line);
  node->operands.push_back(std::move(first));
  const auto add = [&](CompareOp op) {
    node->compare_ops.push_back(op);
    node->operands.push_back(parse_sum());
  };
  while (true) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [&](const auto& entry) { return at_operator(entry.first); });
    if (found != std::end(kOperators)) {
      next();
      add(found->second);
    } else if (skip_name("in")) {
      add(CompareOp::kIn);
    } else if (at_name("not") && look().kind == TokenKind::kName && look().text == "in") {
      position_ += 2;
      add(CompareOp::kNotIn);
    } else {
      break;
    }
  }
  if (node->compare_ops.empty()) return std::move(node->operands[0]);
  return finish(std::move(node));
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (at_operator("+") || at_operator("-")) {
    const Token token = next();
    left = make(token.text == "+" ? ExprKind::kAdd : ExprKind::kSubtract, token.line, std::move(left), parse_concat());
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  const int line = current().line;
  ExprPtr first = parse_product();
  if (!at_operator("~")) return first;
  ExprPtr node = make(ExprKind::kConcat, line);
  node->operands.push_back(std::move(first));
  while (skip_operator("~")) node->operands.push_back(parse_product());
  return finish(std::move(node));
}

ExprPtr Parser::parse_product() {
  ExprPtr left = parse_power();
  while (at_operator("*") || at_operator("/") || at_operator("//") || at_operator("%")) {
    const Token token = next();
    const ExprKind kind = token.text == "*"    ? ExprKind::kMultiply
                          : token.text == "/"  ? ExprKind::kDivide
                          : token.text == "//" ? ExprKind::kFloorDivide
                                               : ExprKind::kModulo;
    left = make(kind, token.line, std::move(left), parse_power());
  }
  return left;
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary();
  while (at_operator("**")) {
    const int line = next().line;
    left = make(ExprKind::kPower, line, std::move(left), parse_unary());
  }
  return left;
}

/// A sign applies before filters and tests: -1|abs is (-1)|abs.
ExprPtr Parser::parse_unary() { return parse_filters_and_tests(parse_signed()); }

ExprPtr Parser::parse_signed() {
  if (!at_operator("-") && !at_operator("+")) return parse_postfix(parse_primary());
  const Nesting nesting(*this);
  const Token token = next();
  const ExprKind kind = token.text == "-" ? ExprKind::kNegative : ExprKind::kPositive;
  return parse_postfix(make(kind, token.line, parse_signed()));
}

ExprPtr Parser::parse_primary() {
  const Token& token = current();
  if (token.kind == TokenKind::kName) return parse_name();
  if (token.kind == TokenKind::kString) {
    ExprPtr node = make(ExprKind::kConstant, token.line);
    std::string text;
    while (current().kind == TokenKind::kString) text += next().text;
    node->constant = make_string(nullptr, std::move(text));
    return node;
  }
  if (token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat) {
    ExprPtr node = make(ExprKind::kConstant, token.line);
    node->constant = token.kind == TokenKind::kInteger ? Value(token.integer) : Value(token.number);
    next();
    return node;
  }
  if (at_operator("(")) {
    next();
    ExprPtr node = parse_tuple(Conditional::kAllowed, {}, true);
    expect_operator(")");
    return node;
  }
  if (at_operator("[")) return parse_list();
  if (at_operator("{")) return parse_dict();
  fail(fmt::format("unexpected '{}'", describe(token)));
}

ExprPtr Parser::parse_name() {
  const Token token = next();
  ExprPtr node = make(ExprKind::kConstant, token.line);
  const std::string& name = token.text;
  if (name == "true" || name == "True") {
    node->constant = Value(true);
  } else if (name == "false" || name == "False") {
    node->constant = Value(false);
  } else if (name != "none" && name != "None") {
    node->kind = ExprKind::kName;
    node->name_id = intern(name);
    for (MacroNode* macro : macros_) {
      macro->uses_caller = macro->uses_caller || name == "caller";
      macro->uses_kwargs = macro->uses_kwargs || name == "kwargs";
      macro->uses_varargs = macro->uses_varargs || name == "varargs";
    }
    if (name == "loop")
      for (bool* user : loop_users_) *user = true;
  }
  return node;
}

ExprPtr Parser::parse_tuple(Conditional conditional, std::string_view end_name, bool parenthesised) {
  const int line = current().line;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    const bool at_end = current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
                        at_operator(")") || (!end_name.empty() && at_name(end_name));
    if (at_end) break;
    items.push_back(parse_expression(conditional));
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !parenthesised) fail(fmt::format("Expected an expression, got '{}'", describe(current())));
  ExprPtr node = make(ExprKind::kTuple, line);
  node->operands = std::move(items);
  return finish(std::move(node));
}

ExprPtr Parser::parse_list() {
  ExprPtr node = make(ExprKind::kList, next().line);
  while (!at_operator("]")) {
    if (!node->operands.empty()) expect_operator(",");
    if (at_operator("]")) break;
    node->operands.push_back(parse_expression());
  }
  next();
  return finish(std::move(node));
}

ExprPtr Parser::parse_dict() {
  ExprPtr node = make(ExprKind::kDict, next().line);
  while (!at_operator("}")) {
    if (!node->operands.empty()) expect_operator(",");
    if (at_operator("}")) break;
    node->operands.push_back(parse_expression());
    expect_operator(":");
    node->operands.push_back(parse_expression());
  }
  next();
  return finish(std::move(node));
}

ExprPtr Parser::parse_postfix(ExprPtr node) {
  while (true) {
    if (at_operator(".") || at_operator("["))
      node = parse_subscript(std::move(node));
    else if (at_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

ExprPtr Parser::parse_filters_and_tests(ExprPtr node) {
  while (true) {
    if (at_operator("|"))
      node = parse_filter(std::move(node));
    else if (at_name("is"))
      node = parse_test(std::move(node));
    else if (at_operator("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

ExprPtr Parser::parse_subscript(ExprPtr node) {
  const Token token = next();
  if (token.text == ".") {
    const Token attribute = next();
    if (attribute.kind == TokenKind::kName) {
      ExprPtr result = make(ExprKind::kAttribute, token.line, std::move(node));
      result->name = attribute.text;
      return result;
    }
    if (attribute.kind != TokenKind::kInteger) fail("expected name or number", attribute.line);
    ExprPtr index = make(ExprKind::kConstant, attribute.line);
    index->constant = Value(attribute.integer);
    return make(ExprKind::kItem, token.line, std::move(node), std::move(index));
  }
  ExprPtr result = parse_subscribed(std::move(node));
  if (!at_operator(",")) {
    expect_operator("]");
    return result;
  }
  if (result->kind == ExprKind::kSlice) fail("a slice cannot be part of a tuple key");
  ExprPtr key = make(ExprKind::kTuple, token.line);
  key->operands.push_back(std::move(result->operands[1]));
  while (skip_operator(",")) {
    if (at_operator("]")) break;
    key->operands.push_back(parse_expression());
  }
  expect_operator("]");
  return make(ExprKind::kItem, token.line, std::move(result->operands[0]), finish(std::move(key)));
}

/// What stands in the brackets after `node`: a key or a slice.
ExprPtr Parser::parse_subscribed(ExprPtr node) {
  const int line = current().line;
  if (at_operator("]")) {  // an empty tuple as key
    return make(ExprKind::kItem, line, std::move(node), make(ExprKind::kTuple, line));
  }
  ExprPtr start;
  if (!at_operator(":")) {
    start = parse_expression();
    if (!at_operator(":")) return make(ExprKind::kItem, line, std::move(node), std::move(start));
  }
  next();
  ExprPtr slice = make(ExprKind::kSlice, line);
  slice->operands.push_back(std::move(node));
  slice->operands.push_back(std::move(start));
  const auto at_part = [&] { return !at_operator("]") && !at_operator(",") && !at_operator(":"); };
  slice->operands.push_back(at_part() ? parse_expression() : nullptr);
  slice->operands.push_back(skip_operator(":") && at_part() ? parse_expression() : nullptr);
  return finish(std::move(slice));
}

ExprPtr Parser::parse_call(ExprPtr node) {
  ExprPtr call = make(ExprKind::kCall, current().line);
  call->operands.push_back(std::move(node));
  call->call = parse_arguments();
  return finish(std::move(call));
}

CallArguments Parser::parse_arguments() {
  const int line = current().line;
  expect_operator("(");
  CallArguments call;
  const auto ensure = [&](bool valid) {
    if (!valid) fail("invalid syntax for function call expression", line);
  };
  bool needs_comma = false;
  while (!at_operator(")")) {
    if (needs_comma) {
      expect_operator(",");
      if (at_operator(")")) break;
    }
    needs_comma = true;
    if (skip_operator("*")) {
      ensure(call.star == nullptr && call.double_star == nullptr);
      call.star = parse_expression();
    } else if (skip_operator("**")) {
      ensure(call.double_star == nullptr);
      call.double_star = parse_expression();
    } else if (current().kind == TokenKind::kName && look().kind == TokenKind::kOperator && look().text == "=") {
      ensure(call.double_star == nullptr);
      std::string name = next().text;
      next();
      for (const auto& [other, value] : call.named)
        if (other == name) fail(fmt::format("keyword argument repeated: {}", name), line);
      call.named.emplace_back(std::move(name), parse_expression());
    } else {
      ensure(call.star == nullptr && call.double_star == nullptr && call.named.empty());
      call.positional.push_back(parse_expression());
    }
  }
  next();
  return call;
}

std::string Parser::parse_dotted_name() {
  std::string name = expect(TokenKind::kName).text;
  while (skip_operator(".")) name += "." + expect(TokenKind::kName).text;
  return name;
}

ExprPtr Parser::parse_filter(ExprPtr node, bool starts_inline) {
  while (at_operator("|") || starts_inline) {
    if (!starts_inline) next();
    starts_inline = false;
    ExprPtr filter = make(ExprKind::kFilter, current().line);
    filter->name = parse_dotted_name();
    filter->filter = find_filter(filter->name);
    if (filter->filter == nullptr)
      unknown_.push_back({fmt::format("No filter named '{}'.", filter->name), filter->line});
    filter->operands.push_back(std::move(node));
    if (at_operator("(")) filter->call = parse_arguments();
    node = finish(std::move(filter));
  }
  return node;
}

ExprPtr Parser::parse_test(ExprPtr node) {
  const int line = next().line;
  const bool negated = skip_name("not");
  ExprPtr test = make(ExprKind::kTest, line);
  test->name = parse_dotted_name();
  test->test = find_test(test->name);
  if (test->test == nullptr) unknown_.push_back({fmt::format("No test named '{}'.", test->name), line});
  test->operands.push_back(std::move(node));
  const bool has_argument = current().kind == TokenKind::kString || current().kind == TokenKind::kInteger ||
                            current().kind == TokenKind::kFloat || at_operator("[") || at_operator("{") ||
                            (current().kind == TokenKind::kName && !at_any_name({"else", "or", "and"}));
  if (at_operator("(")) {
    test->call = parse_arguments();
  } else if (has_argument) {
    if (at_name("is")) fail("You cannot chain multiple tests with is");
    test->call.positional.push_back(parse_postfix(parse_primary()));
  }
  test = finish(std::move(test));
  return negated ? make(ExprKind::kNot, line, std::move(test)) : std::move(test);
}

}  // namespace chorale::coordinator::jinja
