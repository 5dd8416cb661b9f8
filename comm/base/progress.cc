#include "comm/base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

namespace chorale {
namespace {
constexpr int kBarWidth = 30;
constexpr std::chrono::milliseconds kRedrawEvery{100};
}  // namespace

ProgressBar::ProgressBar(std::string what, int64_t total)
    : what_(std::move(what)), total_(total), visible_(total > 0 && isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (visible_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::update(int64_t done, const std::string& note) {
  if (!visible_) return;
  const auto now = std::chrono::steady_clock::now();
  if (done < total_ && now - last_ < kRedrawEvery) return;
  last_ = now;
  const int filled = static_cast<int>(std::clamp<int64_t>(done * kBarWidth / total_, 0, kBarWidth));
  const std::string line = fmt::format("\r\033[K{} [{:=<{}}{: <{}}] {}/{} {}", what_, "", filled, "",
                                       kBarWidth - filled, done, total_, note);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace chorale
