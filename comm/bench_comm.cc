#include "comm/bench_comm.h"

#include <algorithm>
#include <cmath>
#include <numeric>
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

CommBenchRow summarise(std::vector<double>& times, CommBenchRow row, double bus_factor) {
  std::ranges::sort(times);
  const auto at = [&](double quantile) { return times[static_cast<size_t>(quantile * (times.size() - 1) + 0.5)]; };
  row.num_samples = static_cast<int>(times.size());
  row.p50_us = at(0.50);
  row.p99_us = at(0.99);
  row.mean_us = std::accumulate(times.begin(), times.end(), 0.0) / times.size();
  row.algbw_gbps = row.bytes / row.mean_us * 1e-3;
  row.busbw_gbps = row.algbw_gbps * bus_factor;
  return row;
}

/// Runs `operation` on all ranks equally often: rank 0 watches the clock and announces how often each round will run.
template <typename Operation>
std::vector<double> time_operation(Communicator& comm, const CommBenchOptions& options, size_t bytes,
                                   Operation operation) {
  const int wanted = bytes <= (64u << 10)
                         ? options.iterations
                         : std::max<int>(20, static_cast<int>(options.iterations * (64.0 * 1024) / bytes));
  for (int i = 0; i < options.warmup; ++i) operation();
  std::vector<double> times;
  const auto begin = Clock::now();
  constexpr int kRound = 20;
  for (;;) {
    char go_on = static_cast<int>(times.size()) < wanted && microseconds_since(begin) < options.seconds_per_size * 1e6;
    comm.broadcast(std::as_writable_bytes(std::span(&go_on, 1)), 0, soon());
    if (go_on == 0) return times;
    comm.barrier(soon());
    for (int i = 0; i < kRound; ++i) {
      const auto start = Clock::now();
      operation();
      times.push_back(microseconds_since(start));
    }
  }
}

std::vector<double> time_all_reduce(Communicator& comm, const CommBenchOptions& options, size_t bytes) {
  const int size = comm.size();
  const TreeSchedule schedule = make_tree_schedule(size, share_leaves(size, size));
  std::vector<float> partials(bytes / sizeof(float), static_cast<float>(comm.rank() + 1));
  std::vector<float> out(partials.size());
  auto times = time_operation(comm, options, bytes, [&] { comm.tree_all_reduce(schedule, partials, out, soon()); });
  // Some backends add in the caller's partials, as they may; then only a fresh call has a known sum.
  std::ranges::fill(partials, static_cast<float>(comm.rank() + 1));
  comm.tree_all_reduce(schedule, partials, out, soon());
  const float expected = static_cast<float>(size) * static_cast<float>(size + 1) / 2;
  if (!out.empty() && (out.front() != expected || out.back() != expected))
    fail(ErrorCode::kCorrupt, "the all-reduce over {} gave {} instead of {}", comm.backend(), out.back(), expected);
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
  const double n = comm.size();
  for (size_t bytes : options.sizes) {
    auto times = time_all_reduce(comm, options, bytes);
    if (comm.rank() == 0)
      rows.push_back(summarise(times,
                               {.test = "all_reduce", .backend = comm.backend(), .ranks = comm.size(), .bytes = bytes},
                               2 * (n - 1) / n));
  }
  for (size_t bytes : options.sizes) {
    auto times = time_send_recv(comm, options, bytes);
    if (comm.rank() == 0)
      rows.push_back(
          summarise(times, {.test = "send_recv", .backend = comm.backend(), .ranks = comm.size(), .bytes = bytes}, 1));
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
  return summarise(times, {.test = "control_round_trip", .backend = "tcp", .ranks = 2, .bytes = payload_bytes}, 1);
}

std::string to_table(const std::vector<CommBenchRow>& rows) {
  std::string text = fmt::format("{:<18} {:<14} {:>5} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "test", "backend",
                                 "ranks", "bytes", "p50 us", "p99 us", "mean us", "algbw GB/s", "busbw GB/s");
  for (const CommBenchRow& row : rows)
    text += fmt::format("{:<18} {:<14} {:>5} {:>10} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", row.test,
                        row.backend, row.ranks, row.bytes, row.p50_us, row.p99_us, row.mean_us, row.algbw_gbps,
                        row.busbw_gbps);
  return text;
}

}  // namespace chorale::comm
