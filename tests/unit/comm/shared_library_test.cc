// Libraries that are found at run time: where they are looked for, and what is said of those that cannot serve. The
// libraries are small ones that the build makes (tests/support/fake_cublaslt.c).
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "comm/base/shared_library.h"
#include "comm/cuda/cublaslt_library.h"
#include "tests/support/temporary_folder.h"

namespace chorale {
namespace {

namespace fs = std::filesystem;

const std::string kRight = CHORALE_FAKE_LIBRARIES "/libfake_right.so";      // says 13.1.0
const std::string kOld = CHORALE_FAKE_LIBRARIES "/libfake_old.so";          // says 11.6.5
const std::string kMissing = CHORALE_FAKE_LIBRARIES "/libfake_missing.so";  // lacks cublasLtMatmul

/// Sets a variable for one test.
class WithEnv {
 public:
  WithEnv(EnvVar variable, const std::string& value) : name_(env_name(variable)) {
    if (const auto old = env(variable)) old_ = *old;
    setenv(name_.c_str(), value.c_str(), 1);
  }
  ~WithEnv() { old_.empty() ? unsetenv(name_.c_str()) : setenv(name_.c_str(), old_.c_str(), 1); }

 private:
  std::string name_, old_;
};

/// A folder that holds `library` as site-packages/vendor/lib/libchorale_fake.so.1 of a Python environment.
class FakeEnvironment {
 public:
  explicit FakeEnvironment(const std::string& library) {
    const fs::path folder = folder_.path() / "lib/python3.11/site-packages/vendor/lib";
    fs::create_directories(folder);
    fs::copy_file(library, folder / "libchorale_fake.so.1", fs::copy_options::overwrite_existing);
  }
  std::string root() const { return folder_.path(); }

 private:
  const test::TemporaryFolder folder_;
};

const LibrarySearch kSearch{.name = "Fake",
                            .path_variable = EnvVar::kCublasLtPath,
                            .file_names = {"libchorale_fake.so.1"},
                            .wheel_folders = {"vendor/lib"}};

std::string needs_version_13(const SharedLibrary& library) {
  const auto get_version = library.function<size_t (*)()>("cublasLtGetVersion");
  return get_version == nullptr ? "it has no cublasLtGetVersion" : get_version() / 10000 == 13 ? "" : "it is too old";
}

TEST(SharedLibrary, OpensAndFindsSymbols) {
  const auto library = SharedLibrary::open(kRight);
  ASSERT_TRUE(library) << library.failure().message;
  EXPECT_NE(library->symbol("cublasLtMatmul"), nullptr);
  EXPECT_EQ(library->symbol("no_such_function"), nullptr);
  EXPECT_EQ(library->path(), kRight);
  const auto none = SharedLibrary::open("/nonexistent/lib.so");
  ASSERT_FALSE(none);
  EXPECT_NE(none.failure().message.find("/nonexistent/lib.so"), std::string::npos);
}

TEST(SharedLibrary, IsFoundInAWheelOfThePythonEnvironment) {
  const FakeEnvironment environment(kRight);
  const WithEnv active(EnvVar::kVirtualEnv, environment.root());
  const auto found = find_library(kSearch, needs_version_13);
  ASSERT_TRUE(found) << found.failure().message;
  EXPECT_EQ(found->path(), environment.root() + "/lib/python3.11/site-packages/vendor/lib/libchorale_fake.so.1");
}

TEST(SharedLibrary, APathThatWasGivenIsTheOnlyPlace) {
  const FakeEnvironment environment(kRight);
  const WithEnv active(EnvVar::kVirtualEnv, environment.root());
  const WithEnv given(EnvVar::kCublasLtPath, kOld);
  const auto found = find_library(kSearch, needs_version_13);
  ASSERT_FALSE(found);
  EXPECT_NE(found.failure().message.find(kOld + ": it is too old"), std::string::npos) << found.failure().message;
  EXPECT_NE(found.failure().message.find("CHORALE_CUBLASLT_PATH"), std::string::npos);
}

TEST(SharedLibrary, AFolderMayBeGiven) {
  const FakeEnvironment environment(kRight);
  const WithEnv given(EnvVar::kCublasLtPath, environment.root() + "/lib/python3.11/site-packages/vendor/lib");
  EXPECT_TRUE(find_library(kSearch, needs_version_13));
  const WithEnv empty(EnvVar::kCublasLtPath, environment.root());
  const auto found = find_library(kSearch, needs_version_13);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.failure().code, ErrorCode::kUnsupported) << "somebody expects it there";
}

TEST(SharedLibrary, WhereThereIsNoneItSaysWhatToDo) {
  const auto found = find_library(kSearch, needs_version_13);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.failure().code, ErrorCode::kNotFound);
  for (const char* word : {"Fake", "libchorale_fake.so.1", "CHORALE_CUBLASLT_PATH"})
    EXPECT_NE(found.failure().message.find(word), std::string::npos) << found.failure().message;
}

TEST(CublasLt, ATableIsFilledOrSaysWhyNot) {
  const auto right = load_cublaslt(kRight);
  ASSERT_TRUE(right) << right.failure().message;
  EXPECT_EQ(right->version, "13.1.0");
  EXPECT_EQ(right->matmul,
            reinterpret_cast<decltype(right->matmul)>(SharedLibrary::open(kRight)->symbol("cublasLtMatmul")));

  const auto old = load_cublaslt(kOld);
  ASSERT_FALSE(old);
  EXPECT_EQ(old.failure().message, kOld + ": it is version 11.6.5; 12 to 13 can be used");

  const auto missing = load_cublaslt(kMissing);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.failure().message, kMissing + ": it has no cublasLtMatmul");
}

}  // namespace
}  // namespace chorale
