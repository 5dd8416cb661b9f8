#include "worker/comm_bench.h"

#include <iterator>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/bench_comm.h"
#include "worker/device_comm_bench.h"
#include "worker/hello.h"

namespace chorale::worker {
namespace {
using parallel::DeviceComm;
using parallel::WorkerHello;

constexpr int kHelloTag = 18;

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

template <typename T>
comm::ByteSpan bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

WorkerHello receive_hello(comm::Communicator& world, int rank) {
  uint64_t size = 0;
  world.recv(bytes_of(size), rank, kHelloTag, soon());
  Bytes bytes(size);
  world.recv(bytes, rank, kHelloTag, soon());
  return WorkerHello::decode(bytes);
}

/// What rank 0 chooses from all ranks' hellos, as a coordinator does. What cannot be it throws; the others, which shall
/// not say it again, get nothing.
std::optional<DeviceComm> agree_on_comm(comm::Communicator& world, const WorkerHello& own,
                                        std::optional<DeviceComm> wanted) {
  enum class Verdict : uint8_t { kRefused, kMpi, kNccl };
  Verdict verdict = Verdict::kRefused;
  if (world.rank() == 0) {
    std::vector<WorkerHello> hellos{own};
    for (int rank = 1; rank < world.size(); ++rank) hellos.push_back(receive_hello(world, rank));
    try {
      parallel::common_arithmetic(hellos);
      const parallel::DeviceCommChoice choice = choose_device_comm(wanted, hellos);
      if (!choice.why_not_nccl.empty()) log_warn("{}", choice.why_not_nccl);
      verdict = choice.comm == DeviceComm::kNccl ? Verdict::kNccl : Verdict::kMpi;
    } catch (const Error&) {
      world.broadcast(bytes_of(verdict), 0, soon());
      throw;
    }
  } else {
    const Bytes bytes = own.encode();
    uint64_t size = bytes.size();
    world.send(bytes_of(size), 0, kHelloTag, soon());
    world.send(bytes, 0, kHelloTag, soon());
  }
  world.broadcast(bytes_of(verdict), 0, soon());
  if (verdict == Verdict::kRefused) return std::nullopt;
  return verdict == Verdict::kNccl ? DeviceComm::kNccl : DeviceComm::kMpi;
}

}  // namespace

std::vector<comm::CommBenchRow> bench_comm(const CommBenchStart& start, const comm::WorldMap& map,
                                           const WorldFactory& make_world) {
  set_compute_thread_fp_state();
  const std::unique_ptr<Device> device = open_own_device(start.device, map);
  const std::unique_ptr<Stream> stream = device == nullptr ? nullptr : device->make_stream();
  const WorkerHello hello = make_hello(map, start.device, device.get(), {.nccl = start.comm != DeviceComm::kMpi});
  std::optional<DeviceComm> chosen;
  std::vector<comm::CommBenchRow> rows;
  uint64_t epoch = 0;
  for (const std::string& backend : start.backends) {
    const auto world = make_world({.epoch = ++epoch, .backend = backend});
    if (!chosen) chosen = agree_on_comm(*world, hello, start.comm);
    if (!chosen) return {};
    CHECK(*chosen == DeviceComm::kMpi || start.backends.size() == 1);
    std::vector<comm::CommBenchRow> measured =
        device == nullptr ? measure_communicator(*world, start.rounds)
                          : measure_device_comm(*world, {device.get(), stream.get()},
                                                {.rounds = start.rounds, .comm = *chosen, .graphs = start.graphs});
    std::ranges::move(measured, std::back_inserter(rows));
  }
  return rows;
}

std::vector<comm::CommBenchRow> bench_comm(const CommBenchStart& start, const comm::MpiSession& session) {
  return bench_comm(start, session.map(),
                    [&session](const comm::WorldOptions& options) { return comm::make_world(session, options); });
}

}  // namespace chorale::worker
