#include "tests/support/shared_data.h"

namespace chorale::test {

std::filesystem::path source_folder() { return CHORALE_SOURCE_DIR; }

std::optional<std::filesystem::path> shared_folder() {
  const char* named = std::getenv("CHORALE_SHARED");
  const std::filesystem::path folder =
      named != nullptr ? std::filesystem::path(named) : source_folder() / ".." / "shared";
  if (!std::filesystem::is_directory(folder)) return std::nullopt;
  return std::filesystem::canonical(folder);
}

}  // namespace chorale::test
