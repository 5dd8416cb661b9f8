#include "tests/support/shared_data.h"

namespace chorale::test {

std::optional<std::filesystem::path> shared_folder() {
  const char* named = std::getenv("CHORALE_SHARED");
  const std::filesystem::path folder =
      named != nullptr ? std::filesystem::path(named)
                       : std::filesystem::path(CHORALE_SOURCE_DIR).parent_path() / "shared";
  if (!std::filesystem::is_directory(folder)) return std::nullopt;
  return std::filesystem::canonical(folder);
}

}  // namespace chorale::test
