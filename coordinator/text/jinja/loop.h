// The `loop` variable of a for block. Made by the interpreter's for loop, read through loop_attribute by attribute
// access.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// Walks the items one ahead where the template asks for `last` or `nextitem`, as Jinja does.
struct LoopObject : Object {
  LoopObject(Interpreter& interpreter, const Value& iterable, Cursor source, std::optional<int64_t> known_length,
             int depth0);
  bool advance();            // to the next item; false at the end
  const Value* peek_next();  // null at the end
  int64_t count_items(Interpreter& interpreter);
  void clear();  // drops every value it holds

  Cursor cursor;
  std::optional<int64_t> num_items;
  int64_t index0 = -1;
  int nesting = 0;  // of recursive loops, from 0
  Value current, before;
  std::optional<Value> after;
  std::vector<Value> last_changed;
  bool has_changed = false;
  std::function<std::string(const Value&)> recurse;  // empty where the loop is not recursive
};

std::optional<Value> loop_attribute(Interpreter& interpreter, const Value& loop, const std::string& name);
/// loop(iterable), in a recursive loop.
Value call_loop(Interpreter& interpreter, const Value& loop, Arguments& arguments);

}  // namespace chorale::coordinator::jinja
