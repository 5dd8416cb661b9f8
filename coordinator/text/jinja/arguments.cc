#include "coordinator/text/jinja/arguments.h"

#include "coordinator/text/jinja/operators.h"

namespace chorale::coordinator::jinja {

Bound::Bound(std::string_view function, Arguments& arguments, std::initializer_list<std::string_view> parameters,
             size_t num_required)
    : function_(function), parameters_(parameters), values_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters_.size())
    raise("{}() takes at most {} argument(s) ({} given)", function, parameters_.size(), arguments.positional.size());
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < parameters_.size() && parameters_[i] != name) ++i;
    if (i == parameters_.size()) raise("{}() got an unexpected keyword argument '{}'", function, name);
    if (values_[i] != nullptr) raise("{}() got multiple values for argument '{}'", function, name);
    values_[i] = &value;
  }
  for (size_t i = 0; i < num_required; ++i)
    if (values_[i] == nullptr) raise("{}() missing required argument: '{}'", function, parameters_[i]);
}

int64_t Bound::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  const Value& value = (*this)[i];
  if (value.is_undefined()) raise_undefined(value);
  if (!value.is_integral()) raise("{}(): '{}' must be an integer, not {}", function_, parameters_[i], type_name(value));
  return value.integer();
}

bool Bound::truth(size_t i, bool otherwise) const { return has(i) ? truthy((*this)[i]) : otherwise; }

const std::string& Bound::text(size_t i) const {
  const Value& value = (*this)[i];
  if (value.is_undefined()) raise_undefined(value);
  if (!value.is_string()) raise("{}(): '{}' must be str, not {}", function_, parameters_[i], type_name(value));
  return value.text();
}

std::string Bound::text(size_t i, std::string_view otherwise) const {
  return has(i) ? text(i) : std::string(otherwise);
}

}  // namespace chorale::coordinator::jinja
