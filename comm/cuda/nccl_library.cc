#include "comm/cuda/nccl_library.h"

#include "comm/base/env.h"
#include "comm/base/shared_library.h"

namespace chorale {
namespace {

constexpr int kOldest =
    21800;  // communicators that do not block and can be finalized; the configuration that is passed

/// 22809 -> "2.28.9" (NCCL_VERSION since 2.9).
std::string version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

/// Fills the table. Says what is wrong, or "".
std::string read_table(const SharedLibrary& library, Nccl& table) {
  // First, so that a library that lacks a function because it is old is called old.
  const auto get_version = library.function<nccl::GetVersionFunction>("ncclGetVersion");
  if (get_version == nullptr) return "it has no ncclGetVersion";
  int version = 0;
  if (get_version(&version) != nccl::kSuccess) return "it does not tell its version";
  table.version = version_text(version);
  table.path = library.path();
  if (version < kOldest)
    return fmt::format("it is version {}; {} or newer is needed", table.version, version_text(kOldest));
  if (env(EnvVar::kNcclCommBlocking) == "1")
    return "NCCL_COMM_BLOCKING=1 makes its calls wait for lost peers without a deadline: unset it";
#define CHORALE_SYMBOL(result, member, name, arguments) {"nccl" #name, reinterpret_cast<void**>(&table.member)},
  return bind_symbols(library, {CHORALE_NCCL_FUNCTIONS(CHORALE_SYMBOL)});
#undef CHORALE_SYMBOL
}

Result<Nccl> search() {
  Nccl table;
  const LibrarySearch places{.name = "NCCL",
                             .path_variable = EnvVar::kNcclPath,
                             .file_names = {"libnccl.so.2"},
                             .wheel_folders = {"nvidia/nccl/lib"}};
  auto library = find_library(places, [&](const SharedLibrary& found) { return read_table(found, table); });
  if (!library) return library.failure();
  std::move(*library).leave_open();  // libraries of CUDA leave threads and hooks behind
  return table;
}

Result<LibraryFacts> facts() {
  const Result<Nccl>& table = find_nccl();
  if (!table) return table.failure();
  return LibraryFacts{table->path, table->version};
}

const LibraryRegistry::Add kAdd({"NCCL", "ranks exchange activations over MPI instead", facts});

}  // namespace

const Result<Nccl>& find_nccl() {
  static const auto* const kTable = new Result<Nccl>(search());
  return *kTable;
}

Result<Nccl> load_nccl(const std::string& path) {
  auto library = SharedLibrary::open(path);
  if (!library) return library.failure();
  Nccl table;
  const std::string problem = read_table(*library, table);
  if (!problem.empty()) return Failure{ErrorCode::kUnsupported, path + ": " + problem, ""};
  std::move(*library).leave_open();  // libraries of CUDA leave threads and hooks behind
  return table;
}

std::string nccl_version(DeviceKind kind) { return nccl_problem(kind).empty() ? find_nccl()->version : std::string(); }

std::string nccl_problem(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return "the CPU has no use for NCCL";
  if (kind == DeviceKind::kEmulator && !env(EnvVar::kNcclPath))
    return fmt::format("the emulator takes NCCL only from {}, which is not set", env_name(EnvVar::kNcclPath));
  return find_nccl() ? std::string() : find_nccl().failure().message;
}

}  // namespace chorale
