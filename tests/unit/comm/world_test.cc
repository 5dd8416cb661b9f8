#include "comm/world.h"

#include <cstdlib>
#include <thread>

#include <gtest/gtest.h>

#include "comm/base/affinity.h"
#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/futex.h"
#include "comm/base/watchdog.h"
#include "comm/bench_comm.h"

extern "C" int MPI_Initialized(int* flag);

namespace chorale::comm {
namespace {

TEST(MpiSession, AloneItNeverTouchesMpi) {
  if (started_by_launcher()) GTEST_SKIP() << "this test itself runs under a launcher";
  const auto session = MpiSession::start();
  int initialized = 1;
  MPI_Initialized(&initialized);
  EXPECT_EQ(initialized, 0);
  EXPECT_FALSE(session->uses_mpi());
  EXPECT_EQ(session->size(), 1);
  EXPECT_EQ(session->broadcast_text("text", Deadline::after(std::chrono::seconds(1))), "text");
  EXPECT_EQ(make_world(*session, {})->backend(), "single");
}

TEST(WorldMap, CountsRanksOfAHost) {
  WorldMap map;
  map.rank = 3;
  map.size = 5;
  map.host_of = {0, 1, 0, 1, 1};
  EXPECT_EQ(map.num_hosts(), 2);
  EXPECT_EQ(map.local_rank(), 1);
  EXPECT_EQ(map.ranks_on_host(), 3);
  EXPECT_EQ(map.ranks_beside(), (std::vector<int>{1, 3, 4}));
}

TEST(WorldBackend, TheBestThatFitsTheHostsIsTaken) {
  const auto best = [](std::vector<int> host_of) {
    WorldMap map;
    map.size = static_cast<int>(host_of.size());
    map.host_of = std::move(host_of);
    const WorldBackend* chosen = nullptr;
    for (const WorldBackend& backend : Registry<WorldBackend>::all())
      if (backend.fits(map) && (chosen == nullptr || backend.priority > chosen->priority)) chosen = &backend;
    return std::string(chosen->name);
  };
  EXPECT_EQ(best({0, 0, 0}), "shared_memory");
  EXPECT_EQ(best({0, 0, 1}), "hybrid");
  EXPECT_EQ(best({0, 1, 2}), "mpi");
}

TEST(Watchdog, EndsTheProcessWithALineWhenACallHangs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const Watchdog watchdog("the call", Deadline::after(std::chrono::milliseconds(20)));
        std::atomic<uint32_t> never{0};
        const Deadline long_after = Deadline::after(std::chrono::seconds(30));
        while (!long_after.expired()) futex_wait(never, 0, long_after);
      },
      testing::ExitedWithCode(kExitWorldLost), "chorale: the call did not finish in time");
}

TEST(Watchdog, LetsACallThatReturnsGoOn) {
  { const Watchdog watchdog("the call", Deadline::after(std::chrono::seconds(30))); }
  SUCCEED();
}

TEST(Futex, WakesAWaiterAndKeepsItsDeadline) {
  std::atomic<uint32_t> word{0};
  futex_wait(word, 1, Deadline::after(std::chrono::seconds(30)));  // holds another value: returns at once
  futex_wait(word, 0, Deadline::after(std::chrono::milliseconds(5)));
  std::thread waker([&] {
    word.store(1);
    futex_wake_all(word);
  });
  const Deadline deadline = Deadline::after(std::chrono::seconds(30));
  while (word.load() == 0 && !deadline.expired()) futex_wait(word, 0, deadline);
  waker.join();
  EXPECT_FALSE(deadline.expired());
}

TEST(Futex, DoesNotSpinWhenThreadsOutnumberCores) {
  EXPECT_EQ(spin_time(available_cores() + 1).count(), 0);
  EXPECT_GT(spin_time(available_cores()).count(), 0);
}

TEST(Env, HidesTheSecretAndTreatsEmptyAsAbsent) {
  set_env(EnvVar::kSecret, "not for the log");
  for (const std::string& line : env_in_use()) EXPECT_EQ(line.find("not for the log"), std::string::npos);
  EXPECT_EQ(env(EnvVar::kSecret), "not for the log");
  set_env(EnvVar::kSecret, "");
  EXPECT_FALSE(env(EnvVar::kSecret).has_value());
}

TEST(CommBench, MeasuresEverySizeAndChecksTheSums) {
  auto ranks = make_threads(2);
  CommBenchOptions options;
  options.sizes = {64, 1 << 20};
  options.warmup = 1;
  options.iterations = 20;
  std::thread other([&] { measure_communicator(*ranks[1], options); });
  const auto rows = measure_communicator(*ranks[0], options);
  other.join();
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].test, "all_reduce");
  EXPECT_EQ(rows[3].test, "send_recv");
  for (const CommBenchRow& row : rows) {
    EXPECT_GT(row.p50_us, 0);
    EXPECT_LE(row.p50_us, row.p99_us);
    EXPECT_NEAR(row.algbw_gbps, row.bytes / row.mean_us / 1000, 1e-9);
  }
}

TEST(CommBench, MeasuresTheControlLink) {
  const CommBenchRow row = measure_control_link(200, 50);
  EXPECT_GT(row.p50_us, 0);
}

}  // namespace
}  // namespace chorale::comm
