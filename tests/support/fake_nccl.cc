// A stand-in for NCCL with its real C interface, for worlds on the emulator: ranks are threads or processes of one host
// that meet in POSIX shared memory named by the unique id. Operations run on the emulator's streams, in their order,
// while the host goes on; the operations of one group make progress together, those of different groups do not;
// calls that do not match those of the peers hang, as they do in the real one. Communicators that must not block answer
// ncclInProgress first. Sums are added from the last rank to the first: not in the order of anything else here.
//
// FAKE_NCCL_FAULT makes it fail, on every rank or, with @RANK behind, on one (of the MPI world, else of a
// communicator):
//   hang-init        the communicator is never ready
//   hang-op:N        the Nth operation of a communicator never ends
//   error-op:N       likewise, and the communicator reports a remote error
//   slow:N           each operation takes N milliseconds more
//   refuse-capture   an operation that is given while a graph is captured is refused, and with it the communicator
// FAKE_NCCL_LOG names a file that gets a line for each communicator and operation (Communicator::log).
// FAKE_NCCL_VERSION is what it says it is; compiled with FAKE_MISSING it lacks a function.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "comm/base/emulator_stream.h"
#include "tests/support/fake_nccl_room.h"

namespace {
using namespace chorale::nccl;
using fake_nccl::Communicator;
using fake_nccl::kInvalidUsage;
using fake_nccl::kMostRanks;

constexpr Result kSystemError = 2, kInvalidArgument = 4;

using Transfer = Communicator::Transfer;
using Plan = std::function<void(Communicator&, std::vector<Transfer>&)>;

/// What ncclComm_t points to. Operations under way keep the communicator.
struct Handle {
  std::shared_ptr<Communicator> comm;
};
Communicator& comm_of(Comm comm) { return *reinterpret_cast<Handle*>(comm)->comm; }

/// Work of one call: transfers, and what follows them.
struct Call {
  std::shared_ptr<Communicator> comm;
  Stream stream;
  Plan plan;
  std::function<void()> finish;
};
struct Batch {
  std::vector<Call> calls;  // of one communicator and stream
};

int run_batch(void* context, char* problem, size_t problem_bytes) {
  const auto& batch = *static_cast<const Batch*>(context);
  Communicator& comm = *batch.calls.front().comm;
  const Communicator::Running running(comm);
  std::vector<Transfer> transfers;
  bool is_done = true;
  for (size_t i = 0; i < batch.calls.size(); ++i) is_done = is_done && comm.pass_fault();
  for (const Call& call : batch.calls) call.plan(comm, transfers);
  is_done = is_done && comm.move(transfers);
  if (!is_done) {
    std::snprintf(problem, problem_bytes, "an operation of the fake NCCL was given up");
    return 1;
  }
  for (const Call& call : batch.calls)
    if (call.finish) call.finish();
  return 0;
}

thread_local int group_depth = 0;
thread_local std::vector<Call> grouped;

void enqueue(std::vector<Call> calls) {
  while (!calls.empty()) {
    auto* batch = new Batch;
    const Call first = calls.front();
    const auto is_other = [&](const Call& c) { return c.comm != first.comm || c.stream != first.stream; };
    const auto rest = std::stable_partition(calls.begin(), calls.end(), [&](const Call& c) { return !is_other(c); });
    batch->calls.assign(calls.begin(), rest);
    calls.erase(calls.begin(), rest);
    first.comm->polls_left = 1;
    auto* stream = static_cast<ChoraleEmulatorStream*>(first.stream);
    stream->enqueue(stream, run_batch, batch, [](void* context) { delete static_cast<Batch*>(context); });
  }
}

/// What an operation is called, and how many bytes this rank gave it.
struct Size {
  const char* operation;
  size_t bytes;
};

Result give(Comm handle, Stream stream, Size size, Plan plan, std::function<void()> finish = nullptr) {
  if (handle == nullptr || stream == nullptr) return kInvalidArgument;
  const auto& comm = reinterpret_cast<Handle*>(handle)->comm;
  if (!comm->is_initialised || (group_depth == 0 && comm->polls_left > 0)) return kInvalidUsage;  // not settled
  auto* emulated = static_cast<ChoraleEmulatorStream*>(stream);
  const bool is_captured = emulated->is_capturing(emulated) != 0;
  if (is_captured && comm->refuses_capture()) return kInvalidUsage;
  if (comm->async_error() != kSuccess) return kInvalidUsage;
  comm->log(size.operation, size.bytes, is_captured);
  Call call{comm, stream, std::move(plan), std::move(finish)};
  if (group_depth > 0) {
    grouped.push_back(std::move(call));
    return kSuccess;
  }
  std::vector<Call> one;
  one.push_back(std::move(call));
  enqueue(std::move(one));
  return kInProgress;
}

size_t size_of_type(int type) { return type == kFloat32 ? 4 : 1; }
Transfer transfer(const void* data, size_t bytes, int peer, bool is_send, uint32_t kind) {
  return {const_cast<std::byte*>(static_cast<const std::byte*>(data)), bytes, peer, is_send, kind};
}
enum Kind : uint32_t { kMessage = 1, kBroadcast, kGather, kReduce };

/// All ranks exchange their part with all others.
void exchange(Communicator& comm, const void* own, size_t bytes, std::byte* all, Kind kind,
              std::vector<Transfer>& list) {
  for (int r = 0; r < comm.num_ranks; ++r) {
    if (r == comm.rank) continue;
    list.push_back(transfer(own, bytes, r, true, kind));
    list.push_back(transfer(all + static_cast<size_t>(r) * bytes, bytes, r, false, kind));
  }
  std::byte* place = all + static_cast<size_t>(comm.rank) * bytes;
  if (place != own) std::memcpy(place, own, bytes);
}

}  // namespace

extern "C" {
// NOLINTBEGIN(readability-identifier-naming): NCCL's names

Result ncclGetVersion(int* version) {
  const char* given = std::getenv("FAKE_NCCL_VERSION");
  *version = given == nullptr ? 22809 : std::atoi(given);
  return kSuccess;
}

Result ncclGetUniqueId(UniqueId* id) {
  std::random_device random;
  std::snprintf(id->internal, sizeof id->internal, "%08x%08x", random(), random());
  return kSuccess;
}

const char* ncclGetErrorString(Result result) {
  switch (result) {
    case kSuccess: return "no error";
    case kSystemError: return "unhandled system error";
    case kInvalidArgument: return "invalid argument";
    case kInvalidUsage: return "invalid usage";
    case kRemoteError: return "remote process exited or there was a network error";
    case kInProgress: return "operation in progress";
    default: return "unknown result code";
  }
}
const char* ncclGetLastError(Comm comm) { return comm == nullptr ? "" : comm_of(comm).last_error(); }

Result ncclCommInitRankConfig(Comm* comm, int num_ranks, UniqueId id, int rank, Config* config) {
  if (config->magic != 0xcafebeef || config->blocking != 0) return kInvalidArgument;
  if (num_ranks < 1 || num_ranks > kMostRanks || rank < 0 || rank >= num_ranks) return kInvalidArgument;
  *comm = reinterpret_cast<Comm>(
      new Handle{std::make_shared<Communicator>(num_ranks, rank, id, std::max(0, config->max_ctas))});
  return kInProgress;
}

Result ncclCommGetAsyncError(Comm handle, Result* state) {
  Communicator& comm = comm_of(handle);
  *state = comm.async_error();
  if (*state != kSuccess) return kSuccess;
  if (comm.polls_left > 0) --comm.polls_left;
  if (!comm.is_initialised) comm.is_initialised = comm.polls_left == 0 && comm.is_ready();
  if (comm.polls_left > 0 || !comm.is_initialised || (comm.is_finalising && !comm.is_idle())) *state = kInProgress;
  return kSuccess;
}

Result ncclCommFinalize(Comm comm) {
  comm_of(comm).polls_left = 1;
  comm_of(comm).is_finalising = true;
  return kInProgress;
}
Result ncclCommDestroy(Comm comm) {
  delete reinterpret_cast<Handle*>(comm);
  return kSuccess;
}
/// For tests in one process, not of NCCL: ends what hangs in communicators that were made so far.
void fakeNcclGiveUp() {
  ++fake_nccl::num_given_up;
  const std::lock_guard lock(fake_nccl::open_names.mutex);
  for (const std::string& name : fake_nccl::open_names.names) shm_unlink(name.c_str());
  fake_nccl::open_names.names.clear();
}

Result ncclGroupStart() {
  ++group_depth;
  return kSuccess;
}
#ifndef FAKE_MISSING
Result ncclGroupEnd() {
  if (group_depth == 0) return kInvalidUsage;
  if (--group_depth > 0 || grouped.empty()) return kSuccess;
  enqueue(std::exchange(grouped, {}));
  return kInProgress;
}
#endif

Result ncclSend(const void* from, size_t count, int type, int peer, Comm comm, Stream stream) {
  return give(comm, stream, {"send", count * size_of_type(type)}, [=](Communicator&, std::vector<Transfer>& list) {
    list.push_back(transfer(from, count * size_of_type(type), peer, true, kMessage));
  });
}
Result ncclRecv(void* to, size_t count, int type, int peer, Comm comm, Stream stream) {
  return give(comm, stream, {"recv", count * size_of_type(type)}, [=](Communicator&, std::vector<Transfer>& list) {
    list.push_back(transfer(to, count * size_of_type(type), peer, false, kMessage));
  });
}

Result ncclBroadcast(const void* from, void* to, size_t count, int type, int root, Comm comm, Stream stream) {
  const size_t bytes = count * size_of_type(type);
  return give(comm, stream, {"broadcast", bytes}, [=](Communicator& self, std::vector<Transfer>& list) {
    if (self.rank != root) return list.push_back(transfer(to, bytes, root, false, kBroadcast));
    for (int r = 0; r < self.num_ranks; ++r)
      if (r != root) list.push_back(transfer(from, bytes, r, true, kBroadcast));
    if (to != from) std::memcpy(to, from, bytes);
  });
}

Result ncclAllGather(const void* from, void* to, size_t count, int type, Comm comm, Stream stream) {
  const size_t bytes = count * size_of_type(type);
  return give(comm, stream, {"all-gather", bytes}, [=](Communicator& self, std::vector<Transfer>& list) {
    exchange(self, from, bytes, static_cast<std::byte*>(to), kGather, list);
  });
}

Result ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, Comm comm, Stream stream) {
  if (type != kFloat32 || operation != kSum) return kInvalidArgument;
  const int num_ranks = comm == nullptr ? 0 : comm_of(comm).num_ranks;
  const auto all = std::make_shared<std::vector<float>>(count * static_cast<size_t>(num_ranks));
  return give(
      comm, stream, {"all-reduce", count * sizeof(float)},
      [=](Communicator& self, std::vector<Transfer>& list) {
        exchange(self, from, count * sizeof(float), reinterpret_cast<std::byte*>(all->data()), kReduce, list);
      },
      [=] {
        auto* sum = static_cast<float*>(to);
        for (size_t i = 0; i < count; ++i) {
          float value = (*all)[count * static_cast<size_t>(num_ranks - 1) + i];
          for (int r = num_ranks - 2; r >= 0; --r) value += (*all)[count * static_cast<size_t>(r) + i];
          sum[i] = value;
        }
      });
}

// NOLINTEND(readability-identifier-naming)
}  // extern "C"
