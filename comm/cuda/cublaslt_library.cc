#include "comm/cuda/cublaslt_library.h"

#include "comm/base/shared_library.h"

namespace chorale {
namespace {

constexpr size_t kOldestMajor = 12;  // the same functions, descriptors and attributes as 13
constexpr size_t kNewestMajor = 13;

/// Fills the table. Says what is wrong, or "".
std::string read_table(const SharedLibrary& library, CublasLt& table) {
#define CHORALE_SYMBOL(result, member, name, arguments) {"cublasLt" #name, reinterpret_cast<void**>(&table.member)},
  std::string problem = bind_symbols(library, {CHORALE_CUBLASLT_FUNCTIONS(CHORALE_SYMBOL)});
#undef CHORALE_SYMBOL
  if (!problem.empty()) return problem;
  const size_t version = table.get_version();  // 130100, 120805
  const size_t major = version / 10000;
  table.version = fmt::format("{}.{}.{}", major, version / 100 % 100, version % 100);
  table.path = library.path();
  if (major < kOldestMajor || major > kNewestMajor)
    return fmt::format("it is version {}; {} to {} can be used", table.version, kOldestMajor, kNewestMajor);
  return {};
}

Result<CublasLt> search() {
  CublasLt table;
  const LibrarySearch places{.name = "cuBLASLt",
                             .path_variable = EnvVar::kCublasLtPath,
                             .file_names = {"libcublasLt.so.13", "libcublasLt.so.12"},
                             .wheel_folders = {"nvidia/cu13/lib", "nvidia/cublas/lib"}};
  auto library = find_library(places, [&](const SharedLibrary& found) { return read_table(found, table); });
  if (!library) return library.failure();
  std::move(*library).leave_open();  // libraries of CUDA leave threads and hooks behind
  return table;
}

Result<LibraryFacts> facts() {
  const Result<CublasLt>& table = find_cublaslt();
  if (!table) return table.failure();
  return LibraryFacts{table->path, table->version};
}

const LibraryRegistry::Add kAdd(
    {"cuBLASLt", "our own matrix products serve, as they do by default; --gemm cublaslt and --answer fast are refused",
     facts});

}  // namespace

const Result<CublasLt>& find_cublaslt() {
  static const auto* const kTable = new Result<CublasLt>(search());
  return *kTable;
}

Result<CublasLt> load_cublaslt(const std::string& path) {
  auto library = SharedLibrary::open(path);
  if (!library) return library.failure();
  CublasLt table;
  const std::string problem = read_table(*library, table);
  if (!problem.empty()) return Failure{ErrorCode::kUnsupported, path + ": " + problem, ""};
  std::move(*library).leave_open();  // libraries of CUDA leave threads and hooks behind
  return table;
}

std::string cublaslt_version(DeviceKind kind) {
  return cublaslt_problem(kind).empty() ? find_cublaslt()->version : std::string();
}

std::string cublaslt_problem(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return "the CPU has no use for cuBLASLt";
  if (kind == DeviceKind::kEmulator && !env(EnvVar::kCublasLtPath))
    return fmt::format("the emulator takes cuBLASLt only from {}, which is not set", env_name(EnvVar::kCublasLtPath));
  return find_cublaslt() ? std::string() : find_cublaslt().failure().message;
}

void check_cublaslt(const CublasLt& library, cublaslt::Status status, const char* call) {
  if (status != cublaslt::kSuccess)
    fail(ErrorCode::kSystem, "{} failed: {} (cuBLASLt {})", call, library.get_status_string(status), library.version);
}

}  // namespace chorale
