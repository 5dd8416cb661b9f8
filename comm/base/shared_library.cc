#include "comm/base/shared_library.h"

#include <dlfcn.h>
#include <glob.h>
#include <link.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

namespace chorale {
namespace {

std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

std::vector<std::string> toolkit_folders() {
  std::vector<std::string> folders;
  for (EnvVar variable : {EnvVar::kCudaHome, EnvVar::kCudaPath})
    if (const auto root = env(variable)) folders.push_back(*root);
  folders.push_back("/usr/local/cuda");
  std::vector<std::string> patterns;
  for (const std::string& root : folders)
    for (const char* below : {"/lib64", "/targets/*/lib", "/lib"}) patterns.push_back(root + below);
  return patterns;
}

/// Prefixes of Python environments: the active one, that of each python3 in PATH, the user's, the system's.
std::vector<std::string> python_prefixes() {
  std::vector<std::string> prefixes;
  for (EnvVar variable : {EnvVar::kVirtualEnv, EnvVar::kCondaPrefix})
    if (const auto prefix = env(variable)) prefixes.push_back(*prefix);
  std::istringstream folders(env(EnvVar::kPath).value_or(""));
  for (std::string folder; std::getline(folders, folder, ':');)
    if (!folder.empty() && access((folder + "/python3").c_str(), X_OK) == 0)
      prefixes.push_back(std::filesystem::path(folder).parent_path());
  if (const auto home = env(EnvVar::kHome)) prefixes.push_back(*home + "/.local");
  prefixes.insert(prefixes.end(), {"/usr/local", "/usr"});
  return prefixes;
}

std::vector<std::string> wheel_patterns(const LibrarySearch& search) {
  std::vector<std::string> patterns;
  for (const std::string& prefix : python_prefixes())
    for (const char* site : {"/lib*/python3*/site-packages/", "/lib*/python3*/dist-packages/"})
      for (const std::string& folder : search.wheel_folders) patterns.push_back(prefix + site + folder);
  return patterns;
}

/// What to hand to the loader, in order: paths that exist, and bare names.
std::vector<std::string> candidates(const LibrarySearch& search) {
  std::vector<std::string> list;
  if (const auto given = env(search.path_variable)) {
    if (!std::filesystem::is_directory(*given)) return {*given};
    for (const std::string& file : search.file_names)
      if (std::filesystem::exists(*given + "/" + file)) list.push_back(*given + "/" + file);
    return list;
  }
  std::vector<std::string> folders = toolkit_folders();
  for (std::string& pattern : wheel_patterns(search)) folders.push_back(std::move(pattern));
  for (const std::string& file : search.file_names) list.push_back(file);
  for (const std::string& folder : folders)
    for (const std::string& file : search.file_names)
      for (std::string& path : matches(folder + "/" + file)) list.push_back(std::move(path));
  return list;
}

bool is_bare(const std::string& candidate) { return candidate.find('/') == std::string::npos; }

}  // namespace

Result<SharedLibrary> SharedLibrary::open(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = dlerror();
    return Failure{ErrorCode::kNotFound, why == nullptr ? path + " cannot be opened" : why, ""};
  }
  return SharedLibrary(handle);
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* SharedLibrary::symbol(const char* name) const { return dlsym(handle_, name); }

std::string SharedLibrary::path() const {
  link_map* map = nullptr;
  if (dlinfo(handle_, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) return "?";
  return map->l_name;
}

std::string bind_symbols(const SharedLibrary& library, std::initializer_list<LibrarySymbol> symbols) {
  for (const LibrarySymbol& symbol : symbols) {
    *symbol.address = library.symbol(symbol.name);
    if (*symbol.address == nullptr) return fmt::format("it has no {}", symbol.name);
  }
  return {};
}

Result<SharedLibrary> find_library(const LibrarySearch& search,
                                   const std::function<std::string(const SharedLibrary&)>& check) {
  std::string problems;
  const auto note = [&](const std::string& text) {
    if (problems.find(text) == std::string::npos) problems += (problems.empty() ? "" : "; ") + text;
  };
  for (const std::string& candidate : candidates(search)) {
    auto library = SharedLibrary::open(candidate);
    if (!library) {
      if (!is_bare(candidate)) note(library.failure().message);
      continue;
    }
    const std::string problem = check(*library);
    if (problem.empty()) return std::move(*library);
    note(library->path() + ": " + problem);
  }
  const std::string_view variable = env_name(search.path_variable);
  if (!problems.empty())
    return Failure{ErrorCode::kUnsupported,
                   fmt::format("{} cannot be used: {}; set {} to another", search.name, problems, variable), ""};
  const auto given = env(search.path_variable);
  return Failure{
      given ? ErrorCode::kUnsupported : ErrorCode::kNotFound,
      fmt::format("{} ({}) was not found {}; install it or set {} to its file or folder", search.name,
                  fmt::join(search.file_names, " or "),
                  given ? "in " + *given : "by the loader, in the CUDA toolkit or in a Python wheel", variable),
      ""};
}

}  // namespace chorale
