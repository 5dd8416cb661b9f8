// NCCL as a transport of device memory: the library's table, communicators that do not block, every operation, faults
// and deadlines. The library is the build's stand-in (tests/support/fake_nccl.cc) on the emulator's streams; ranks are
// threads.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "comm/base/device.h"
#include "comm/base/stuck_device.h"
#include "comm/base/tensor.h"
#include "comm/cuda/nccl_transport.h"
#include "tests/support/nccl_log.h"

namespace chorale::comm {
namespace {

using testing::HasSubstr;

const std::string kFolder = CHORALE_FAKE_LIBRARIES;
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

const Nccl& fake() {
  static const Result<Nccl> kLibrary = load_nccl(kFolder + "/libfake_nccl.so");
  if (!kLibrary) throw Error(kLibrary.failure().code, kLibrary.failure().message);
  return *kLibrary;
}
void give_up() {
  void* handle = dlopen(fake().path.c_str(), RTLD_NOW | RTLD_NOLOAD);
  reinterpret_cast<void (*)()>(dlsym(handle, "fakeNcclGiveUp"))();
}

Deadline soon() { return Deadline::after(std::chrono::seconds(30)); }
Deadline shortly() { return Deadline::after(std::chrono::milliseconds(200)); }

/// What a rank has.
struct Rank {
  Communicator& host;
  Device& device;
  Stream& stream;
  DeviceTransport& transport;
  std::deque<Tensor>& memory;  // goes when no stream hangs any more

  std::span<float> floats(int64_t count, float first = 0) {
    float* data = memory.emplace_back(device, DType::kF32, Shape{count}).as<float>();
    std::iota(data, data + count, first);  // the emulator's memory is the host's
    return {data, static_cast<size_t>(count)};
  }
};

struct WorldOptions {
  int size = 2;
  int max_ctas = 0;
  Deadline start = soon();
};

/// Runs `body` on each rank; returns what each threw, "" for nothing.
std::vector<std::string> run_ranks(const WorldOptions& options, const std::function<void(Rank&)>& body) {
  auto worlds = make_threads(options.size);
  std::vector<std::string> errors(worlds.size());
  std::vector<int> members(worlds.size());
  std::iota(members.begin(), members.end(), 0);
  std::vector<std::thread> threads;
  std::atomic<int> num_left{options.size};
  for (size_t r = 0; r < worlds.size(); ++r)
    threads.emplace_back([&, r] {
      const auto device = open_device(DeviceKind::kEmulator, 0);
      const auto stream = device->make_stream();
      std::deque<Tensor> memory;
      try {
        const auto transport =
            make_nccl_transport(fake(), {*worlds[r], members, "stage 0", options.max_ctas, options.start});
        stream->add_watch(*transport);
        Rank rank{*worlds[r], *device, *stream, *transport, memory};
        body(rank);
        stream->remove_watch(*transport);
      } catch (const Error& error) {
        errors[r] = fmt::format("{}: {}", to_string(error.code()), error.what());
      }
      if (--num_left == 0) give_up();  // streams that hang would hold up the end
      while (num_left > 0) std::this_thread::yield();
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

const std::vector<std::string> kNoErrors2(2), kNoErrors3(3);

TEST(NcclLibrary, RefusesWhatIsTooOldOrLacksAFunction) {
  {
    const Environment old("FAKE_NCCL_VERSION", "21003");
    const auto library = load_nccl(kFolder + "/libfake_nccl_missing.so");
    ASSERT_FALSE(library);
    EXPECT_THAT(library.failure().message, HasSubstr("it is version 2.10.3; 2.18.0 or newer is needed"));
  }
  const auto library = load_nccl(kFolder + "/libfake_nccl_missing.so");
  ASSERT_FALSE(library);
  EXPECT_THAT(library.failure().message, HasSubstr("it has no ncclGroupEnd"));
  EXPECT_EQ(fake().version, "2.28.9");
  EXPECT_EQ(nccl_version(DeviceKind::kCpu), "");
  EXPECT_EQ(nccl_version(DeviceKind::kEmulator), "") << "only where CHORALE_NCCL_PATH names it";
  EXPECT_THAT(nccl_problem(DeviceKind::kEmulator), HasSubstr("CHORALE_NCCL_PATH, which is not set"));
}

TEST(NcclTransport, MovesBytesInTheOrderOfTheStream) {
  constexpr int64_t kCount = 70000;  // several chunks
  const auto errors = run_ranks({.size = 3}, [&](Rank& rank) {
    const int next = (rank.transport.rank() + 1) % 3, before = (rank.transport.rank() + 2) % 3;
    const std::span<float> mine = rank.floats(kCount, static_cast<float>(rank.transport.rank())),
                           got = rank.floats(kCount);
    // A ring without a group: even ranks send first.
    const auto send = [&] { rank.transport.send(std::as_writable_bytes(mine), next, rank.stream, soon()); };
    const auto recv = [&] { rank.transport.recv(std::as_writable_bytes(got), before, rank.stream, soon()); };
    if (rank.transport.rank() == 0) send();
    recv();
    if (rank.transport.rank() != 0) send();
    rank.stream.copy(mine.data(), got.data(), 4, CopyKind::kDeviceToDevice);
    rank.transport.broadcast(std::as_writable_bytes(mine), 1, rank.stream, soon());
    rank.stream.synchronize(soon());
    EXPECT_EQ(got[kCount - 1], static_cast<float>(before + kCount - 1));
    EXPECT_EQ(mine[0], 0.0f) << "rank 1 had copied rank 0's first element";
    EXPECT_EQ(mine[1], 2.0f);
  });
  EXPECT_EQ(errors, kNoErrors3);
}

TEST(NcclTransport, GathersEvenAndUnevenParts) {
  for (const std::vector<size_t>& counts : {std::vector<size_t>{5, 5, 5}, {7, 0, 2}, {0, 0, 30000}, {1, 2, 3}}) {
    std::vector<size_t> offsets{0};
    for (size_t count : counts) offsets.push_back(offsets.back() + count * sizeof(float));
    const auto errors = run_ranks({.size = 3}, [&](Rank& rank) {
      const std::span<float> all = rank.floats(static_cast<int64_t>(offsets.back() / 4));
      const auto r = static_cast<size_t>(rank.transport.rank());
      for (size_t i = 0; i < offsets.back() / 4; ++i)  // only the own part is right
        all[i] = i * 4 >= offsets[r] && i * 4 < offsets[r + 1] ? static_cast<float>(i) : -1.0f;
      rank.transport.all_gather(std::as_writable_bytes(all), offsets, rank.stream, soon());
      rank.stream.synchronize(soon());
      for (size_t i = 0; i < offsets.back() / 4; ++i) ASSERT_EQ(all[i], static_cast<float>(i));
    });
    EXPECT_EQ(errors, kNoErrors3);
  }
}

TEST(NcclTransport, AddsUpInPlace) {
  const auto errors = run_ranks({.size = 3}, [&](Rank& rank) {
    const std::span<float> values = rank.floats(1000, static_cast<float>(rank.transport.rank()));
    rank.transport.all_reduce_sum(values, rank.stream, soon());
    rank.stream.synchronize(soon());
    for (int i = 0; i < 1000; ++i) ASSERT_EQ(values[i], static_cast<float>(3 * i + 3));
  });
  EXPECT_EQ(errors, kNoErrors3);
}

TEST(NcclTransport, AGraphOfOperationsIsLaunchedAgainAndAgain) {
  const auto errors = run_ranks({}, [&](Rank& rank) {
    const std::span<float> all = rank.floats(2);
    const std::vector<size_t> offsets{0, 4, 8};
    const auto r = static_cast<size_t>(rank.transport.rank());
    const auto graph = rank.stream.capture([&] {
      rank.transport.all_gather(std::as_writable_bytes(all), offsets, rank.stream, soon());
      rank.transport.all_reduce_sum(all.first(1), rank.stream, soon());
    });
    for (int round = 1; round < 4; ++round) {
      all[r] = static_cast<float>(round + 10 * rank.transport.rank());
      rank.host.barrier(soon());
      graph->launch(rank.stream);
      rank.stream.synchronize(soon());
      ASSERT_EQ(all[0], static_cast<float>(2 * round));
      ASSERT_EQ(all[1], static_cast<float>(round + 10));
    }
  });
  EXPECT_EQ(errors, kNoErrors2);
}

TEST(NcclFaults, ACommunicatorThatIsNeverReadyEndsAtTheDeadline) {
  const Environment fault("FAKE_NCCL_FAULT", "hang-init@1");
  for (const std::string& error : run_ranks({.start = shortly()}, [](Rank&) {}))
    EXPECT_EQ(error,
              "deadline exceeded: NCCL 2.28.9 (stage 0: ranks 0, 1) to start did not begin by the deadline: a peer is "
              "late, hung or gone");
}

void gather(Rank& rank, Deadline deadline) {
  const std::span<float> all = rank.floats(2);
  const std::vector<size_t> offsets{0, 4, 8};
  rank.transport.all_gather(std::as_writable_bytes(all), offsets, rank.stream, soon());
  rank.stream.synchronize(deadline);
}

TEST(NcclFaults, AHungPeerEndsTheWaitAtItsDeadlineAndIsNamed) {
  const Environment fault("FAKE_NCCL_FAULT", "hang-op:1@1");
  for (const std::string& error : run_ranks({}, [](Rank& rank) { gather(rank, shortly()); })) {
    EXPECT_THAT(error, HasSubstr("deadline exceeded"));
    EXPECT_THAT(error, HasSubstr("NCCL 2.28.9 (stage 0: ranks 0, 1) all-gather no. 1 of 8 bytes"));
  }
}

TEST(NcclFaults, AnErrorOfThePeerEndsTheWaitAtOnce) {
  const Environment fault("FAKE_NCCL_FAULT", "error-op:1");
  for (const std::string& error : run_ranks({}, [](Rank& rank) { gather(rank, soon()); }))
    EXPECT_EQ(error,
              "peer lost: NCCL 2.28.9 (stage 0: ranks 0, 1) all-gather no. 1 of 8 bytes failed: remote process exited "
              "or there was a network error: the fault that the test asked for");
  EXPECT_TRUE(is_device_stuck()) << "owners of its memory would wait for it";
}

TEST(NcclFaults, ARefusedCaptureEndsTheCommunicatorUntilItIsMadeAnew) {
  const Environment fault("FAKE_NCCL_FAULT", "refuse-capture@1");
  std::atomic<int> num_refused{0};
  const auto errors = run_ranks({}, [&](Rank& rank) {
    const std::span<float> values = rank.floats(4);
    const auto sum = [&] { rank.transport.all_reduce_sum(values, rank.stream, soon()); };
    try {
      rank.stream.capture(sum);  // rank 0's is captured
    } catch (const Error& error) {
      ++num_refused;
      EXPECT_EQ(rank.transport.rank(), 1);
      EXPECT_STREQ(error.what(),
                   "NCCL 2.28.9 (stage 0: ranks 0, 1) all-reduce no. 1 of 16 bytes failed: invalid usage: the fault "
                   "that the test asked for");
      EXPECT_THROW(sum(), Error) << "without a graph, of what refused one";
    }
    rank.transport.renew(soon());
    for (float& value : values) value = static_cast<float>(rank.transport.rank() + 1);
    sum();
    rank.stream.synchronize(soon());
    EXPECT_THAT(values, testing::Each(3.0f));
  });
  EXPECT_EQ(errors, kNoErrors2);
  EXPECT_EQ(num_refused, 1);
}

TEST(NcclTransport, TakesAsManyThreadBlocksAsAskedUnlessTheUserSaysHowMany) {
  const auto nothing = [](Rank&) {};
  const auto seen = [&](int max_ctas) {
    const test::NcclLog log;
    EXPECT_EQ(run_ranks({.max_ctas = max_ctas}, nothing), kNoErrors2);
    std::vector<std::string> lines = log.lines();
    std::ranges::sort(lines);
    return lines;
  };
  const std::vector<std::string> as_the_library_thinks{"0 0/2 ctas=0 init 0 -", "1 1/2 ctas=0 init 0 -"};
  EXPECT_EQ(seen(0), as_the_library_thinks);
  EXPECT_EQ(seen(2), (std::vector<std::string>{"0 0/2 ctas=2 init 0 -", "1 1/2 ctas=2 init 0 -"}));
  for (const char* name : {"NCCL_MAX_CTAS", "NCCL_MIN_CTAS", "NCCL_MAX_NCHANNELS", "NCCL_MIN_NCHANNELS",
                           "NCCL_MAX_P2P_NCHANNELS", "NCCL_MIN_P2P_NCHANNELS", "NCCL_NCHANNELS_PER_NET_PEER"}) {
    const Environment users(name, "8");
    EXPECT_EQ(seen(2), as_the_library_thinks) << name;
    EXPECT_STREQ(std::getenv(name), "8");
  }
}

TEST(NcclLibrary, IsRefusedWhereItsCallsWouldBlock) {
  const Environment blocking("NCCL_COMM_BLOCKING", "1");
  const auto library = load_nccl(kFolder + "/libfake_nccl.so");
  ASSERT_FALSE(library);
  EXPECT_THAT(library.failure().message, HasSubstr("NCCL_COMM_BLOCKING=1 makes its calls wait"));
}

TEST(NcclFaults, ALatePeerIsWaitedFor) {
  const Environment fault("FAKE_NCCL_FAULT", "slow:10@1");
  EXPECT_EQ(run_ranks({}, [](Rank& rank) { gather(rank, soon()); }), kNoErrors2);
}

TEST(NcclFaults, CallsThatDoNotMatchHang) {
  const auto errors = run_ranks({}, [](Rank& rank) {
    if (rank.transport.rank() == 0) return gather(rank, shortly());
    const std::span<float> value = rank.floats(2);
    rank.transport.broadcast(std::as_writable_bytes(value), 0, rank.stream, soon());
    rank.stream.synchronize(shortly());
  });
  EXPECT_THAT(errors[0], HasSubstr("all-gather no. 1"));
  EXPECT_THAT(errors[1], HasSubstr("broadcast no. 1"));
}

}  // namespace
}  // namespace chorale::comm
