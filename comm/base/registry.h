// A table that its entries fill themselves before main: one file adds one entry and nobody edits a list. Entries must
// be linked as OBJECT libraries (a STATIC library drops them silently).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chorale {

/// Entry needs a member `name` convertible to std::string_view. Filled during static initialisation, read-only
/// afterwards.
template <typename Entry>
class Registry {
 public:
  static std::span<const Entry> all() { return entries(); }
  static const Entry* find(std::string_view name) {
    for (const Entry& entry : entries())
      if (entry.name == name) return &entry;
    return nullptr;
  }
  /// "a, b, c": for messages that list the valid names.
  static std::string names() {
    std::string text;
    for (const Entry& entry : entries()) text += (text.empty() ? "" : ", ") + std::string(entry.name);
    return text;
  }
  struct Add {
    explicit Add(Entry entry) { entries().push_back(std::move(entry)); }
  };

 private:
  static std::vector<Entry>& entries() {
    static std::vector<Entry> list;
    return list;
  }
};

}  // namespace chorale
