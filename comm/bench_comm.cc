#include "comm/bench_comm.h"

#include <thread>

#include "comm/base/error.h"
#include "comm/control_link.h"

namespace chorale::comm {
namespace {

using Clock = Deadline::Clock;
constexpr int kTag = 17;

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

/// By the clock of the host, each operation by itself.
template <typename Operation>
std::vector<double> time_operation(Communicator& comm, const CommBenchOptions& options, size_t bytes,
                                   Operation operation) {
  return run_rounds(comm, options, bytes, [&](int count) {
    std::vector<double> times;
    for (int i = 0; i < count; ++i) {
      const auto start = Clock::now();
      operation();
      times.push_back(microseconds_since(start));
    }
    return times;
  });
}

std::vector<double> time_all_reduce(Communicator& comm, const CommBenchOptions& options, size_t bytes) {
  const BenchSum sum(comm.size(), bytes / sizeof(float));
  std::vector<float> partials = sum.partials(comm.rank());
  std::vector<float> out(bytes / sizeof(float));
  auto times =
      time_operation(comm, options, bytes, [&] { comm.tree_all_reduce(sum.schedule(), partials, out, soon()); });
  // Some backends add in the caller's partials, as they may; then only a fresh call has a known sum.
  partials = sum.partials(comm.rank());
  comm.tree_all_reduce(sum.schedule(), partials, out, soon());
  sum.check_root(out, fmt::format("the all-reduce over {}", comm.backend()));
  return times;
}

/// Rank 0 and the last rank play ping-pong; half of the time of a round trip counts.
std::vector<double> time_send_recv(Communicator& comm, const CommBenchOptions& options, size_t bytes) {
  const int last = comm.size() - 1;
  std::vector<std::byte> data(bytes);
  auto times = time_operation(comm, options, bytes, [&] {
    if (comm.rank() == 0) {
      comm.send(data, last, kTag, soon());
      comm.recv(data, last, kTag, soon());
    } else if (comm.rank() == last) {
      comm.recv(data, 0, kTag, soon());
      comm.send(data, 0, kTag, soon());
    }
  });
  for (double& time : times) time /= 2;
  return times;
}

}  // namespace

std::vector<CommBenchRow> measure_communicator(Communicator& comm, const CommBenchOptions& options) {
  CHECK_GE(comm.size(), 2);
  std::vector<CommBenchRow> rows;
  for (size_t bytes : options.sizes) {
    auto times = time_all_reduce(comm, options, bytes);
    if (comm.rank() == 0)
      rows.push_back(summarise(std::move(times),
                               {.test = "all_reduce", .backend = comm.backend(), .ranks = comm.size(), .bytes = bytes},
                               all_reduce_bus_factor(comm.size())));
  }
  for (size_t bytes : options.sizes) {
    auto times = time_send_recv(comm, options, bytes);
    if (comm.rank() == 0)
      rows.push_back(summarise(
          std::move(times), {.test = "send_recv", .backend = comm.backend(), .ranks = comm.size(), .bytes = bytes}, 1));
  }
  return rows;
}

CommBenchRow measure_control_link(size_t payload_bytes, int iterations) {
  ControlServerOptions server_options;
  server_options.secret = random_secret();
  server_options.num_ranks = 1;
  ControlServer server(server_options);
  server.start();
  ControlClientOptions client_options;
  client_options.host = server_options.host;
  client_options.port = server.port();
  client_options.secret = server_options.secret;
  const auto client = ControlClient::connect(client_options, soon());
  CHECK(server.wait(soon()).has_value());

  std::thread worker([&] {
    for (;;) {
      const auto plan = client->receive(soon());
      if (!plan || plan->type == MessageType::kStop) return;
      client->send(MessageType::kStepResult, plan->payload);
    }
  });
  const Bytes plan(payload_bytes);
  std::vector<double> times;
  constexpr int kWarmup = 100;
  for (int i = 0; i < kWarmup + iterations; ++i) {
    const auto start = Clock::now();
    server.send(0, MessageType::kStepPlan, plan);
    CHECK(server.wait(soon()).has_value());
    if (i >= kWarmup) times.push_back(microseconds_since(start));
  }
  server.send(0, MessageType::kStop, {});
  worker.join();
  return summarise(std::move(times),
                   {.test = "control_round_trip", .backend = "tcp", .ranks = 2, .bytes = payload_bytes}, 1);
}

}  // namespace chorale::comm
