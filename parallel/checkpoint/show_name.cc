#include "parallel/checkpoint/show_name.h"

#include <fmt/format.h>

namespace chorale::parallel {

std::string show_name(std::string_view name) {
  constexpr size_t kMaxShown = 90;
  std::string text = "'";
  for (const char c : name) {
    if (text.size() > kMaxShown) {
      text += "...";
      break;
    }
    if (c < 0x20 || c == 0x7f)
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      text += c;
  }
  return text + "'";
}

}  // namespace chorale::parallel
