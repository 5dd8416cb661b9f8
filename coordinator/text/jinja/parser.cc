#include "coordinator/text/jinja/parser.h"

namespace chorale::coordinator::jinja {
namespace {

constexpr int kMaxNesting = 200;
constexpr size_t kMaxSourceBytes = 4u << 20;

}  // namespace

Template parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes)
    throw TemplateError(TemplateError::Kind::kLimit,
                        fmt::format("the template has {} bytes; at most {} are read", source.size(), kMaxSourceBytes),
                        1);
  return Parser(source).run();
}

Parser::Parser(std::string_view source) : tokens_(tokenize(source)) {
  template_.loop_name = intern("loop");
  template_.caller_name = intern("caller");
  template_.kwargs_name = intern("kwargs");
  template_.varargs_name = intern("varargs");
}

Template Parser::run() {
  template_.body = parse_body({});
  settle_unknown(0);
  return std::move(template_);
}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (parser_.nesting_ >= kMaxNesting)
    parser_.fail(fmt::format("the template is nested more than {} deep", kMaxNesting));
  ++parser_.nesting_;
}

void Parser::fail(const std::string& message, int line) const {
  throw TemplateError(TemplateError::Kind::kSyntax, message, line);
}

void Parser::settle_unknown(size_t since) const {
  if (unknown_.size() > since) fail(unknown_[since].message, unknown_[since].line);
}

NameId Parser::intern(const std::string& name) {
  const auto [it, added] = name_ids_.emplace(name, static_cast<NameId>(template_.names.size()));
  if (added) template_.names.push_back(name);
  return it->second;
}

Token Parser::next() {
  Token token = current();
  if (position_ + 1 < tokens_.size()) ++position_;
  return token;
}

bool Parser::at_any_name(std::initializer_list<std::string_view> names) const {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) { return at_name(name); });
}

bool Parser::skip_name(std::string_view name) {
  if (!at_name(name)) return false;
  next();
  return true;
}

bool Parser::skip_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  next();
  return true;
}

Token Parser::expect(TokenKind kind) {
  if (current().kind == kind) return next();
  if (current().kind == TokenKind::kEnd)
    fail(fmt::format("unexpected end of template, expected '{}'.", describe(kind)));
  fail(fmt::format("expected token '{}', got '{}'", describe(kind), describe(current())));
}

void Parser::expect_operator(std::string_view text) {
  if (skip_operator(text)) return;
  if (current().kind == TokenKind::kEnd) fail(fmt::format("unexpected end of template, expected '{}'.", text));
  fail(fmt::format("expected token '{}', got '{}'", text, describe(current())));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail(fmt::format("expected token '{}', got '{}'", name, describe(current())));
}

std::string Parser::looking_for() const {
  std::string tags;
  if (!end_tags_.empty())
    for (const std::string& tag : end_tags_.back()) tags += (tags.empty() ? "'" : " or '") + tag + "'";
  return tags;
}

void Parser::fail_unknown_tag(const std::string& tag) const {
  std::string message = fmt::format("Encountered unknown tag '{}'.", tag);
  bool expected_outside = false;
  for (const auto& tags : end_tags_)
    expected_outside = expected_outside || std::count(tags.begin(), tags.end(), tag) > 0;
  if (expected_outside)
    message += " You probably made a nesting mistake. Jinja is expecting this tag, but currently looking for " +
               looking_for() + ".";
  else if (!end_tags_.empty())
    message += " Jinja was looking for the following tags: " + looking_for() + ".";
  if (open_tags_.size() > 1)
    message += fmt::format(" The innermost block that needs to be closed is '{}'.", open_tags_[open_tags_.size() - 2]);
  fail(message);
}

}  // namespace chorale::coordinator::jinja
