// Ranks tell each other whether they captured their graphs.
#include <gtest/gtest.h>

#include <thread>

#include "comm/base/error.h"
#include "worker/capture_agreement.h"

namespace chorale::worker {
namespace {

TEST(CaptureAgreement, TellsEveryRankWhatWentWrongOnWhich) {
  const std::string endless(5000, 'x');
  const std::vector<std::string> own{"", "no room", endless};
  auto worlds = comm::make_threads(3);
  std::vector<std::thread> threads;
  for (size_t r = 0; r < 3; ++r)
    threads.emplace_back([&, r] {
      const auto failures = share_failures(*worlds[r], own[r], Deadline::after(std::chrono::seconds(30)));
      EXPECT_EQ(failures, (std::vector<std::string>{"", "no room", endless.substr(0, 399)}));
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(CaptureAgreement, EndsAtItsDeadlineWithoutARank) {
  auto worlds = comm::make_threads(2);
  try {
    share_failures(*worlds[0], "", Deadline::after(std::chrono::milliseconds(50)));
    FAIL() << "nobody answered";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded) << error.what();
  }
}

TEST(CaptureAgreement, NamesTheFirstRankItsReasonAndTheFlag) {
  EXPECT_EQ(describe_failures({"", "", ""}), "");
  EXPECT_EQ(describe_failures({"", "no room", "other"}),
            "decode steps run without CUDA graphs, slower and with the same bits: rank 1 and 1 more could not capture "
            "them: no room (--no-cuda-graphs does not try)");
}

}  // namespace
}  // namespace chorale::worker
