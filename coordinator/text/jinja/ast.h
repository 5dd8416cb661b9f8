// A parsed template: expressions and statements as plain structs. Made by the parser, walked by the interpreter, never
// changed.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

using NameId = uint32_t;  // position in Template::names

enum class ExprKind : uint8_t {
  kConstant,  // constant
  kName,      // name_id
  kList,
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, ...
  kAttribute,  // operands[0] . name
  kItem,       // operands[0] [ operands[1] ]
  kSlice,      // operands[0] [ operands[1] : operands[2] : operands[3] ], null where left out
  kCall,       // operands[0] ( call )
  kFilter,     // operands[0] | name ( call ); operands[0] is null in filter blocks
  kTest,       // operands[0] is name ( call )
  kCondition,  // operands[1] if operands[0] else operands[2], which may be null
  kAnd,
  kOr,
  kNot,
  kNegative,
  kPositive,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcat,   // operands joined as text
  kCompare,  // operands[0] compare_ops[0] operands[1] compare_ops[1] operands[2] ...
};
enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;         // *star
  ExprPtr double_star;  // **double_star
};

struct Filter;  // filters.h
struct Test;    // tests.h

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;  // of this tree; the parser bounds it
  Value constant;
  NameId name_id = 0;
  std::string name;
  std::vector<ExprPtr> operands;
  std::vector<CompareOp> compare_ops;
  CallArguments call;
  const Filter* filter = nullptr;  // kFilter, null where no such filter exists: an error once it is reached
  const Test* test = nullptr;      // kTest, likewise
};

/// What is assigned to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  enum class Kind : uint8_t { kName, kNamespaceAttribute, kTuple } kind = Kind::kName;
  NameId name_id = 0;
  std::string attribute;
  std::vector<Target> items;
};

enum class StatementKind : uint8_t {
  kText,         // text
  kOutput,       // exprs
  kIf,           // branches, else_body
  kFor,          // target, exprs[0] the iterable, test, body, else_body, recursive
  kSet,          // target, exprs[0]
  kSetBlock,     // target, body, filter (may be null)
  kMacro,        // macro
  kCallBlock,    // exprs[0] the call, macro the caller
  kFilterBlock,  // filter, body
  kWith,         // targets, exprs, body
  kScope,        // body in its own scope: block, generation, autoescape false
  kBreak,
  kContinue,
  kUnsupported,  // text: why; an error once it is reached
};

struct Statement;
using Body = std::vector<Statement>;

struct MacroNode {
  std::string name;
  NameId name_id = 0;
  std::vector<std::pair<std::string, NameId>> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
};

struct Statement {
  struct Branch;
  StatementKind kind = StatementKind::kText;
  int line = 0;
  std::string text;
  Target target;
  std::vector<Target> targets;
  std::vector<ExprPtr> exprs;
  ExprPtr test;
  ExprPtr filter;
  std::vector<Branch> branches;
  Body body;
  Body else_body;
  bool recursive = false;
  bool uses_loop = false;
  std::unique_ptr<MacroNode> macro;
};

struct Statement::Branch {
  ExprPtr test;
  Body body;
};

struct Template {
  Body body;
  std::vector<std::string> names;  // every variable that the template mentions
  NameId loop_name = 0, caller_name = 0, kwargs_name = 0, varargs_name = 0;
};

}  // namespace chorale::coordinator::jinja
