// Statements.
#include "coordinator/text/jinja/parser.h"

namespace chorale::coordinator::jinja {
namespace {

bool is_constant_name(std::string_view name) {
  return name == "true" || name == "false" || name == "none" || name == "True" || name == "False" || name == "None";
}

Statement make_statement(StatementKind kind, int line) {
  Statement statement;
  statement.kind = kind;
  statement.line = line;
  return statement;
}

}  // namespace

/// Text, prints and statements up to one of `end_names` (that name is then current) or, with none, the end of the
/// template.
Body Parser::parse_body(std::initializer_list<std::string_view> end_names) {
  const Nesting nesting(*this);
  Body body;
  while (current().kind != TokenKind::kEnd) {
    const int line = current().line;
    if (current().kind == TokenKind::kText) {
      body.push_back(make_statement(StatementKind::kText, line));
      body.back().text = next().text;
    } else if (current().kind == TokenKind::kVariableBegin) {
      next();
      Statement output = make_statement(StatementKind::kOutput, line);
      output.exprs.push_back(parse_tuple(Conditional::kAllowed));
      expect(TokenKind::kVariableEnd);
      body.push_back(std::move(output));
    } else {
      expect(TokenKind::kBlockBegin);
      if (at_any_name(end_names)) return body;
      body.push_back(parse_statement());
      expect(TokenKind::kBlockEnd);
    }
  }
  if (end_names.size() > 0) {
    std::string message =
        "Unexpected end of template. Jinja was looking for the following tags: " + looking_for() + ".";
    if (!open_tags_.empty())
      message += fmt::format(" The innermost block that needs to be closed is '{}'.", open_tags_.back());
    fail(message);
  }
  return body;
}

/// The body of a block statement whose head was read; a colon may end the head.
Body Parser::parse_block_body(std::initializer_list<std::string_view> end_names) {
  skip_operator(":");
  expect(TokenKind::kBlockEnd);
  end_tags_.emplace_back(end_names.begin(), end_names.end());
  Body body = parse_body(end_names);
  end_tags_.pop_back();
  return body;
}

Statement Parser::parse_statement() {
  const Nesting nesting(*this);
  if (current().kind != TokenKind::kName) fail("tag name expected");
  const Token tag = current();
  const int line = tag.line;
  open_tags_.push_back(tag.text);
  const auto parsed = [&]() -> Statement {
    const auto head = [&] {
      next();
      return line;
    };
    if (tag.text == "for") return parse_for(head());
    if (tag.text == "if") return parse_if(head());
    if (tag.text == "set") return parse_set(head());
    if (tag.text == "with") return parse_with(head());
    if (tag.text == "macro") return parse_macro(head());
    if (tag.text == "call") return parse_call_block(head());
    if (tag.text == "filter") return parse_filter_block(head());
    if (tag.text == "generation") return parse_generation(head());
    if (tag.text == "block") return parse_block(head());
    if (tag.text == "autoescape") return parse_autoescape(head());
    if (tag.text == "print") return parse_print(head());
    if (tag.text == "break" || tag.text == "continue") return parse_loop_control(head(), tag.text);
    if (tag.text == "extends" || tag.text == "include" || tag.text == "import" || tag.text == "from")
      return parse_unsupported(head(), tag.text);
    fail_unknown_tag(tag.text);
  };
  Statement statement = parsed();
  open_tags_.pop_back();
  return statement;
}

Statement Parser::parse_for(int line) {
  Statement statement = make_statement(StatementKind::kFor, line);
  loop_users_.push_back(&statement.uses_loop);  // so that a target named loop is refused
  statement.target = parse_target("in");
  loop_users_.pop_back();
  expect_name("in");
  statement.exprs.push_back(parse_tuple(Conditional::kNotAllowed, "recursive"));
  const size_t unknown_before = unknown_.size();
  if (skip_name("if")) statement.test = parse_expression();
  statement.recursive = skip_name("recursive");
  statement.uses_loop = statement.recursive;
  loop_users_.push_back(&statement.uses_loop);
  ++loop_depth_;
  statement.body = parse_block_body({"endfor", "else"});
  --loop_depth_;
  loop_users_.pop_back();
  if (next().text == "else") {
    statement.else_body = parse_block_body({"endfor"});
    next();
  }
  settle_unknown(unknown_before);
  return statement;
}

Statement Parser::parse_if(int line) {
  Statement statement = make_statement(StatementKind::kIf, line);
  const size_t unknown_before = unknown_.size();
  while (true) {
    Statement::Branch branch;
    branch.test = parse_tuple(Conditional::kNotAllowed);
    branch.body = parse_block_body({"elif", "else", "endif"});
    statement.branches.push_back(std::move(branch));
    const Token token = next();
    if (token.text == "elif") continue;
    if (token.text == "else") {
      statement.else_body = parse_block_body({"endif"});
      next();
    }
    break;
  }
  unknown_.resize(unknown_before);
  return statement;
}

Statement Parser::parse_set(int line) {
  Statement statement = make_statement(StatementKind::kSet, line);
  statement.target = parse_target();
  if (skip_operator("=")) {
    statement.exprs.push_back(parse_tuple(Conditional::kAllowed));
    return statement;
  }
  statement.kind = StatementKind::kSetBlock;
  const size_t unknown_before = unknown_.size();
  statement.filter = parse_filter(nullptr);
  statement.body = parse_block_body({"endset"});
  next();
  settle_unknown(unknown_before);
  return statement;
}

Statement Parser::parse_with(int line) {
  Statement statement = make_statement(StatementKind::kWith, line);
  const size_t unknown_before = unknown_.size();
  while (current().kind != TokenKind::kBlockEnd) {
    if (!statement.targets.empty()) expect_operator(",");
    statement.targets.push_back(parse_target());
    expect_operator("=");
    statement.exprs.push_back(parse_expression());
  }
  statement.body = parse_block_body({"endwith"});
  next();
  settle_unknown(unknown_before);
  return statement;
}

void Parser::parse_signature(MacroNode& macro) {
  expect_operator("(");
  while (!at_operator(")")) {
    if (!macro.parameters.empty()) expect_operator(",");
    const Token name = expect(TokenKind::kName);
    if (is_constant_name(name.text)) fail(fmt::format("can't assign to '{}'", name.text), name.line);
    for (const auto& [other, id] : macro.parameters)
      if (other == name.text) fail(fmt::format("duplicate argument '{}' in macro", name.text), name.line);
    if (skip_operator("="))
      macro.defaults.push_back(parse_expression());
    else if (!macro.defaults.empty())
      fail("non-default argument follows default argument");
    macro.parameters.emplace_back(name.text, intern(name.text));
  }
  next();
}

/// The body becomes a function: loops outside it cannot be left from inside.
void Parser::parse_macro_body(Statement& statement, std::string_view end_name) {
  const size_t unknown_before = unknown_.size();
  const int loops_outside = std::exchange(loop_depth_, 0);
  macros_.push_back(statement.macro.get());
  statement.macro->body = parse_block_body({end_name});
  macros_.pop_back();
  loop_depth_ = loops_outside;
  next();
  settle_unknown(unknown_before);
}

Statement Parser::parse_macro(int line) {
  Statement statement = make_statement(StatementKind::kMacro, line);
  statement.macro = std::make_unique<MacroNode>();
  const Token name = expect(TokenKind::kName);
  if (is_constant_name(name.text)) fail(fmt::format("can't assign to '{}'", name.text), name.line);
  statement.macro->name = name.text;
  statement.macro->name_id = intern(name.text);
  parse_signature(*statement.macro);
  parse_macro_body(statement, "endmacro");
  return statement;
}

Statement Parser::parse_call_block(int line) {
  Statement statement = make_statement(StatementKind::kCallBlock, line);
  statement.macro = std::make_unique<MacroNode>();
  statement.macro->name = "caller";
  if (at_operator("(")) parse_signature(*statement.macro);
  statement.exprs.push_back(parse_expression());
  if (statement.exprs[0]->kind != ExprKind::kCall) fail("expected call", line);
  parse_macro_body(statement, "endcall");
  return statement;
}

Statement Parser::parse_filter_block(int line) {
  Statement statement = make_statement(StatementKind::kFilterBlock, line);
  const size_t unknown_before = unknown_.size();
  statement.filter = parse_filter(nullptr, true);
  statement.body = parse_block_body({"endfilter"});
  next();
  settle_unknown(unknown_before);
  return statement;
}

/// transformers' {% generation %}: marks the assistant's text for training; here it only has its own scope.
Statement Parser::parse_generation(int line) {
  Statement statement = make_statement(StatementKind::kScope, line);
  const size_t unknown_before = unknown_.size();
  const int loops_outside = std::exchange(loop_depth_, 0);
  statement.body = parse_block_body({"endgeneration"});
  loop_depth_ = loops_outside;
  next();
  settle_unknown(unknown_before);
  return statement;
}

Statement Parser::parse_block(int line) {
  Statement statement = make_statement(StatementKind::kScope, line);
  const Token name = expect(TokenKind::kName);
  while (skip_name("scoped") || skip_name("required")) {
  }
  const int loops_outside = std::exchange(loop_depth_, 0);
  statement.body = parse_block_body({"endblock"});
  loop_depth_ = loops_outside;
  next();
  skip_name(name.text);
  return statement;
}

Statement Parser::parse_autoescape(int line) {
  Statement statement = make_statement(StatementKind::kScope, line);
  const ExprPtr on = parse_expression();
  if (on->kind != ExprKind::kConstant || !on->constant.is(Kind::kBool) || on->constant.integer() != 0)
    fail("chat templates are plain text: only {% autoescape false %} is supported", line);
  statement.body = parse_block_body({"endautoescape"});
  next();
  return statement;
}

Statement Parser::parse_print(int line) {
  Statement statement = make_statement(StatementKind::kOutput, line);
  while (current().kind != TokenKind::kBlockEnd) {
    if (!statement.exprs.empty()) expect_operator(",");
    statement.exprs.push_back(parse_expression());
  }
  return statement;
}

Statement Parser::parse_loop_control(int line, std::string_view tag) {
  if (loop_depth_ == 0) fail(fmt::format("'{}' outside loop", tag), line);
  return make_statement(tag == "break" ? StatementKind::kBreak : StatementKind::kContinue, line);
}

/// Jinja compiles these and fails when they run, because a chat template has no loader.
Statement Parser::parse_unsupported(int line, std::string_view tag) {
  while (current().kind != TokenKind::kBlockEnd && current().kind != TokenKind::kEnd) next();
  Statement statement = make_statement(StatementKind::kUnsupported, line);
  statement.text =
      fmt::format("{{% {} %}}: no loader for this environment specified; a chat template is one file", tag);
  return statement;
}

Target Parser::parse_one_target() {
  const Token token = current();
  if (token.kind != TokenKind::kName) {
    if (token.kind == TokenKind::kString || token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat)
      fail("can't assign to 'const'");
    if (skip_operator("(")) {
      Target inner = parse_target();
      expect_operator(")");
      return inner;
    }
    fail(fmt::format("unexpected '{}'", describe(token)));
  }
  next();
  if (is_constant_name(token.text)) fail("can't assign to 'const'", token.line);
  Target target;
  target.name_id = intern(token.text);
  if (skip_operator(".")) {
    target.kind = Target::Kind::kNamespaceAttribute;
    target.attribute = expect(TokenKind::kName).text;
  } else if (token.text == "loop" && !loop_users_.empty()) {
    fail("Can't assign to special loop variable in for-loop target", token.line);
  }
  return target;
}

/// A name, ns.attribute, or several with commas. `end_name` ends a tuple (the `in` of a for).
Target Parser::parse_target(std::string_view end_name) {
  const Nesting nesting(*this);
  Target target;
  bool is_tuple = false;
  while (true) {
    if (!target.items.empty()) expect_operator(",");
    const bool at_end = current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
                        at_operator(")") || (!end_name.empty() && at_name(end_name));
    if (at_end) break;
    target.items.push_back(parse_one_target());
    if (!at_operator(",")) break;
    is_tuple = true;
  }
  if (target.items.empty()) fail(fmt::format("Expected an expression, got '{}'", describe(current())));
  if (!is_tuple) {
    Target single = std::move(target.items[0]);
    return single;
  }
  target.kind = Target::Kind::kTuple;
  return target;
}

}  // namespace chorale::coordinator::jinja
