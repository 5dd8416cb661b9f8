#include "coordinator/control_world.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "coordinator/make_cluster_plan.h"

namespace chorale::coordinator {
namespace {

using comm::LinkEvent;
using comm::MessageType;
using parallel::kLoadDeadline;
using parallel::WorkerFault;
using parallel::WorkerHello;

constexpr std::chrono::milliseconds kAskWhetherGivenUp{200};
constexpr size_t kMaxInboxBytes = 2 * comm::kMaxFramePayload;  // the largest answer, and as much again
constexpr double kMiB = 1024.0 * 1024.0;

/// Why a worker may not join, or "". It reads this, so it says what to do.
std::string objection(const WorkerHello& hello, int rank, const parallel::LayoutRequest& layout) {
  const int num_ranks = layout.tp * layout.pp;
  if (hello.num_ranks != num_ranks)
    return fmt::format("its world has {} rank{}, but tp={} x pp={} needs {}: start the workers with mpirun -n {}",
                       hello.num_ranks, hello.num_ranks == 1 ? "" : "s", layout.tp, layout.pp, num_ranks, num_ranks);
  if (hello.rank != rank)
    return fmt::format("the worker that joined as rank {} says that it is rank {}", rank, hello.rank);
  return "";
}

/// The CPU where nobody asked for it: said once, louder where a GPU was to be expected.
void say_why_cpu(const std::vector<WorkerHello>& hellos) {
  const auto is_odd = [](const WorkerHello& hello) { return hello.gpu_absence > DeviceAbsence::kNoDriver; };
  if (const auto odd = std::ranges::find_if(hellos, is_odd); odd != hellos.end())
    log_warn("rank {} on {} computes on the CPU: {}", odd->rank, odd->host, odd->gpu_problem);
  else if (hellos.front().gpu_absence != DeviceAbsence::kNone)
    log_info("computing on the CPU: {}", hellos.front().gpu_problem);
}

/// A rank of a world that was not ready yet cannot go on: it is gone, misses others, or could not load for reasons of
/// its own.
[[noreturn]] void fail_forming(const LinkEvent& event) {
  if (event.kind == LinkEvent::Kind::kLost)
    fail(ErrorCode::kPeerLost, "rank {} was lost while it loaded: {}", event.rank, event.reason);
  const WorkerFault fault = WorkerFault::decode(event.payload);
  fail(fault.lacks_peers() ? ErrorCode::kPeerLost : ErrorCode::kSystem, "rank {} reports: {}", event.rank,
       fault.reason);
}

/// The same of a world that runs: what ends it.
std::string end_of_world(const LinkEvent& event) {
  if (event.kind == LinkEvent::Kind::kLost) return fmt::format("rank {} is lost: {}", event.rank, event.reason);
  return fmt::format("rank {} reports: {}", event.rank, WorkerFault::decode(event.payload).reason);
}

bool ends_world(const LinkEvent& event) {
  return event.kind == LinkEvent::Kind::kLost ||
         (event.kind == LinkEvent::Kind::kMessage && event.type == MessageType::kFault);
}

}  // namespace

ControlWorld::ControlWorld(std::unique_ptr<comm::ControlServer> server, const ClusterRequest& request,
                           std::shared_ptr<WorldAlarm> alarm)
    : server_(std::move(server)), alarm_(std::move(alarm)) {
  server_->start([this](LinkEvent event) { return deliver(std::move(event)); },
                 [layout = request.layout](int rank, const Bytes& hello) {
                   return objection(WorkerHello::decode(hello), rank, layout);
                 });
  if (alarm_)
    alarm_->listen([this](const std::string& reason) {
      const std::lock_guard lock(mutex_);
      alarmed_ = reason;
      arrived_.notify_one();
    });
}

ControlWorld::~ControlWorld() {
  if (alarm_) alarm_->listen(nullptr);
  if (!lost_) server_->broadcast(MessageType::kStop, {});
  server_->close();
}

/// On the link's thread.
bool ControlWorld::deliver(LinkEvent event) {
  const std::lock_guard lock(mutex_);
  const size_t bytes = event.payload.size() + sizeof(LinkEvent);
  // A rank that fills the inbox is dropped, and with it the world is lost. Nothing gentler is right: every answer
  // counts, so none may be left out, and waiting for room on this thread would silence the heartbeats of all ranks.
  if (event.kind == LinkEvent::Kind::kMessage && inbox_bytes_ + bytes > kMaxInboxBytes && !inbox_.empty()) return false;
  inbox_bytes_ += bytes;
  inbox_.push_back(std::move(event));
  arrived_.notify_one();
  return true;
}

std::unique_ptr<World> ControlWorld::establish(std::unique_ptr<comm::ControlServer> server,
                                               const ClusterRequest& request, const parallel::ModelConfig& config,
                                               Deadline join_deadline, const Forming& forming,
                                               std::shared_ptr<WorldAlarm> alarm) {
  std::unique_ptr<ControlWorld> world(new ControlWorld(std::move(server), request, std::move(alarm)));
  world->form(request, config, join_deadline, forming);
  return world;
}

void ControlWorld::form(const ClusterRequest& request, const parallel::ModelConfig& config, Deadline join_deadline,
                        const Forming& forming) {
  constexpr uint64_t kFirstEpoch = 1;
  std::vector<WorkerHello> hellos(static_cast<size_t>(request.layout.tp * request.layout.pp));
  await_hellos(hellos, join_deadline, forming);
  say_why_cpu(hellos);
  plan_ = make_cluster_plan(request, config, hellos, kFirstEpoch);
  for (const std::string& line : remarks(request, plan_, hellos)) log_warn("{}", line);
  server_->broadcast(MessageType::kClusterPlan, plan_.encode());
  await_ready(hellos, forming);
}

std::optional<LinkEvent> ControlWorld::next_event(Deadline deadline) {
  std::unique_lock lock(mutex_);
  arrived_.wait_until(lock, deadline.when(), [this] { return !inbox_.empty(); });
  if (inbox_.empty()) return std::nullopt;
  LinkEvent event = std::move(inbox_.front());
  inbox_.pop_front();
  inbox_bytes_ -= event.payload.size() + sizeof(LinkEvent);
  return event;
}

void ControlWorld::await_hellos(std::vector<WorkerHello>& hellos, Deadline deadline, const Forming& forming) {
  std::vector<bool> joined(hellos.size(), false);
  const auto num_joined = [&joined] { return static_cast<size_t>(std::ranges::count(joined, true)); };
  while (num_joined() < hellos.size()) {
    forming.progress(fmt::format("waiting for workers: {} of {} have joined", num_joined(), hellos.size()));
    const std::optional<LinkEvent> event = next_event(
        std::min(deadline, Deadline::after(kAskWhetherGivenUp), [](auto a, auto b) { return a.when() < b.when(); }));
    if (const std::optional<std::string> why = forming.gave_up()) fail(ErrorCode::kSystem, "{}", *why);
    if (!event) {
      if (!deadline.expired()) continue;
      std::vector<size_t> missing;
      for (size_t rank = 0; rank < joined.size(); ++rank)
        if (!joined[rank]) missing.push_back(rank);
      fail(ErrorCode::kDeadlineExceeded, "{} of {} workers did not join in time: ranks {}", missing.size(),
           joined.size(), fmt::join(missing, ", "));
    }
    const auto rank = static_cast<size_t>(event->rank);
    if (event->kind == LinkEvent::Kind::kLost) {  // nothing was begun: it, or another in its place, may come again
      log_warn("rank {} left before all had joined: {}", rank, event->reason);
      joined[rank] = false;
    }
    if (event->kind != LinkEvent::Kind::kJoined) continue;
    WorkerHello hello = WorkerHello::decode(event->payload);
    log_info("rank {} joined from {}: {} cores, {}", rank, hello.host, hello.num_cores, hello.cpu_model);
    joined[rank] = true;
    hellos[rank] = std::move(hello);
  }
}

void ControlWorld::await_ready(const std::vector<WorkerHello>& hellos, const Forming& forming) {
  const Deadline deadline = Deadline::after(kLoadDeadline);
  std::vector<bool> is_ready(hellos.size(), false);
  for (size_t num_ready = 0; num_ready < hellos.size();) {
    forming.progress(fmt::format("loading weights: {} of {} ranks are ready", num_ready, hellos.size()));
    const std::optional<LinkEvent> event = next_event(Deadline::after(kAskWhetherGivenUp));
    if (event && ends_world(*event)) fail_forming(*event);  // before mpirun's end, which follows from it
    if (const std::optional<std::string> why = forming.gave_up()) fail(ErrorCode::kSystem, "{}", *why);
    if (!event) {
      if (deadline.expired())
        fail(ErrorCode::kDeadlineExceeded, "{} of {} ranks loaded their weights in {} minutes", num_ready,
             hellos.size(), kLoadDeadline.count());
      continue;
    }
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

void ControlWorld::lose(const std::string& reason, std::vector<WorldEvent>& events) {
  if (lost_) return;  // what follows the first loss is its consequence
  lost_ = true;
  events.emplace_back(WorldLost{reason});
  server_->broadcast(MessageType::kStop, std::as_bytes(std::span(reason)));  // the others cannot go on without it
}

void ControlWorld::translate(LinkEvent event, std::vector<WorldEvent>& events) {
  if (ends_world(event)) {
    const std::string reason = end_of_world(event);
    if (lost_) log_debug("{}", reason);
    return lose(reason, events);
  }
  if (lost_ || event.kind != LinkEvent::Kind::kMessage) return;
  if (event.type == MessageType::kStepResult) events.emplace_back(parallel::StepResult::decode(event.payload));
  if (event.type == MessageType::kStageReport) events.emplace_back(parallel::StageReport::decode(event.payload));
}

void ControlWorld::take(std::vector<WorldEvent>& events, Deadline deadline) {
  std::deque<LinkEvent> arrived;
  std::optional<std::string> alarmed;
  {
    std::unique_lock lock(mutex_);
    arrived_.wait_until(lock, deadline.when(), [this] { return woken_ || alarmed_ || !inbox_.empty(); });
    woken_ = false;
    arrived.swap(inbox_);
    inbox_bytes_ = 0;
    alarmed.swap(alarmed_);
  }
  for (LinkEvent& event : arrived) translate(std::move(event), events);
  if (alarmed) lose(*alarmed, events);
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
