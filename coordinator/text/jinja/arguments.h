// Matches the arguments of a call with a function's parameters, as Python does. Used by filters, tests, methods and
// globals.
#pragma once

#include <initializer_list>
#include <string_view>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// The arguments of one call by parameter. Throws a TypeError-like TemplateError for too many, unknown or missing ones.
class Bound {
 public:
  /// The first `num_required` of `parameters` must be given.
  Bound(std::string_view function, Arguments& arguments, std::initializer_list<std::string_view> parameters,
        size_t num_required = 0);

  bool has(size_t i) const { return values_[i] != nullptr; }
  /// The argument, or none where it was left out.
  const Value& operator[](size_t i) const { return values_[i] != nullptr ? *values_[i] : none_; }
  int64_t integer(size_t i, int64_t otherwise) const;
  bool truth(size_t i, bool otherwise) const;
  /// A string argument; throws for other types.
  const std::string& text(size_t i) const;
  std::string text(size_t i, std::string_view otherwise) const;

 private:
  std::string_view function_;
  std::vector<std::string_view> parameters_;
  std::vector<const Value*> values_;
  Value none_;
};

}  // namespace chorale::coordinator::jinja
