// Filters over lists, dicts and other iterables.
#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/attribute_path.h"
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/repr.h"

namespace chorale::coordinator::jinja {
namespace {

CaseSensitive sensitivity(const Bound& bound, size_t i) {
  return bound.truth(i, false) ? CaseSensitive::kYes : CaseSensitive::kNo;
}

Value count(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("length", arguments, {});
  const auto size = length(input);
  if (!size) raise("object of type '{}' has no len()", type_name(input));
  return Value(*size);
}

Value list(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("list", arguments, {});
  return interpreter.list(to_vector(interpreter, input));
}

Value first(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("first", arguments, {});
  Value item;
  return iterate(interpreter, input)(item) ? item : interpreter.undefined("No first item, sequence was empty.");
}

Value last(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("last", arguments, {});
  Value item;
  return iterate(interpreter, reversed(interpreter, input))(item)
             ? item
             : interpreter.undefined("No last item, sequence was empty.");
}

Value reverse(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("reverse", arguments, {});
  if (input.is_string()) {
    std::u32string chars = decode(input.text());
    std::reverse(chars.begin(), chars.end());
    return interpreter.string(encode(chars));
  }
  if (!input.is(Kind::kIterator)) return reversed(interpreter, input);
  std::vector<Value> items = to_vector(interpreter, input);
  std::reverse(items.begin(), items.end());
  return interpreter.list(std::move(items));
}

Value join(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("join", arguments, {"d", "attribute"});
  const AttributePath path(interpreter, bound[1]);
  const std::string separator = bound.has(0) ? str(interpreter, bound[0]) : "";
  std::string text;
  bool is_first = true;
  const Cursor cursor = iterate(interpreter, input);
  for (Value item; cursor(item);) {
    if (!std::exchange(is_first, false)) text += separator;
    const std::string piece = str(interpreter, path.get(interpreter, item));
    interpreter.meter().step(1 + (separator.size() + piece.size()) / 64);
    interpreter.meter().check_output(text.size() + piece.size());
    text += piece;
  }
  return interpreter.string(std::move(text));
}

Value items(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("items", arguments, {});
  if (!input.is_undefined() && !input.is(Kind::kDict)) raise("Can only get item pairs from a mapping.");
  const Value view =
      input.is_undefined()
          ? interpreter.list({})
          : Value(Kind::kView, std::make_shared<ViewObject>(&interpreter.meter(), ViewKind::kItems, input));
  return make_iterator(&interpreter.meter(), "generator", view, iterate(interpreter, view));
}

/// Sorts stably by keys made once. `reverse` keeps the order of equals too, as Python does.
std::vector<Value> sorted(Interpreter& interpreter, std::vector<Value> values,
                          const std::vector<std::vector<Value>>& keys, bool reverse) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto before = [&](size_t a, size_t b) {
    for (size_t k = 0; k < keys[a].size(); ++k)
      if (!equals(interpreter, keys[a][k], keys[b][k])) return less(interpreter, keys[a][k], keys[b][k]);
    return false;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return reverse ? before(b, a) : before(a, b); });
  std::vector<Value> out;
  out.reserve(values.size());
  for (const size_t i : order) out.push_back(values[i]);
  return out;
}

Value sort(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const CaseSensitive sensitive = sensitivity(bound, 1);
  std::vector<AttributePath> paths;
  if (bound[2].is_string()) {
    const std::string& all = bound[2].text();
    for (size_t begin = 0; begin <= all.size();) {
      const size_t end = std::min(all.find(',', begin), all.size());
      paths.emplace_back(interpreter, interpreter.string(all.substr(begin, end - begin)));
      begin = end + 1;
    }
  } else {
    paths.emplace_back(interpreter, bound[2]);
  }
  std::vector<Value> values = to_vector(interpreter, input);
  std::vector<std::vector<Value>> keys(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    for (const AttributePath& path : paths)
      keys[i].push_back(compare_key(interpreter, path.get(interpreter, values[i]), sensitive));
  return interpreter.list(sorted(interpreter, std::move(values), keys, bound.truth(0, false)));
}

Value dict_sort(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = bound.text(1, "key");
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  if (input.is_undefined()) raise_undefined(input);
  if (!input.is(Kind::kDict)) raise("'{}' object has no attribute 'items'", type_name(input));
  std::vector<Value> pairs;
  std::vector<std::vector<Value>> keys;
  for (const auto& [key, value] : input.dict().entries) {
    pairs.push_back(interpreter.tuple({key, value}));
    keys.push_back({compare_key(interpreter, by == "key" ? key : value, sensitivity(bound, 0))});
  }
  return interpreter.list(sorted(interpreter, std::move(pairs), keys, bound.truth(2, false)));
}

Value group_by(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const AttributePath path(interpreter, bound[0]);
  const CaseSensitive sensitive = sensitivity(bound, 2);
  const auto key_of = [&](const Value& value) {
    return compare_key(interpreter, path.get(interpreter, value, bound[1]), sensitive);
  };
  std::vector<Value> values = to_vector(interpreter, input);
  std::vector<std::vector<Value>> keys;
  for (const Value& value : values) keys.push_back({key_of(value)});
  values = sorted(interpreter, std::move(values), keys, false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < values.size();) {
    const Value key = key_of(values[begin]);
    size_t end = begin + 1;
    while (end < values.size() && equals(interpreter, key_of(values[end]), key)) ++end;
    const auto at = [&](size_t i) { return values.begin() + static_cast<ptrdiff_t>(i); };
    const Value shown = sensitive == CaseSensitive::kYes ? key : path.get(interpreter, values[begin], bound[1]);
    Value group = interpreter.tuple({shown, interpreter.list({at(begin), at(end)})});
    group.as<ListObject>().grouper_list = true;
    groups.push_back(std::move(group));
    begin = end;
  }
  return interpreter.list(std::move(groups));
}

Value unique(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("unique", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(interpreter, bound[1]);
  const CaseSensitive sensitive = sensitivity(bound, 0);
  const auto seen = std::make_shared<DictObject>(&interpreter.meter());
  std::vector<Value> kept;
  for (const Value& item : to_vector(interpreter, input)) {
    const Value key = compare_key(interpreter, path.get(interpreter, item), sensitive);
    if (seen->find(interpreter, key) != nullptr) continue;
    seen->set(interpreter, key, Value());
    kept.push_back(item);
  }
  const Value all = interpreter.list(std::move(kept));
  return make_iterator(&interpreter.meter(), "generator", all, iterate(interpreter, all));
}

template <CompareOp kBetter>
Value extreme(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("min or max", arguments, {"case_sensitive", "attribute"});
  const AttributePath path(interpreter, bound[1]);
  const CaseSensitive sensitive = sensitivity(bound, 0);
  const Cursor cursor = iterate(interpreter, input);
  Value best;
  if (!cursor(best)) return interpreter.undefined("No aggregated item, sequence was empty.");
  Value best_key = compare_key(interpreter, path.get(interpreter, best), sensitive);
  for (Value item; cursor(item);) {
    Value key = compare_key(interpreter, path.get(interpreter, item), sensitive);
    if (!compare(interpreter, kBetter, key, best_key)) continue;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value sum(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("sum", arguments, {"attribute", "start"});
  const AttributePath path(interpreter, bound[0]);
  Value total = bound.has(1) ? bound[1] : Value(int64_t{0});
  if (total.is_string()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  const Cursor cursor = iterate(interpreter, input);
  for (Value item; cursor(item);) total = arithmetic(interpreter, ExprKind::kAdd, total, path.get(interpreter, item));
  return total;
}

Value generator_of(Interpreter& interpreter, std::vector<Value> parts) {
  const Value all = interpreter.list(std::move(parts));
  return make_iterator(&interpreter.meter(), "generator", all, iterate(interpreter, all));
}

Value batch(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("batch", arguments, {"linecount", "fill_with"}, 1);
  const int64_t size = bound.integer(0, 1);
  std::vector<Value> rows;
  std::vector<Value> row;
  for (const Value& item : to_vector(interpreter, input)) {
    if (static_cast<int64_t>(row.size()) == size) rows.push_back(interpreter.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    while (!bound[1].is_none() && static_cast<int64_t>(row.size()) < size) {
      interpreter.meter().step(16);
      if (row.size() > 1'000'000) raise("batch: rows of {} items are too long", size);
      row.push_back(bound[1]);
    }
    rows.push_back(interpreter.list(std::move(row)));
  }
  return generator_of(interpreter, std::move(rows));
}

Value slice(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("slice", arguments, {"slices", "fill_with"}, 1);
  const int64_t slices = bound.integer(0, 1);
  const std::vector<Value> all = to_vector(interpreter, input);
  if (slices == 0) raise("integer division or modulo by zero");
  std::vector<Value> columns;
  const auto size = static_cast<int64_t>(all.size());
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t end = begin + size / slices + (i < size % slices ? 1 : 0);
    std::vector<Value> column(all.begin() + begin, all.begin() + end);
    if (!bound[1].is_none() && i >= size % slices) column.push_back(bound[1]);
    columns.push_back(interpreter.list(std::move(column)));
    begin = end;
  }
  return generator_of(interpreter, std::move(columns));
}

constexpr Filter kFilters[] = {
    {"batch", batch},
    {"count", count},
    {"dictsort", dict_sort},
    {"first", first},
    {"groupby", group_by},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", count},
    {"list", list},
    {"max", extreme<CompareOp::kGt>},
    {"min", extreme<CompareOp::kLt>},
    {"reverse", reverse},
    {"slice", slice},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

std::span<const Filter> sequence_filters() { return kFilters; }

}  // namespace chorale::coordinator::jinja
