// Worlds on the emulator whose ranks, threads here, exchange activations over NCCL (the build's stand-in): the bits of
// one rank in every layout; sums in the tree's order and in any; hidden rows that travel while host and compute go on.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "comm/cuda/nccl_library.h"
#include "tests/support/nccl_log.h"
#include "tests/unit/worker/device_test_support.h"
#include "tests/unit/worker/emulator_gate.h"
#include "tests/unit/worker/synthetic_model.h"
#include "tests/unit/worker/thread_world.h"
#include "worker/device_communicator.h"
#include "worker/hidden_link.h"

namespace chorale::worker::test {
namespace {

using parallel::DeviceComm;

// Before anybody looks for the library: that is done once.
const bool kIsSet = setenv("CHORALE_NCCL_PATH", CHORALE_FAKE_LIBRARIES "/libfake_nccl.so", 1) == 0;

Deadline soon() { return Deadline::after(std::chrono::seconds(30)); }

void let_go_of_what_hangs() {
  reinterpret_cast<void (*)()>(dlsym(dlopen(find_nccl()->path.c_str(), RTLD_NOW | RTLD_NOLOAD), "fakeNcclGiveUp"))();
}

std::vector<Job> jobs() {
  std::vector<Job> list{{.num_tokens = 4},
                        {.num_tokens = 3, .prompt_logprobs = parallel::PromptLogprobs::kYes},
                        {.num_tokens = 5, .sampling = {.temperature = 1.1f, .repetition_penalty = 1.2f, .seed = 7}}};
  for (size_t i = 0; i < list.size(); ++i)
    for (size_t t = 0; t < 3 + 13 * i; ++t) list[i].prompt.push_back(static_cast<int32_t>((t * 37 + i * 11 + 3) % 600));
  return list;
}

TEST(NcclWorlds, GiveTheBitsOfOneRankInEveryLayout) {
  ASSERT_TRUE(kIsSet && find_nccl()) << "the stand-in was not found";
  const SyntheticModel model(
      {.vocab = 600, .hidden = 48, .intermediate = 128, .heads = 4, .kv_heads = 2, .head_dim = 64});
  WorldOptions options{.compute = DType::kBF16, .device = DeviceKind::kEmulator};
  const std::vector<Answer> wanted = ThreadWorld(model.path(), options).run(jobs(), {Batching::kAlone, 0});
  options.device_comm = DeviceComm::kNccl;
  struct Case {
    int tp, pp;
    Schedule schedule;
  };
  for (const Case& c : {Case{1, 1, {Batching::kTogether, 7}}, Case{2, 1, {Batching::kTogether, 0}},
                        Case{3, 1, {Batching::kStaggered, 5}}, Case{1, 2, {Batching::kTogether, 9}},
                        Case{2, 2, {Batching::kStaggered, 16}}, Case{4, 1, {Batching::kTogether, 0}}}) {
    SCOPED_TRACE(fmt::format("tp={} pp={} chunk={}", c.tp, c.pp, c.schedule.chunk));
    options.tp = c.tp;
    options.pp = c.pp;
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs(), c.schedule), wanted);
    options.observes_logits = false;  // the host waits for less
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs(), c.schedule), wanted);
    options.observes_logits = true;
  }
}

TEST(NcclWorlds, AStepEndsAtItsDeadlineAndNamesTheOperation) {
  const SyntheticModel model(
      {.vocab = 600, .hidden = 48, .intermediate = 128, .heads = 4, .kv_heads = 2, .head_dim = 64});
  constexpr int kWarmUp = 6;  // operations of a group of two before its first step: sums, logits, ids
  setenv("FAKE_NCCL_FAULT", fmt::format("hang-op:{}@1", kWarmUp + 3).c_str(), 1);
  std::promise<void> ended;
  // When both ranks have thrown, their streams are let go, or the end of each would wait for them.
  std::thread giver([end = ended.get_future()] {
    end.wait_for(std::chrono::seconds(1));
    let_go_of_what_hangs();
  });
  std::string error = "none";
  try {
    ThreadWorld(model.path(), {.tp = 2,
                               .compute = DType::kBF16,
                               .device = DeviceKind::kEmulator,
                               .cuda_graphs = parallel::CudaGraphs::kOff,
                               .device_comm = DeviceComm::kNccl,
                               .deadline_ms = 300})
        .run(jobs());
  } catch (const Error& failure) {
    error = failure.what();
    EXPECT_EQ(failure.code(), ErrorCode::kDeadlineExceeded) << error;
  }
  unsetenv("FAKE_NCCL_FAULT");
  ended.set_value();
  giver.join();
  EXPECT_NE(error.find("NCCL 2.28.9 (stage 0: ranks 0, 1) all-gather no. "), std::string::npos) << error;
}

TEST(NcclWorlds, GoOnWithoutGraphsWhereOneRankCannotCaptureThem) {
  const SyntheticModel model(
      {.vocab = 600, .hidden = 48, .intermediate = 128, .heads = 4, .kv_heads = 2, .head_dim = 64});
  WorldOptions options{.tp = 2, .compute = DType::kBF16, .device = DeviceKind::kEmulator};
  const std::vector<Answer> wanted = ThreadWorld(model.path(), options).run(jobs());
  options.device_comm = DeviceComm::kNccl;
  const auto captured_by = [](const chorale::test::NcclLog& log, int rank) {
    return std::ranges::count_if(log.lines(), [rank](const std::string& line) {
      return line.starts_with(std::to_string(rank)) && line.ends_with(" captured");
    });
  };
  int64_t all = 0;
  {
    const chorale::test::NcclLog log;
    EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs()), wanted);
    all = captured_by(log, 1);
    EXPECT_GT(all, 0);
  }
  setenv("FAKE_NCCL_FAULT", "refuse-capture@1", 1);
  const chorale::test::NcclLog log;
  EXPECT_EQ(ThreadWorld(model.path(), options).run(jobs()), wanted);
  unsetenv("FAKE_NCCL_FAULT");
  EXPECT_EQ(captured_by(log, 0), all) << "who can, captures, and drops it";
  EXPECT_EQ(captured_by(log, 1), 0);
}

// The sizes of one row, of about 1 MiB and of the largest step (4096 rows of 48 numbers, 8 sequences); nothing else.
TEST(NcclWarmUp, DoesOnceWhatStepsWillAsk) {
  const SyntheticModel model({.vocab = 3000, .hidden = 96, .intermediate = 128, .heads = 4, .kv_heads = 2});
  const ThreadWorld shape(model.path(),
                          {.tp = 2, .pp = 2, .device = DeviceKind::kEmulator, .device_comm = DeviceComm::kNccl});
  ASSERT_EQ(shape.plan().config.hidden_size, 96);
  const chorale::test::NcclLog log;
  auto worlds = comm::make_threads(4);
  std::vector<std::thread> threads;
  for (int r = 0; r < 4; ++r)
    threads.emplace_back([&, r] {
      comm::Communicator& world = *worlds[static_cast<size_t>(r)];
      const auto device = open_device(DeviceKind::kEmulator, 0);
      const auto stream = device->make_stream();
      const StageTransports transports =
          make_stage_transports(shape.plan(), r, world, {device.get(), stream.get()}, soon());
      world.barrier(soon());
    });
  for (std::thread& thread : threads) thread.join();

  // By rank of the communicator, its size, and what it may take.
  std::map<std::string, std::multiset<std::string>> calls;
  for (const std::string& line : log.lines()) {
    const size_t who = line.find(' ') + 1, what = line.find(' ', line.find(' ', who) + 1) + 1;
    calls[line.substr(who, what - who - 1)].insert(line.substr(what));
  }
  const std::multiset<std::string> sums{"all-gather 384 -", "all-gather 524160 -", "all-gather 1572864 -"};
  const auto with = [](std::multiset<std::string> first, std::multiset<std::string> second) {
    first.merge(second);
    return first;
  };
  const auto twice = [&with](const std::multiset<std::string>& one) { return with(one, one); };
  const std::multiset<std::string> init{"init 0 -"};
  const int64_t slice = shape.plan().layout.vocab_rows[1].size() * 4;  // bytes
  const std::multiset<std::string> sends{fmt::format("send {} -", slice), fmt::format("send {} -", 32 * slice)},
      receives{fmt::format("recv {} -", slice), fmt::format("recv {} -", 32 * slice)};
  EXPECT_EQ(calls["0/2 ctas=0"], with(twice(with(init, sums)), receives)) << "groups of both stages";
  EXPECT_EQ(calls["1/2 ctas=0"], with(twice(with(init, sums)), sends));
  EXPECT_EQ(calls["0/2 ctas=2"], twice({"init 0 -", "send 384 -", "send 1048320 -", "send 1572864 -"})) << "links";
  EXPECT_EQ(calls["1/2 ctas=2"], twice({"init 0 -", "recv 384 -", "recv 1048320 -", "recv 1572864 -"}));
  for (const char* rank : {"0/3 ctas=1", "1/3 ctas=1", "2/3 ctas=1"})
    EXPECT_EQ(calls[rank], (std::multiset<std::string>{"init 0 -", "broadcast 4 -", "broadcast 32 -"})) << "ids";
  EXPECT_EQ(calls.size(), 7u);
}

TEST(NcclWarmUp, EndsAtItsDeadlineWhereAPeerHangs) {
  const SyntheticModel model({.vocab = 600, .hidden = 48, .intermediate = 128, .heads = 4, .kv_heads = 2});
  const ThreadWorld shape(model.path(), {.tp = 2, .device = DeviceKind::kEmulator, .device_comm = DeviceComm::kNccl});
  setenv("FAKE_NCCL_FAULT", "hang-op:2@1", 1);
  auto worlds = comm::make_threads(2);
  std::vector<std::string> errors(2);
  std::atomic<int> num_left{2};
  std::vector<std::thread> threads;
  for (size_t r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      const auto device = open_device(DeviceKind::kEmulator, 0);
      const auto stream = device->make_stream();
      try {
        make_stage_transports(shape.plan(), static_cast<int>(r), *worlds[r], {device.get(), stream.get()},
                              Deadline::after(std::chrono::milliseconds(200)));
      } catch (const Error& error) {
        errors[r] = error.what();
      }
      if (--num_left == 0) let_go_of_what_hangs();  // or the ends of streams would wait for it
      while (num_left > 0) std::this_thread::yield();
    });
  for (std::thread& thread : threads) thread.join();
  unsetenv("FAKE_NCCL_FAULT");
  for (const std::string& error : errors)
    EXPECT_THAT(error, testing::HasSubstr("deadline passed while waiting for the emulator's work, where peers take "
                                          "part: last NCCL 2.28.9 (stage 0: ranks 0, 1)"));
}

/// One rank of a group over NCCL, with what ops need.
struct GroupRank {
  explicit GroupRank(comm::Communicator& host_group) : host(host_group) {
    std::vector<int> members;
    for (int r = 0; r < host.size(); ++r) members.push_back(r);
    transport = comm::DeviceTransportRegistry::find("nccl")->make(
        {.host = host, .members = members, .label = "test", .deadline = soon()});
  }
  comm::Communicator& host;
  const std::unique_ptr<Device> device = open_device(DeviceKind::kEmulator, 0);
  const std::unique_ptr<Stream> stream = device->make_stream();
  const DeviceStream where{device.get(), stream.get()};
  ThreadPool pool{{.num_threads = 1, .spin_us = 0}};
  Workspace scratch{device.get(), size_t{1} << 16};
  OpContext op{DeviceKind::kEmulator, parallel::Isa::kScalar, pool, scratch, stream.get()};
  std::unique_ptr<comm::DeviceTransport> transport;
};

void on_ranks(int size, const std::function<void(GroupRank&)>& body) {
  auto worlds = comm::make_threads(size);
  std::vector<std::thread> threads;
  for (auto& world : worlds)
    threads.emplace_back([&world, &body] {
      GroupRank rank(*world);
      body(rank);
      rank.stream->synchronize(soon());
      rank.host.barrier(soon());
    });
  for (std::thread& thread : threads) thread.join();
}

TEST(NcclSums, FollowTheTreeOrTheLibraryAsTold) {
  constexpr int64_t kCount = 500;
  const auto schedule = comm::make_tree_schedule(8, {{0, 3}, {3, 4}, {4, 8}});  // 2 nodes, 1 and 1
  // Sums that show their order: in the tree's, the large values cancel before the small ones come.
  const auto value = [](int node, int64_t i) {
    const float large = node == 0 ? 1e8f : node == 1 ? -1e8f : 0.0f;
    return large + static_cast<float>(node * 10 + i % 7);
  };
  for (const SumOrder order : {SumOrder::kTree, SumOrder::kAny})
    on_ranks(3, [&](GroupRank& rank) {
      const auto communicator = make_device_communicator(rank.host, *rank.transport, rank.op, order);
      const int first = schedule.first_node[static_cast<size_t>(communicator->rank())];
      const int last = schedule.first_node[static_cast<size_t>(communicator->rank()) + 1];
      Tensor partials(*rank.device, DType::kF32, {last - first, kCount});
      for (int node = first; node < last; ++node)
        for (int64_t i = 0; i < kCount; ++i) partials.as<float>()[(node - first) * kCount + i] = value(node, i);
      const std::span<float> all(partials.as<float>(), static_cast<size_t>((last - first) * kCount));
      communicator->tree_all_reduce(schedule, all, all.first(kCount), soon());
      rank.stream->synchronize(soon());
      for (int64_t i = 0; i < kCount; ++i) {
        std::vector<float> sums;
        for (int node = 0; node < 4; ++node) sums.push_back(value(node, i));
        for (const comm::TreeAdd& add : schedule.additions)
          sums[static_cast<size_t>(add.left)] += sums[static_cast<size_t>(add.right)];
        if (order == SumOrder::kTree)
          ASSERT_EQ(partials.as<float>()[i], sums[0]) << i;
        else
          ASSERT_NEAR(partials.as<float>()[i], 60.0 + 4 * (i % 7), 32) << i;
      }
    });
}

// Two ranks, each with its compute stream held back in turn: who waits for the other in its compute stream, or on the
// host, does not come to the next barrier.
TEST(NcclHiddenLink, RowsTravelWhileHostAndComputeGoOn) {
  const SyntheticModel model({.vocab = 600, .hidden = 48, .intermediate = 128, .heads = 4, .kv_heads = 2});
  const ThreadWorld shape(model.path(), {.pp = 2, .device = DeviceKind::kEmulator, .device_comm = DeviceComm::kNccl});
  constexpr int kSteps = 7;        // more than there are buffers
  constexpr int kBuffers = 2;      // of a link
  constexpr int64_t kRows = 1000;  // three chunks of the stand-in's, which is through when the other side took the last
  auto worlds = comm::make_threads(2);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      comm::Communicator& world = *worlds[static_cast<size_t>(r)];
      const auto device = open_device(DeviceKind::kEmulator, 0);
      const auto stream = device->make_stream();
      const DeviceStream where{device.get(), stream.get()};
      StageTransports transports = make_stage_transports(shape.plan(), r, world, where, soon());
      ASSERT_EQ(transports.group, nullptr);
      ASSERT_EQ(transports.previous != nullptr, r == 1);
      ASSERT_EQ(transports.next != nullptr, r == 0);
      std::vector<Tensor> steps;
      for (int step = 0; step < kSteps; ++step) {
        steps.emplace_back(*device, DType::kF32, Shape{kRows + step, 48});
        for (int64_t i = 0; i < (kRows + step) * 48; ++i)
          steps.back().as<float>()[i] = r == 0 ? static_cast<float>(step * 1000 + i) : -1.0f;
      }
      {
        const auto link = make_hidden_link(hidden_ends(shape.plan(), r), world, transports, where);
        Gate gate(*device);
        gate.hold_back(*stream);
        if (r == 0) {
          for (int step = 0; step < kBuffers; ++step) link->send(steps[static_cast<size_t>(step)], soon());
          gate.open();  // the sends have returned before
          stream->synchronize(soon());
          world.barrier(soon());  // nobody has received yet
          for (int step = kBuffers; step < 2 * kBuffers; ++step) link->send(steps[static_cast<size_t>(step)], soon());
          stream->synchronize(soon());  // the first rows have left their buffers
          world.barrier(soon());
          for (int step = 2 * kBuffers; step < kSteps; ++step) link->send(steps[static_cast<size_t>(step)], soon());
        } else {
          world.barrier(soon());
          for (Tensor& rows : steps) link->receive(rows, soon());
          world.barrier(soon());  // the first rows have come
          gate.open();
        }
        stream->synchronize(soon());
      }
      for (int step = 0; step < kSteps; ++step)
        for (int64_t i = 0; i < (kRows + step) * 48; ++i)
          ASSERT_EQ(steps[static_cast<size_t>(step)].as<float>()[i], static_cast<float>(step * 1000 + i));
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace chorale::worker::test
