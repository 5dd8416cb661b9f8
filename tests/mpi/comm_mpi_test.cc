// A program for mpirun: runs the collectives of tests/support/comm_cases.h on every backend that fits and compares the
// checksums across backends and ranks; with an argument, one of the cases in which a world is lost, or `bench`, which
// prints a table for docs/results/comm.md. Exit code 0, or 1 with one line; lost worlds exit 3.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "comm/base/affinity.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/registry.h"
#include "comm/base/watchdog.h"
#include "comm/bench_comm.h"
#include "comm/world.h"
#include "tests/support/comm_cases.h"

namespace chorale::comm {
namespace {

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

[[noreturn]] void fail_test(const std::string& message) {
  std::fprintf(stderr, "comm_mpi_test: %s\n", message.c_str());
  _exit(1);
}

void expect(bool condition, const std::string& message) {
  if (!condition) fail_test(message);
}

/// Ranks 0, 2, 4 ... on one pretended host and the others on another, so that tree neighbours sit on different hosts.
std::vector<int> two_hosts(int size) {
  std::vector<int> hosts;
  for (int r = 0; r < size; ++r) hosts.push_back(r % 2);
  return hosts;
}

void compare(Communicator& comm, uint64_t checksum, uint64_t expected) {
  expect(checksum == expected, fmt::format("rank {}: {} differs from mpi in its bits", comm.rank(), comm.backend()));
  std::vector<uint64_t> all(comm.size());
  all[comm.rank()] = checksum;
  std::vector<size_t> offsets;
  for (int r = 0; r <= comm.size(); ++r) offsets.push_back(r * sizeof(uint64_t));
  comm.all_gather(std::as_writable_bytes(std::span(all)), offsets, soon());
  for (uint64_t other : all) expect(other == expected, fmt::format("{}: ranks differ in their bits", comm.backend()));
}

uint64_t run_backend(const MpiSession& session, WorldOptions options, const std::string& expected_name, CaseSize size) {
  const auto world = make_world(session, options);
  expect(world->backend() == expected_name,
         fmt::format("expected backend {}, got {}", expected_name, world->backend()));
  const uint64_t checksum = run_communicator_cases(*world, size);
  compare(*world, checksum, checksum);
  world->barrier(soon());
  return checksum;
}

/// Of this run and no other: worlds of tests that run at the same time hold segments too.
uint64_t epoch_of(const MpiSession& session) {
  return std::stoull(session.broadcast_text(session.rank() == 0 ? std::to_string(getpid()) : "", soon()));
}

bool has_named_segment(uint64_t epoch) {
  const std::string prefix = fmt::format("chorale-{}-", epoch);
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
    if (entry.path().filename().string().starts_with(prefix)) return true;
  return false;
}

void run_all(const MpiSession& session) {
  expect(session.broadcast_text(session.rank() == 0 ? "host:1234 secret" : "", soon()) == "host:1234 secret",
         "broadcast_text gave another text");
  WorldOptions options;
  options.epoch = epoch_of(session);
  options.backend = "mpi";
  const uint64_t expected = run_backend(session, options, "mpi", CaseSize::kFull);
  for (const auto& backend : Registry<WorldBackend>::all()) {
    if (!backend.fits(session.map())) continue;
    options.backend = backend.name;
    expect(run_backend(session, options, std::string(backend.name), CaseSize::kFull) == expected,
           fmt::format("{} and mpi differ in their bits", backend.name));
  }
  options.backend = "";
  if (session.map().num_hosts() == 1) run_backend(session, options, "shared_memory", CaseSize::kQuick);
  options.shared_memory_limit_bytes = 1000;
  if (session.map().num_hosts() == 1) run_backend(session, options, "mpi", CaseSize::kQuick);
  options.shared_memory_limit_bytes = SIZE_MAX;
  options.host_of = two_hosts(session.size());
  const std::string spanning = session.size() > 2 ? "hybrid" : "mpi";
  expect(run_backend(session, options, spanning, CaseSize::kFull) == expected, "hybrid and mpi differ in their bits");
  options.shared_memory_limit_bytes = 1000;
  run_backend(session, options, spanning, CaseSize::kQuick);
  expect(!has_named_segment(options.epoch), "a shared memory segment kept its name");
}

/// The last rank dies inside a collective; the others leave with a line instead of hanging.
[[noreturn]] void lose_a_peer(const MpiSession& session, WorldOptions options) {
  const auto world = make_world(session, options);
  world->barrier(soon());
  if (session.rank() == session.size() - 1) raise(SIGKILL);
  try {
    for (;;) world->barrier(Deadline::after(std::chrono::seconds(20)));
  } catch (const Error& error) {
    leave_lost_world(fmt::format("rank {}: {}", session.rank(), error.what()));
  }
}

/// The last rank stays away; the others' deadline passes.
[[noreturn]] void miss_a_deadline(const MpiSession& session, WorldOptions options) {
  const auto world = make_world(session, options);
  world->barrier(soon());
  if (session.rank() == session.size() - 1) {
    std::byte byte{};
    try {
      world->recv({&byte, 1}, 0, 5, soon());  // never sent: away, but alive
    } catch (const Error&) {
    }
    _exit(1);
  }
  try {
    world->barrier(Deadline::after(std::chrono::milliseconds(200)));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kDeadlineExceeded)
      leave_lost_world(fmt::format("rank {}: {}", session.rank(), error.what()));
  }
  fail_test("the barrier ended without the last rank");
}

/// One rank never splits: the watchdog ends the others.
[[noreturn]] void hang_in_split(const MpiSession& session, WorldOptions options) {
  const auto world = make_world(session, options);
  std::vector<int> all;
  for (int r = 0; r < session.size(); ++r) all.push_back(r);
  if (session.rank() == session.size() - 1) {
    std::byte byte{};
    try {
      world->recv({&byte, 1}, 0, 5, soon());
    } catch (const Error&) {
    }
    _exit(1);
  }
  world->split(all, Deadline::after(std::chrono::milliseconds(200)));
  fail_test("the split ended without the last rank");
}

void bench(const MpiSession& session, WorldOptions options) {
  if (session.rank() == 0) fmt::print("{} ranks on {} cores\n", session.size(), available_cores());
  for (const char* backend : {"shared_memory", "mpi"}) {
    options.backend = backend;
    const auto world = make_world(session, options);
    const auto rows = measure_communicator(*world, {});
    if (session.rank() == 0) fmt::print("{}", to_table(rows));
  }
  if (session.rank() == 0)
    fmt::print("{}", to_table({measure_control_link(200, 2000), measure_control_link(4000, 2000)}));
}

}  // namespace
}  // namespace chorale::comm

int main(int argc, char** argv) {
  using namespace chorale::comm;
  chorale::init_log(chorale::LogLevel::kError, "test");
  const std::string what = argc > 1 ? argv[1] : "all";
  WorldOptions options;
  options.backend = argc > 2 ? argv[2] : "";
  try {
    const auto session = MpiSession::start();
    if (what == "kill") lose_a_peer(*session, options);
    if (what == "deadline") miss_a_deadline(*session, options);
    if (what == "split") hang_in_split(*session, options);
    if (what == "bench") {
      bench(*session, options);
      return 0;
    }
    run_all(*session);
    if (session->rank() == 0) fmt::print("ok: {} ranks\n", session->size());
  } catch (const std::exception& error) {
    fail_test(error.what());
  }
  return 0;
}
