// A communicator of NCCL that does not block: every call is answered at once and polled, so that a peer that never
// comes ends in an error at the deadline. A failed communicator is left as it is: aborting one has been seen to hang,
// and its process leaves.
#include "comm/cuda/nccl_transport.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <mutex>

#include <fmt/ranges.h>

#include "comm/base/env.h"
#include "comm/base/leaving.h"
#include "comm/base/log.h"
#include "comm/base/stuck_device.h"

namespace chorale::comm {
namespace {

constexpr int kInvitationTag = 0x6e63;

/// What failed work may still use: it stays until the process ends, which is soon.
void leave_behind(void* thing) {
  static std::mutex mutex;
  static auto* const kThings = new std::vector<void*>;
  const std::lock_guard lock(mutex);
  kThings->push_back(thing);
}

/// Whether the user says how many thread blocks NCCL takes. NCCL_MAX_CTAS goes before what a program asks for inside
/// NCCL too, but a smallest number does not, nor channels, which are the same thing by their older name.
bool user_limits_ctas() {
  constexpr EnvVar kLimits[] = {EnvVar::kNcclMaxCtas,
                                EnvVar::kNcclMinCtas,
                                EnvVar::kNcclMaxNchannels,
                                EnvVar::kNcclMinNchannels,
                                EnvVar::kNcclMaxP2pNchannels,
                                EnvVar::kNcclMinP2pNchannels,
                                EnvVar::kNcclNchannelsPerNetPeer};
  return std::ranges::any_of(kLimits, [](EnvVar limit) { return env(limit).has_value(); });
}

/// What the first rank of a group tells the others.
struct Invitation {
  nccl::UniqueId id;
  int max_ctas = nccl::kUndefined;  // the same on every rank: they lay out their channels alike
};

class NcclTransport : public DeviceTransport {
 public:
  NcclTransport(const Nccl& library, const DeviceGroup& group)
      : library_(library),
        group_(group),
        rank_(static_cast<int>(std::ranges::find(group.members, group.host.rank()) - group.members.begin())),
        size_(static_cast<int>(group.members.size())),
        label_(fmt::format("{}: ranks {}", group.label, fmt::join(group.members, ", "))) {
    CHECK_LT(rank_, size_);
  }

  void start(Deadline deadline) {
    begin("start", 0);
    const Invitation invitation = agree(deadline);
    nccl::Config config;
    config.blocking = 0;
    config.max_ctas = invitation.max_ctas;
    check_call(library_.comm_init_rank_config(&comm_, size_, invitation.id, rank_, &config));
    settle(deadline);
    number_ = 0;
  }

  void renew(Deadline deadline) override {
    leave_behind(comm_);  // its memory is the price: to end one that refused a call might hang
    comm_ = nullptr;
    is_broken_ = false;
    start(deadline);
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
    begin("send", data.size(), &stream);
    check_call(library_.send(data.data(), data.size(), nccl::kInt8, destination, comm_, stream.native()));
    settle(deadline);
  }
  void recv(ByteSpan data, int source, Stream& stream, Deadline deadline) override {
    begin("receive", data.size(), &stream);
    check_call(library_.recv(data.data(), data.size(), nccl::kInt8, source, comm_, stream.native()));
    settle(deadline);
  }
  void broadcast(ByteSpan data, int root, Stream& stream, Deadline deadline) override {
    begin("broadcast", data.size(), &stream);
    check_call(library_.broadcast(data.data(), data.data(), data.size(), nccl::kInt8, root, comm_, stream.native()));
    settle(deadline);
  }

  void all_gather(ByteSpan all, std::span<const size_t> offsets, Stream& stream, Deadline deadline) override {
    begin("all-gather", all.size(), &stream);
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
    begin("all-reduce", values.size_bytes(), &stream);
    check_call(library_.all_reduce(values.data(), values.data(), values.size(), nccl::kFloat32, nccl::kSum, comm_,
                                   stream.native()));
    settle(deadline);
  }

  void check() override {
    is_captured_ = false;  // who waits for the device does not capture
    nccl::Result state = nccl::kSuccess;
    const nccl::Result result = library_.comm_get_async_error(comm_, &state);
    check_call(result);
    check_call(state);
  }
  std::string waiting_for() const override { return number_ == 0 ? std::string() : "last " + describe(); }

 private:
  Invitation agree(Deadline deadline) const {
    Invitation invitation;
    const ByteSpan bytes = std::as_writable_bytes(std::span(&invitation, 1));
    if (rank_ > 0) {
      group_.host.recv(bytes, group_.members.front(), kInvitationTag, deadline);
      return invitation;
    }
    const nccl::Result result = library_.get_unique_id(&invitation.id);
    if (result != nccl::kSuccess)
      fail(ErrorCode::kSystem, "{} ({}) cannot open a port for its ranks: {}: {}; see NCCL_SOCKET_IFNAME", name(),
           label_, library_.get_error_string(result), library_.get_last_error(nullptr));
    // Asked now: NCCL has put what its files say (/etc/nccl.conf) into the environment.
    if (group_.max_ctas > 0 && !user_limits_ctas()) invitation.max_ctas = group_.max_ctas;
    for (const int member : group_.members)
      if (member != group_.members.front()) group_.host.send(bytes, member, kInvitationTag, deadline);
    return invitation;
  }

  /// While a graph is captured nothing was given to the device, which works on.
  void give_up() {
    is_broken_ = true;
    if (!is_captured_) note_stuck_device();
  }
  void begin(const char* operation, size_t bytes, const Stream* stream = nullptr) {
    operation_ = operation;
    bytes_ = bytes;
    is_captured_ = stream != nullptr && stream->is_capturing();
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
  const DeviceGroup group_;
  const int rank_, size_;
  const std::string label_;
  nccl::Comm comm_ = nullptr;
  bool is_broken_ = false;
  bool is_captured_ = false;  // what was asked last
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
  transport->start(group.deadline);
  return transport;
}

}  // namespace chorale::comm
