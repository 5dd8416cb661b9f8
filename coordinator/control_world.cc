#include "coordinator/control_world.h"

#include <chrono>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "coordinator/make_cluster_plan.h"

namespace chorale::coordinator {
namespace {

using comm::LinkEvent;
using comm::MessageType;
using parallel::WorkerHello;

constexpr std::chrono::milliseconds kAskWhetherGivenUp{200};
constexpr std::chrono::minutes kLoadDeadline{30};
constexpr double kMiB = 1024.0 * 1024.0;

std::string text_of(const Bytes& payload) {
  return std::string(reinterpret_cast<const char*>(payload.data()), payload.size());
}

/// Why a rank of a world that was not ready yet is no longer there: its own word where it had one.
[[noreturn]] void fail_lost(const LinkEvent& event) {
  const std::string reason = event.kind == LinkEvent::Kind::kMessage ? text_of(event.payload) : event.reason;
  fail(ErrorCode::kSystem, "rank {}: {}", event.rank, reason);
}

bool is_loss(const LinkEvent& event) {
  return event.kind == LinkEvent::Kind::kLost ||
         (event.kind == LinkEvent::Kind::kMessage && event.type == MessageType::kFault);
}

}  // namespace

ControlWorld::ControlWorld(std::unique_ptr<comm::ControlServer> server) : server_(std::move(server)) {
  server_->start([this](LinkEvent event) {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(event));
    arrived_.notify_one();
  });
}

ControlWorld::~ControlWorld() {
  if (!lost_) server_->broadcast(MessageType::kStop, {});
  server_->close();
}

std::unique_ptr<World> ControlWorld::establish(std::unique_ptr<comm::ControlServer> server,
                                               const ClusterRequest& request, const parallel::ModelConfig& config,
                                               Deadline join_deadline, const GaveUp& gave_up) {
  std::unique_ptr<ControlWorld> world(new ControlWorld(std::move(server)));
  world->form(request, config, join_deadline, gave_up);
  return world;
}

void ControlWorld::form(const ClusterRequest& request, const parallel::ModelConfig& config, Deadline join_deadline,
                        const GaveUp& gave_up) {
  constexpr uint64_t kFirstEpoch = 1;
  std::vector<WorkerHello> hellos(static_cast<size_t>(request.layout.tp * request.layout.pp));
  await_hellos(hellos, join_deadline, gave_up);
  plan_ = make_cluster_plan(request, config, hellos, kFirstEpoch);
  server_->broadcast(MessageType::kClusterPlan, plan_.encode());
  await_ready(hellos, gave_up);
}

std::optional<LinkEvent> ControlWorld::next_event(Deadline deadline) {
  std::unique_lock lock(mutex_);
  arrived_.wait_until(lock, deadline.when(), [this] { return !inbox_.empty(); });
  if (inbox_.empty()) return std::nullopt;
  LinkEvent event = std::move(inbox_.front());
  inbox_.pop_front();
  return event;
}

void ControlWorld::await_hellos(std::vector<WorkerHello>& hellos, Deadline deadline, const GaveUp& gave_up) {
  std::vector<bool> joined(hellos.size(), false);
  for (size_t num_joined = 0; num_joined < hellos.size();) {
    const std::optional<LinkEvent> event = next_event(
        std::min(deadline, Deadline::after(kAskWhetherGivenUp), [](auto a, auto b) { return a.when() < b.when(); }));
    if (const std::optional<std::string> why = gave_up()) fail(ErrorCode::kSystem, "{}", *why);
    if (!event) {
      if (!deadline.expired()) continue;
      std::vector<size_t> missing;
      for (size_t rank = 0; rank < joined.size(); ++rank)
        if (!joined[rank]) missing.push_back(rank);
      fail(ErrorCode::kDeadlineExceeded, "{} of {} workers did not join in time: ranks {}", missing.size(),
           joined.size(), fmt::join(missing, ", "));
    }
    if (is_loss(*event)) fail_lost(*event);
    if (event->kind != LinkEvent::Kind::kJoined) continue;
    WorkerHello hello = WorkerHello::decode(event->payload);
    const auto rank = static_cast<size_t>(event->rank);
    if (hello.num_ranks != static_cast<int>(hellos.size()))
      fail(ErrorCode::kInvalidArgument, "rank {} belongs to a world of {} ranks, this one has {}", rank,
           hello.num_ranks, hellos.size());
    if (hello.rank != event->rank)
      fail(ErrorCode::kInvalidArgument, "the worker that joined as rank {} says that it is rank {}", rank, hello.rank);
    log_info("rank {} joined from {}: {} cores, {}", rank, hello.host, hello.num_cores, hello.cpu_model);
    num_joined += joined.at(rank) ? 0 : 1;
    joined[rank] = true;
    hellos[rank] = std::move(hello);
  }
}

void ControlWorld::await_ready(const std::vector<WorkerHello>& hellos, const GaveUp& gave_up) {
  const Deadline deadline = Deadline::after(kLoadDeadline);
  std::vector<bool> is_ready(hellos.size(), false);
  for (size_t num_ready = 0; num_ready < hellos.size();) {
    const std::optional<LinkEvent> event = next_event(Deadline::after(kAskWhetherGivenUp));
    if (const std::optional<std::string> why = gave_up()) fail(ErrorCode::kSystem, "{}", *why);
    if (!event) {
      if (deadline.expired())
        fail(ErrorCode::kDeadlineExceeded, "{} of {} ranks loaded their weights in {} minutes", num_ready,
             hellos.size(), kLoadDeadline.count());
      continue;
    }
    if (is_loss(*event)) fail_lost(*event);
    if (event->kind != LinkEvent::Kind::kMessage || event->type != MessageType::kReady) continue;
    const parallel::WorkerReady ready = parallel::WorkerReady::decode(event->payload);
    if (is_ready.at(static_cast<size_t>(event->rank))) continue;
    is_ready[static_cast<size_t>(event->rank)] = true;
    ++num_ready;
    log_info(
        "rank {} ready ({}/{}): {:.0f} MiB of weights from {:.0f} MiB of the checkpoint in {:.2f} s, {:.0f} MiB of KV "
        "cache, {:.0f} MiB resident",
        event->rank, num_ready, hellos.size(), static_cast<double>(ready.weight_bytes) / kMiB,
        static_cast<double>(ready.copied_bytes) / kMiB, ready.load_seconds, static_cast<double>(ready.kv_bytes) / kMiB,
        static_cast<double>(ready.resident_bytes) / kMiB);
  }
}

void ControlWorld::submit(const parallel::StepPlan& plan) {
  if (!lost_) server_->broadcast(MessageType::kStepPlan, plan.encode());
}

void ControlWorld::translate(LinkEvent event, std::vector<WorldEvent>& events) {
  if (lost_) return;
  if (is_loss(event)) {
    lost_ = true;
    const std::string reason = event.kind == LinkEvent::Kind::kMessage ? text_of(event.payload) : event.reason;
    events.emplace_back(WorldLost{fmt::format("rank {} is lost: {}", event.rank, reason)});
    server_->broadcast(MessageType::kStop, {});  // the others cannot go on without it
    return;
  }
  if (event.kind != LinkEvent::Kind::kMessage) return;
  if (event.type == MessageType::kStepResult) events.emplace_back(parallel::StepResult::decode(event.payload));
  if (event.type == MessageType::kStageReport) events.emplace_back(parallel::StageReport::decode(event.payload));
}

void ControlWorld::take(std::vector<WorldEvent>& events, Deadline deadline) {
  std::deque<LinkEvent> arrived;
  {
    std::unique_lock lock(mutex_);
    arrived_.wait_until(lock, deadline.when(), [this] { return !inbox_.empty() || woken_; });
    woken_ = false;
    arrived.swap(inbox_);
  }
  for (LinkEvent& event : arrived) translate(std::move(event), events);
}

void ControlWorld::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  arrived_.notify_one();
}

void ControlWorld::stop(Deadline deadline) {
  if (lost_) return;  // some may be frozen; the others leave when their links close
  server_->broadcast(MessageType::kStop, {});
  lost_ = true;
  while (server_->num_connected() > 0 && !deadline.expired()) next_event(deadline);  // each leaves with an event
}

}  // namespace chorale::coordinator
