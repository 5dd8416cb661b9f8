// Finds the folder of shared goldens and models. Tests that need it skip with a reason where it is absent.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <gtest/gtest.h>

namespace chorale::test {

/// The root of the source tree, for files of the project itself (tests/goldens).
std::filesystem::path source_folder();

/// The folder named by CHORALE_SHARED, else ../shared beside the source tree; nullopt when there is none.
std::optional<std::filesystem::path> shared_folder();

}  // namespace chorale::test

/// Declares `name` as a path below the shared folder, or skips the test.
#define SHARED_OR_SKIP(name, relative)                                                                               \
  if (!::chorale::test::shared_folder() || !std::filesystem::exists(*::chorale::test::shared_folder() / (relative))) \
    GTEST_SKIP() << "no shared data: " << (relative) << " (set CHORALE_SHARED)";                                     \
  const std::filesystem::path name = *::chorale::test::shared_folder() / (relative)
