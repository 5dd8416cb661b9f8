#include <atomic>
#include <exception>
#include <thread>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "comm/thread_group.h"
#include "tests/support/comm_cases.h"

namespace chorale::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Runs `body(communicator)` on one thread per rank; fails with the first exception.
template <typename Body>
void on_each_rank(std::vector<std::unique_ptr<Communicator>> ranks, Body body) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(ranks.size());
  for (size_t r = 0; r < ranks.size(); ++r)
    threads.emplace_back([&, r] {
      try {
        body(ranks[r]);
      } catch (...) {
        errors[r] = std::current_exception();
        ranks[r].reset();  // the others learn that this rank is gone
      }
    });
  for (auto& thread : threads) thread.join();
  for (size_t r = 0; r < errors.size(); ++r) {
    if (!errors[r]) continue;
    try {
      std::rethrow_exception(errors[r]);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "rank " << r << ": " << error.what();
    }
  }
}

class ThreadCommunicator : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, ThreadCommunicator, testing::Range(1, 10));

TEST_P(ThreadCommunicator, GivesTheSerialBitsForEveryOperation) {
  std::atomic<uint64_t> checksum{0};
  on_each_rank(make_threads(GetParam()), [&](auto& comm) {
    const uint64_t mine = run_communicator_cases(*comm, CaseSize::kQuick);
    uint64_t expected = 0;
    if (!checksum.compare_exchange_strong(expected, mine)) {
      EXPECT_EQ(expected, mine);
    }
  });
}

TEST_P(ThreadCommunicator, PipelinesWhatExceedsItsBuffers) {
  on_each_rank(make_threads({.num_ranks = GetParam(), .slot_bytes = 2048, .channel_bytes = 512}),
               [](auto& comm) { run_communicator_cases(*comm, CaseSize::kQuick); });
}

TEST(SingleCommunicator, GivesTheSerialBitsForEveryOperation) {
  const auto comm = make_single();
  const auto threads = make_threads(1);
  EXPECT_EQ(run_communicator_cases(*comm, CaseSize::kQuick), run_communicator_cases(*threads[0], CaseSize::kQuick));
}

TEST(ThreadGroup, ALargeAllReduceGivesTheSerialBits) {
  on_each_rank(make_threads(3), [](auto& comm) { run_communicator_cases(*comm, CaseSize::kFull); });
}

template <typename Call>
ErrorCode code_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kSystem;
}

TEST(ThreadGroup, EveryWaitEndsAtItsDeadline) {
  auto ranks = make_threads({.num_ranks = 2, .channel_bytes = 256});
  const auto start = Deadline::Clock::now();
  const auto soon = [] { return Deadline::after(milliseconds(20)); };
  std::byte byte{};
  EXPECT_EQ(code_of([&] { ranks[0]->recv({&byte, 1}, 1, 0, soon()); }), ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(code_of([&] { ranks[0]->barrier(soon()); }), ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(code_of([&] { ranks[1]->send(std::vector<std::byte>(1000), 0, 0, soon()); }), ErrorCode::kDeadlineExceeded);
  EXPECT_LT(Deadline::Clock::now() - start, seconds(5));
}

TEST(ThreadGroup, ARankThatLeavesEndsTheWaitOfTheOthers) {
  auto ranks = make_threads(3);
  std::thread leaver([&] { ranks[2].reset(); });
  EXPECT_EQ(code_of([&] { ranks[0]->barrier(Deadline::after(seconds(60))); }), ErrorCode::kPeerLost);
  EXPECT_EQ(code_of([&] {
              std::byte byte{};
              ranks[1]->recv({&byte, 1}, 2, 0, Deadline::after(seconds(60)));
            }),
            ErrorCode::kPeerLost);
  leaver.join();
}

TEST(ThreadGroup, WhatALeaverSentStillArrives) {
  auto ranks = make_threads(2);
  const std::byte sent{42};
  ranks[1]->send({&sent, 1}, 0, 7, Deadline::after(seconds(5)));
  ranks[1].reset();
  std::byte got{};
  ranks[0]->recv({&got, 1}, 1, 7, Deadline::after(seconds(5)));
  EXPECT_EQ(got, sent);
}

TEST(ThreadGroup, AMessageOfTheWrongSizeIsAnError) {
  auto ranks = make_threads(2);
  const std::byte sent{1};
  ranks[1]->send({&sent, 1}, 0, 7, Deadline::after(seconds(5)));
  std::byte got[2];
  EXPECT_EQ(code_of([&] { ranks[0]->recv(got, 1, 7, Deadline::after(seconds(5))); }), ErrorCode::kInvalidArgument);
}

TEST(ThreadGroup, LargeMessagesBothWaysAtOnceDoNotBlockEachOther) {
  on_each_rank(make_threads({.num_ranks = 2, .channel_bytes = 256}), [](auto& comm) {
    const int other = 1 - comm->rank();
    std::vector<std::byte> out(100'000, static_cast<std::byte>(comm->rank())), in(out.size());
    for (int i = 0; i < 3; ++i) comm->send(out, other, 0, Deadline::after(seconds(30)));
    for (int i = 0; i < 3; ++i) comm->recv(in, other, 0, Deadline::after(seconds(30)));
    EXPECT_EQ(in.back(), static_cast<std::byte>(other));
  });
}

}  // namespace
}  // namespace chorale::comm
