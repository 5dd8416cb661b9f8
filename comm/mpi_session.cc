#include "comm/mpi_session.h"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>

#include "comm/backends/mpi_wait.h"
#include "comm/base/affinity.h"
#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/watchdog.h"

namespace chorale::comm {
namespace {

constexpr uint64_t kMaxTextBytes = 1u << 20;

std::string own_host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

WorldMap look_around() {
  WorldMap map;
  map.host_name = own_host_name();
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &map.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &map.size), "MPI_Comm_size");
  MPI_Comm beside = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, map.rank, MPI_INFO_NULL, &beside),
            "MPI_Comm_split_type");
  int first = map.rank;
  check_mpi(MPI_Bcast(&first, 1, MPI_INT, 0, beside), "MPI_Bcast");
  std::vector<int> first_of(map.size);
  check_mpi(MPI_Allgather(&first, 1, MPI_INT, first_of.data(), 1, MPI_INT, MPI_COMM_WORLD), "MPI_Allgather");
  MPI_Comm_free(&beside);
  std::map<int, int> numbers;
  map.host_of.clear();
  for (int leader : first_of) {
    numbers.emplace(leader, static_cast<int>(numbers.size()));
    map.host_of.push_back(numbers.at(leader));
  }
  return map;
}

}  // namespace

bool started_by_launcher() {
  if (const auto size = env(EnvVar::kOmpiWorldSize)) return *size != "1";
  return env(EnvVar::kPmixRank).has_value() || env(EnvVar::kPmiRank).has_value();
}

int WorldMap::num_hosts() const { return *std::ranges::max_element(host_of) + 1; }

std::vector<int> WorldMap::ranks_beside() const {
  std::vector<int> ranks;
  for (int r = 0; r < size; ++r)
    if (host_of[r] == host_of[rank]) ranks.push_back(r);
  return ranks;
}

int WorldMap::local_rank() const {
  return static_cast<int>(std::count(host_of.begin(), host_of.begin() + rank, host_of[rank]));
}

int WorldMap::ranks_on_host() const { return static_cast<int>(std::ranges::count(host_of, host_of[rank])); }

std::unique_ptr<MpiSession> MpiSession::start(const Options& options) {
  return std::unique_ptr<MpiSession>(new MpiSession(options, started_by_launcher()));
}

MpiSession::MpiSession(const Options& options, bool uses_mpi)
    : options_(options), uses_mpi_(uses_mpi), exceptions_at_start_(std::uncaught_exceptions()) {
  if (!uses_mpi_) {
    map_.host_name = own_host_name();
    return;
  }
  widen_affinity_to_allocation();
  if (!env(EnvVar::kOmpiYieldWhenIdle)) set_env(EnvVar::kOmpiYieldWhenIdle, "1");
  const Watchdog watchdog("MPI's start", Deadline::after(options_.deadline));
  int provided = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  if (provided < MPI_THREAD_SERIALIZED)
    fail(ErrorCode::kUnsupported, "this MPI library does not support MPI_THREAD_SERIALIZED; install one that does");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  map_ = look_around();
}

MpiSession::~MpiSession() {
  if (!uses_mpi_) return;
  if (std::uncaught_exceptions() > exceptions_at_start_) {
    log_debug("rank {} leaves without MPI_Finalize", map_.rank);
    return;
  }
  const Watchdog watchdog("MPI's end", Deadline::after(options_.deadline));
  MPI_Finalize();
}

std::string MpiSession::broadcast_text(const std::string& text, Deadline deadline) const {
  if (!uses_mpi_) return text;
  CHECK_LE(text.size(), kMaxTextBytes);
  uint64_t size = text.size();
  MPI_Request request;
  check_mpi(MPI_Ibcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD, &request), "MPI_Ibcast");
  wait_mpi({&request, 1}, deadline, "rank 0's text");
  CHECK_LE(size, kMaxTextBytes);
  std::string received = text;
  received.resize(size);
  check_mpi(MPI_Ibcast(received.data(), static_cast<int>(size), MPI_BYTE, 0, MPI_COMM_WORLD, &request), "MPI_Ibcast");
  wait_mpi({&request, 1}, deadline, "rank 0's text");
  return received;
}

}  // namespace chorale::comm
