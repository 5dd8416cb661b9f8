// What follows an operand: attributes, items, slices, calls, filters and tests.
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/parser.h"
#include "coordinator/text/jinja/tests.h"

namespace chorale::coordinator::jinja {

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
