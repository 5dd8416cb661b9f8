// Libraries that the program uses where they are and does without where they are not: opened at run time, so that one
// executable starts everywhere. Finds vendors' libraries in the places where people have them. Knows no library itself:
// users bring names and a check.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/registry.h"

namespace chorale {

/// An open library; closed at the end of its owner, after which nothing of it may be called. Thread: any.
class SharedLibrary {
 public:
  /// A path, or a bare name for the loader's own search (LD_LIBRARY_PATH, ldconfig).
  static Result<SharedLibrary> open(const std::string& path);
  SharedLibrary(SharedLibrary&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  SharedLibrary& operator=(SharedLibrary&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~SharedLibrary();

  /// nullptr where it has none of that name.
  void* symbol(const char* name) const;
  template <typename Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }
  std::string path() const;  // where the loader found it
  /// Stays open until the process ends; this object owns nothing any more.
  void leave_open() && { handle_ = nullptr; }

 private:
  explicit SharedLibrary(void* handle) : handle_(handle) {}
  void* handle_ = nullptr;
};

/// A function of a table and where its address goes.
struct LibrarySymbol {
  const char* name;
  void** address;
};
/// Fills the addresses. Says which is missing first; empty when none is.
std::string bind_symbols(const SharedLibrary& library, std::initializer_list<LibrarySymbol> symbols);

/// Where to look for a vendor's library: what `path_variable` names (a file, or a folder that holds one), and nowhere
/// else if it is set; the loader's own places; the CUDA toolkit ($CUDA_HOME, $CUDA_PATH, /usr/local/cuda); wheels of
/// the Python environments in sight ($VIRTUAL_ENV, $CONDA_PREFIX, of each python3 in PATH, the user's, the system's).
struct LibrarySearch {
  std::string_view name;                   // "cuBLASLt", for messages
  EnvVar path_variable;                    // CHORALE_CUBLASLT_PATH
  std::vector<std::string> file_names;     // {"libcublasLt.so.13", "libcublasLt.so.12"}: the first wins everywhere
  std::vector<std::string> wheel_folders;  // {"nvidia/cu13/lib", "nvidia/cublas/lib"} below site-packages
};

/// The first library that opens and that `check` finds nothing wrong with (it answers what is, or ""). The failure says
/// of each that was found what was wrong (kUnsupported; so is a place that was named and holds none), or that none was
/// found and what to do (kNotFound).
Result<SharedLibrary> find_library(const LibrarySearch& search,
                                   const std::function<std::string(const SharedLibrary&)>& check);

struct LibraryFacts {
  std::string path;
  std::string version;
};
/// Libraries that registered here are shown by `doctor`.
struct LibraryEntry {
  std::string_view name;
  std::string_view without;  // what happens where it is not found
  Result<LibraryFacts> (*find)() = nullptr;
};
using LibraryRegistry = Registry<LibraryEntry>;

}  // namespace chorale
