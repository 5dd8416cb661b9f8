// Turns tokens into a Template, with Jinja2's grammar and its messages. Called by ChatTemplate::compile.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/lexer.h"

namespace chorale::coordinator::jinja {

/// Throws TemplateError with the line and what was wrong there.
Template parse(std::string_view source);

/// Recursive descent; one function for each rule of the grammar. The token stream is in parser.cc, statements in
/// parser_statements.cc, expressions in parser_expressions.cc and parser_postfix.cc.
class Parser {
 public:
  explicit Parser(std::string_view source);
  Template run();

 private:
  enum class Conditional : uint8_t { kAllowed, kNotAllowed };
  class Nesting;

  // The token stream.
  const Token& current() const { return tokens_[position_]; }
  const Token& look() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token next();
  bool at_name(std::string_view name) const { return current().kind == TokenKind::kName && current().text == name; }
  bool at_operator(std::string_view text) const {
    return current().kind == TokenKind::kOperator && current().text == text;
  }
  bool at_any_name(std::initializer_list<std::string_view> names) const;
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view text);
  Token expect(TokenKind kind);
  void expect_operator(std::string_view text);
  void expect_name(std::string_view name);
  [[noreturn]] void fail(const std::string& message) const { fail(message, current().line); }
  [[noreturn]] void fail(const std::string& message, int line) const;

  // Statements.
  Body parse_body(std::initializer_list<std::string_view> end_names);
  Body parse_block_body(std::initializer_list<std::string_view> end_names);
  Statement parse_statement();
  Statement parse_for(int line);
  Statement parse_if(int line);
  Statement parse_set(int line);
  Statement parse_with(int line);
  Statement parse_macro(int line);
  Statement parse_call_block(int line);
  Statement parse_filter_block(int line);
  Statement parse_generation(int line);
  Statement parse_block(int line);
  Statement parse_autoescape(int line);
  Statement parse_print(int line);
  Statement parse_loop_control(int line, std::string_view tag);
  Statement parse_unsupported(int line, std::string_view tag);
  void parse_signature(MacroNode& macro);
  void parse_macro_body(Statement& statement, std::string_view end_name);
  Target parse_target(std::string_view end_name = {});
  Target parse_one_target();
  [[noreturn]] void fail_unknown_tag(const std::string& tag) const;
  std::string looking_for() const;

  // Expressions.
  ExprPtr parse_expression(Conditional conditional = Conditional::kAllowed);
  ExprPtr parse_condition();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_signed();
  ExprPtr parse_unary();
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_tuple(Conditional conditional, std::string_view end_name = {}, bool parenthesised = false);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters_and_tests(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscribed(ExprPtr node);
  ExprPtr parse_call(ExprPtr node);
  ExprPtr parse_filter(ExprPtr node, bool starts_inline = false);
  ExprPtr parse_test(ExprPtr node);
  CallArguments parse_arguments();
  std::string parse_dotted_name();

  ExprPtr make(ExprKind kind, int line) const;
  ExprPtr make(ExprKind kind, int line, ExprPtr first, ExprPtr second = nullptr) const;
  /// Sets the depth of a finished node and refuses what is too deep to walk.
  ExprPtr finish(ExprPtr node) const;
  NameId intern(const std::string& name);

  /// A filter or test that does not exist is an error at once, except inside if statements and conditions, where it is
  /// one only when it is reached. So such names wait here until their construct is known.
  struct Unknown {
    std::string message;
    int line;
  };
  void settle_unknown(size_t since) const;

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int nesting_ = 0;
  int loop_depth_ = 0;  // for loops around this place in this function
  std::vector<Unknown> unknown_;
  std::vector<MacroNode*> macros_;  // around this place
  std::vector<bool*> loop_users_;   // one for each for loop around this place
  std::vector<std::string> open_tags_;
  std::vector<std::vector<std::string>> end_tags_;
  std::unordered_map<std::string, NameId> name_ids_;
  Template template_;
};

/// One level of the recursion of the parser itself, which the template's author chooses.
class Parser::Nesting {
 public:
  explicit Nesting(Parser& parser);
  ~Nesting() { --parser_.nesting_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Parser& parser_;
};

}  // namespace chorale::coordinator::jinja
