#include "coordinator/text/jinja/loop.h"

#include "coordinator/text/jinja/operators.h"

namespace chorale::coordinator::jinja {

LoopObject::LoopObject(Interpreter& interpreter, const Value& iterable, Cursor source,
                       std::optional<int64_t> known_length, int depth0)
    : Object(&interpreter.meter(), sizeof(LoopObject)),
      cursor(std::move(source)),
      num_items(known_length),
      nesting(depth0) {
  if (iterable.object() != nullptr) depth = iterable.object()->depth + 1;
}

bool LoopObject::advance() {
  Value next;
  if (after) {
    next = std::move(*after);
    after.reset();
  } else if (!cursor(next)) {
    return false;
  }
  ++index0;
  before = std::move(current);
  current = std::move(next);
  return true;
}

const Value* LoopObject::peek_next() {
  if (!after) {
    Value next;
    if (!cursor(next)) return nullptr;
    after = std::move(next);
  }
  return &*after;
}

int64_t LoopObject::count_items(Interpreter& interpreter) {
  if (!num_items) {
    std::vector<Value> rest;
    for (Value item; cursor(item);) rest.push_back(std::move(item));
    num_items = static_cast<int64_t>(rest.size()) + index0 + 1 + (after ? 1 : 0);
    cursor = iterate(interpreter, interpreter.list(std::move(rest)));
  }
  return *num_items;
}

void LoopObject::clear() {
  cursor = [](Value&) { return false; };
  current = before = Value();
  after.reset();
  last_changed.clear();
  recurse = nullptr;
}

namespace {

Value cycle(LoopObject& loop, Arguments& arguments) {
  if (arguments.positional.empty()) raise("no items for cycling given");
  return arguments.positional[static_cast<size_t>(loop.index0) % arguments.positional.size()];
}

Value changed(Interpreter& interpreter, LoopObject& loop, Arguments& arguments) {
  bool same = loop.has_changed && loop.last_changed.size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i)
    same = equals(interpreter, loop.last_changed[i], arguments.positional[i]);
  if (same) return Value(false);
  loop.has_changed = true;
  loop.last_changed = arguments.positional;
  return Value(true);
}

}  // namespace

std::optional<Value> loop_attribute(Interpreter& interpreter, const Value& value, const std::string& name) {
  auto& loop = value.as<LoopObject>();
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.peek_next() == nullptr);
  if (name == "length") return Value(loop.count_items(interpreter));
  if (name == "revindex") return Value(loop.count_items(interpreter) - loop.index0);
  if (name == "revindex0") return Value(loop.count_items(interpreter) - loop.index0 - 1);
  if (name == "depth") return Value(int64_t{loop.nesting} + 1);
  if (name == "depth0") return Value(int64_t{loop.nesting});
  if (name == "previtem") return loop.index0 == 0 ? interpreter.undefined("there is no previous item") : loop.before;
  if (name == "nextitem") {
    const Value* next = loop.peek_next();
    return next == nullptr ? interpreter.undefined("there is no next item") : *next;
  }
  if (name == "cycle")
    return make_callable(&interpreter.meter(), name, value, [value](Interpreter&, Arguments& arguments) {
      return cycle(value.as<LoopObject>(), arguments);
    });
  if (name == "changed")
    return make_callable(&interpreter.meter(), name, value, [value](Interpreter& self, Arguments& arguments) {
      return changed(self, value.as<LoopObject>(), arguments);
    });
  return std::nullopt;
}

Value call_loop(Interpreter& interpreter, const Value& value, Arguments& arguments) {
  auto& loop = value.as<LoopObject>();
  if (!loop.recurse) raise("The loop must have the 'recursive' marker to be called recursively.");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) raise("loop() takes one iterable");
  return interpreter.string(loop.recurse(arguments.positional[0]));
}

}  // namespace chorale::coordinator::jinja
