// Where NCCL is, for doctor. Its functions are bound by whoever calls them.
#include "comm/base/shared_library.h"

namespace chorale {
namespace {

/// 22809 -> "2.28.9" (NCCL_VERSION since 2.9).
std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Result<LibraryFacts> facts() {
  LibraryFacts found;
  const LibrarySearch places{.name = "NCCL",
                             .path_variable = EnvVar::kNcclPath,
                             .file_names = {"libnccl.so.2"},
                             .wheel_folders = {"nvidia/nccl/lib"}};
  auto library = find_library(places, [&](const SharedLibrary& candidate) -> std::string {
    const auto get_version = candidate.function<int (*)(int*)>("ncclGetVersion");
    if (get_version == nullptr) return "it has no ncclGetVersion";
    int version = 0;
    if (get_version(&version) != 0) return "it does not tell its version";
    found = {candidate.path(), version_text(version)};
    return "";
  });
  if (!library) return library.failure();
  return found;
}

const LibraryRegistry::Add kAdd({"NCCL", "ranks exchange activations over MPI instead", facts});

}  // namespace
}  // namespace chorale
