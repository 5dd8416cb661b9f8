// What the fake NCCL saw (FAKE_NCCL_LOG, tests/support/fake_nccl.cc), for tests in one process.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace chorale::test {

/// Lives while the fake writes its log. Thread: one, while no rank runs.
class NcclLog {
 public:
  NcclLog() { setenv("FAKE_NCCL_LOG", path_.c_str(), 1); }
  ~NcclLog() { unsetenv("FAKE_NCCL_LOG"); }
  NcclLog(const NcclLog&) = delete;
  NcclLog& operator=(const NcclLog&) = delete;

  /// Its lines, in the order of the calls of each rank.
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    std::ifstream in(path_);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }

 private:
  const TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "calls";
};

}  // namespace chorale::test
