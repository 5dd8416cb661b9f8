// Cuts a template's source into text and tokens, with trim_blocks, lstrip_blocks and the - and + marks applied. Used by
// the parser.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace chorale::coordinator::jinja {

enum class TokenKind : uint8_t {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  int line;
  std::string text;  // of a string: unescaped
  int64_t integer = 0;
  double number = 0;
};

/// All tokens of `source` (UTF-8); the last is kEnd. Throws TemplateError with the line.
std::vector<Token> tokenize(std::string_view source);
/// "end of statement block", "name", ...: how messages call a token.
std::string describe(const Token& token);
std::string_view describe(TokenKind kind);

}  // namespace chorale::coordinator::jinja
