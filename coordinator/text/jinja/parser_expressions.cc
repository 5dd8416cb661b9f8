// Expressions: operators, literals, names.
#include "coordinator/text/jinja/parser.h"

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

}  // namespace chorale::coordinator::jinja
