// A communicator of NCCL that does not block: every call is answered at once and polled, so that a peer that never
// comes ends in an error at the deadline. A failed communicator is left as it is: aborting one has been seen to hang,
// and its process leaves.
#include "comm/cuda/nccl_transport.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <mutex>

#include <fmt/ranges.h>

#include "comm/base/log.h"
#include "comm/base/stuck_device.h"

namespace chorale::comm {
namespace {

constexpr int kIdTag = 0x6e63;  // of the message that names the communicator
constexpr std::chrono::seconds kFarewell{1};

/// What failed work may still use: it stays until the process ends, which is soon.
void leave_behind(void* thing) {
  static std::mutex mutex;
  static auto* const kThings = new std::vector<void*>;
  const std::lock_guard lock(mutex);
  kThings->push_back(thing);
}

class NcclTransport : public DeviceTransport {
 public:
  NcclTransport(const Nccl& library, const DeviceGroup& group)
      : library_(library),
        rank_(static_cast<int>(std::ranges::find(group.members, group.host.rank()) - group.members.begin())),
        size_(static_cast<int>(group.members.size())),
        label_(fmt::format("{}: ranks {}", group.label, fmt::join(group.members, ", "))) {
    CHECK_LT(rank_, size_);
  }

  void start(const DeviceGroup& group) {
    begin("start", 0);
    nccl::Config config;
    config.blocking = 0;
    const nccl::UniqueId id = agree_on_id(group);
    check_call(library_.comm_init_rank_config(&comm_, size_, id, rank_, &config));
    settle(group.deadline);
    warm_up(group);
  }

  ~NcclTransport() override {
    if (comm_ == nullptr) return;
    try {
      if (is_broken_ || is_device_stuck()) fail(ErrorCode::kPeerLost, "{} ({}) is broken", name(), label_);
      begin("end", 0);
      check_call(library_.comm_finalize(comm_));
      settle(Deadline::after(kFarewell));
      check_call(library_.comm_destroy(comm_));
    } catch (const Error& error) {
      log_debug("{}", error.what());
      leave_behind(comm_);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "NCCL " + library_.version; }

  void send(ConstByteSpan data, int destination, Stream& stream, Deadline deadline) override {
    begin("send", data.size());
    check_call(library_.send(data.data(), data.size(), nccl::kInt8, destination, comm_, stream.native()));
    settle(deadline);
  }
  void recv(ByteSpan data, int source, Stream& stream, Deadline deadline) override {
    begin("receive", data.size());
    check_call(library_.recv(data.data(), data.size(), nccl::kInt8, source, comm_, stream.native()));
    settle(deadline);
  }
  void broadcast(ByteSpan data, int root, Stream& stream, Deadline deadline) override {
    begin("broadcast", data.size());
    check_call(library_.broadcast(data.data(), data.data(), data.size(), nccl::kInt8, root, comm_, stream.native()));
    settle(deadline);
  }

  void all_gather(ByteSpan all, std::span<const size_t> offsets, Stream& stream, Deadline deadline) override {
    begin("all-gather", all.size());
    const auto part = [&](int rank) {
      const size_t first = offsets[static_cast<size_t>(rank)], last = offsets[static_cast<size_t>(rank) + 1];
      return all.subspan(first, last - first);
    };
    const size_t own = part(rank_).size();
    bool is_even = offsets.front() == 0;
    for (int r = 0; r < size_; ++r) is_even = is_even && part(r).size() == own;
    if (is_even) {
      check_call(library_.all_gather(part(rank_).data(), all.data(), own, nccl::kInt8, comm_, stream.native()));
      return settle(deadline);
    }
    check_call(library_.group_start());
    nccl::Result worst = nccl::kSuccess;
    for (int r = 0; r < size_; ++r) {
      if (part(r).empty()) continue;
      const nccl::Result result =
          library_.broadcast(part(r).data(), part(r).data(), part(r).size(), nccl::kInt8, r, comm_, stream.native());
      if (result != nccl::kSuccess && result != nccl::kInProgress) worst = result;
    }
    const nccl::Result end = library_.group_end();  // also after a failure: the group is this thread's state
    check_call(worst);
    check_call(end);
    settle(deadline);
  }

  void all_reduce_sum(std::span<float> values, Stream& stream, Deadline deadline) override {
    begin("all-reduce", values.size_bytes());
    check_call(library_.all_reduce(values.data(), values.data(), values.size(), nccl::kFloat32, nccl::kSum, comm_,
                                   stream.native()));
    settle(deadline);
  }

  void check() override {
    nccl::Result state = nccl::kSuccess;
    const nccl::Result result = library_.comm_get_async_error(comm_, &state);
    check_call(result);
    check_call(state);
  }
  std::string waiting_for() const override { return number_ == 0 ? std::string() : "last " + describe(); }

 private:
  nccl::UniqueId agree_on_id(const DeviceGroup& group) const {
    nccl::UniqueId id;
    const ByteSpan bytes = std::as_writable_bytes(std::span(id.internal));
    if (rank_ > 0) {
      group.host.recv(bytes, group.members.front(), kIdTag, group.deadline);
      return id;
    }
    const nccl::Result result = library_.get_unique_id(&id);
    if (result != nccl::kSuccess)
      fail(ErrorCode::kSystem, "{} ({}) cannot open a port for its ranks: {}: {}; see NCCL_SOCKET_IFNAME", name(),
           label_, library_.get_error_string(result), library_.get_last_error(nullptr));
    for (const int member : group.members)
      if (member != group.members.front()) group.host.send(bytes, member, kIdTag, group.deadline);
    return id;
  }

  /// Everything that later calls do, once, with all members: connections are made when they are first used.
  void warm_up(const DeviceGroup& group) {
    const size_t num_bytes = sizeof(float) * static_cast<size_t>(size_ + 1);
    auto* memory = static_cast<std::byte*>(group.device.allocate(num_bytes));
    const auto bytes = [&](int r) { return ByteSpan(memory + sizeof(float) * static_cast<size_t>(r), sizeof(float)); };
    std::vector<size_t> offsets;
    for (int r = 0; r <= size_; ++r) offsets.push_back(sizeof(float) * static_cast<size_t>(r));
    all_gather({memory, offsets.back()}, offsets, group.stream, group.deadline);
    broadcast(bytes(0), 0, group.stream, group.deadline);
    all_reduce_sum({reinterpret_cast<float*>(memory), 1}, group.stream, group.deadline);
    for (int r = 1; r < size_; ++r) {
      if (rank_ == 0) recv(bytes(r), r, group.stream, group.deadline);
      if (rank_ == r) send(bytes(r), 0, group.stream, group.deadline);
      if (rank_ == 0) send(bytes(r), r, group.stream, group.deadline);
      if (rank_ == r) recv(bytes(r), 0, group.stream, group.deadline);
    }
    group.stream.add_watch(*this);
    try {
      group.stream.synchronize(group.deadline);
    } catch (...) {
      group.stream.remove_watch(*this);
      leave_behind(memory);  // freeing it would wait for work that hangs
      give_up();
      throw;
    }
    group.stream.remove_watch(*this);
    group.device.release(memory, num_bytes);
    number_ = 0;
  }

  void give_up() {
    is_broken_ = true;
    note_stuck_device();
  }
  void begin(const char* operation, size_t bytes) {
    operation_ = operation;
    bytes_ = bytes;
    ++number_;
  }
  std::string describe() const {
    if (bytes_ == 0) return fmt::format("{} ({}) to {}", name(), label_, operation_);
    return fmt::format("{} ({}) {} no. {} of {} bytes", name(), label_, operation_, number_, bytes_);
  }

  void check_call(nccl::Result result) {
    if (result == nccl::kSuccess || result == nccl::kInProgress) return;
    give_up();
    const char* detail = library_.get_last_error(comm_);
    fail(result == nccl::kRemoteError ? ErrorCode::kPeerLost : ErrorCode::kSystem, "{} failed: {}{}{}", describe(),
         library_.get_error_string(result), detail == nullptr || *detail == '\0' ? "" : ": ",
         detail == nullptr ? "" : detail);
  }

  /// Until the library has taken what it was given: work is in its stream, or the communicator is made.
  void settle(Deadline deadline) {
    for (unsigned polls = 0;; ++polls) {
      nccl::Result state = nccl::kSuccess;
      check_call(library_.comm_get_async_error(comm_, &state));
      check_call(state);
      if (state == nccl::kSuccess) return;
      if (polls % 16 == 15 && deadline.expired()) {
        give_up();
        fail(ErrorCode::kDeadlineExceeded, "{} did not begin by the deadline: a peer is late, hung or gone",
             describe());
      }
      sched_yield();
    }
  }

  const Nccl& library_;
  const int rank_, size_;
  const std::string label_;
  nccl::Comm comm_ = nullptr;
  bool is_broken_ = false;
  // What was asked last, for messages.
  const char* operation_ = "";
  size_t bytes_ = 0;
  uint64_t number_ = 0;
};

std::unique_ptr<DeviceTransport> make(const DeviceGroup& group) {
  const Result<Nccl>& library = find_nccl();
  if (!library) fail(ErrorCode::kUnsupported, "{}", library.failure().message);
  return make_nccl_transport(*library, group);
}

const DeviceTransportRegistry::Add kAdd({"nccl", nccl_version, make});

}  // namespace

std::unique_ptr<DeviceTransport> make_nccl_transport(const Nccl& library, const DeviceGroup& group) {
  auto transport = std::make_unique<NcclTransport>(library, group);
  transport->start(group);
  return transport;
}

}  // namespace chorale::comm
