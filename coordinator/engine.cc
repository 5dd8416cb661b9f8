#include "coordinator/engine.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "comm/base/leaving.h"
#include "comm/base/log.h"
#include "coordinator/engine_core.h"

namespace chorale::coordinator {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kStopWorld = kCleanEnd + kTidyUp;  // for workers to leave
constexpr std::chrono::seconds kFailJobs{10};                     // for the engine thread to notice that drain gave up

struct Submit {
  JobId id;
  JobRequest request;
  std::shared_ptr<JobSink> sink;
  Clock::time_point arrival;
};
struct Cancel {
  JobId id;
};
struct FailAll {
  Failure failure;
};
struct Stop {};
using Command = std::variant<Submit, Cancel, FailAll, Stop>;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

class Engine::Impl {
 public:
  Impl(const EngineOptions& options, std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<World> world)
      : options_(options),
        has_tokenizer_(tokenizer != nullptr),
        world_(std::move(world)),
        limits_(scheduler_limits(options, world_->plan())),
        core_(options, std::move(tokenizer), *world_, board_),
        thread_([this] { run(); }) {}

  ~Impl() {
    push(Stop{});
    thread_.join();
  }

  Result<JobId> submit(JobRequest request, std::shared_ptr<JobSink> sink);
  void drain(Deadline deadline);
  Result<std::string> health() const;
  EngineStats stats() const {
    return board_.with([](const EngineFacts& facts) { return facts.stats; });
  }
  const parallel::ClusterPlan& plan() const { return world_->plan(); }

  void push(Command command) {
    {
      std::lock_guard lock(mutex_);
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
    world_->wake();
  }
  void wake() { world_->wake(); }

 private:
  void run();
  bool take_commands();
  void execute(Command& command);
  void take_events(std::vector<WorldEvent>& events);

  const EngineOptions options_;
  const bool has_tokenizer_;
  std::unique_ptr<World> world_;
  const SchedulerLimits limits_;
  EngineBoard board_;
  EngineCore core_;  // engine thread only
  std::atomic<JobId> next_id_{1};

  std::mutex mutex_;
  std::condition_variable arrived_;  // used where there is no world to wake
  std::vector<Command> commands_;    // guarded by mutex_
  std::vector<Command> taken_;       // engine thread only
  bool is_stopping_ = false;         // engine thread only
  std::thread thread_;               // last: it uses all of the above
};

Result<JobId> Engine::Impl::submit(JobRequest request, std::shared_ptr<JobSink> sink) {
  if (request.prompt_ids.empty())
    return Failure{ErrorCode::kInvalidArgument, "the prompt has no tokens; give at least one", "prompt"};
  if (request.num_choices < 1)
    return Failure{ErrorCode::kInvalidArgument, fmt::format("n is {}, at least 1 is needed", request.num_choices), "n"};
  if (request.max_tokens < 0)
    return Failure{ErrorCode::kInvalidArgument,
                   fmt::format("max_tokens is {}, at least 0 is needed", request.max_tokens), "max_tokens"};
  if (!request.stop.empty() && !has_tokenizer_)
    return Failure{ErrorCode::kInvalidArgument,
                   "the model has no tokenizer, so stop strings can not be found; use stop_token_ids", "stop"};
  if (auto failure = refusal(limits_, static_cast<int64_t>(request.prompt_ids.size()), request.max_tokens))
    return *failure;
  const std::optional<Failure> refused = board_.with([&](EngineFacts& facts) -> std::optional<Failure> {
    if (facts.lost) return Failure{ErrorCode::kPeerLost, *facts.lost, ""};
    if (facts.is_draining)
      return Failure{ErrorCode::kUnsupported, "the server is shutting down and takes no new jobs", ""};
    if (facts.num_waiting_jobs >= options_.max_waiting_jobs) {
      ++facts.stats.rejected_queue_full;
      return Failure{
          ErrorCode::kResourceExhausted,
          fmt::format("{} jobs wait already, the most this server queues; try again later", facts.num_waiting_jobs),
          ""};
    }
    ++facts.num_waiting_jobs;
    ++facts.num_jobs;
    return std::nullopt;
  });
  if (refused) return *refused;
  const JobId id = next_id_++;
  push(Submit{id, std::move(request), std::move(sink), Clock::now()});
  return id;
}

void Engine::Impl::drain(Deadline deadline) {
  board_.with([](EngineFacts& facts) { facts.is_draining = true; });
  if (board_.wait_for_no_jobs(deadline)) return;
  push(
      FailAll{{ErrorCode::kUnsupported, "the server is shutting down and could not wait for this job any longer", ""}});
  if (!board_.wait_for_no_jobs(Deadline::after(kFailJobs))) log_warn("jobs did not end while draining");
}

Result<std::string> Engine::Impl::health() const {
  const auto [lost, is_draining, answer, allowed_until] = board_.with([](const EngineFacts& facts) {
    return std::tuple(facts.lost, facts.is_draining, facts.answer, facts.allowed_until);
  });
  if (lost) return Failure{ErrorCode::kPeerLost, *lost, ""};
  if (is_draining) return Failure{ErrorCode::kUnsupported, "draining: running jobs finish, new ones are refused", ""};
  if (!answer) return Failure{ErrorCode::kDeadlineExceeded, "the workers have not answered their first step yet", ""};
  const double age = seconds(Clock::now() - *answer);
  // A long step (a large prefill on a slow core) is healthy until its own deadline; a dead rank is seen by its
  // heartbeat.
  if (age > seconds(options_.health_window) && Clock::now() > allowed_until)
    return Failure{ErrorCode::kDeadlineExceeded, fmt::format("no step was answered for {:.1f} s", age), ""};
  return fmt::format("the workers answered {:.1f} s ago", age);
}

void Engine::Impl::run() {
  std::vector<WorldEvent> events;
  auto woke = Clock::now();
  while (true) {
    try {
      const auto now = Clock::now();
      for (const WorldEvent& event : events) core_.handle(event, now);
      events.clear();
      if (!take_commands()) break;
      core_.turn(Clock::now());
      const double worked = seconds(Clock::now() - woke);
      board_.with([&](EngineFacts& facts) { facts.stats.coordinator_seconds += worked; });
      take_events(events);
      woke = Clock::now();
    } catch (const std::exception& error) {
      // What the world sent makes no sense, or sending failed: it can not be trusted with jobs any more.
      events.clear();
      core_.lose_world(error.what());
    }
  }
  core_.fail_all({ErrorCode::kPeerLost, "the server stopped", ""});
  try {
    world_->stop(Deadline::after(kStopWorld));
  } catch (const Error& error) {
    log_warn("stopping the workers: {}", error.what());
  }
}

void Engine::Impl::take_events(std::vector<WorldEvent>& events) {
  if (!core_.is_lost()) return world_->take(events, Deadline(core_.next_look()));
  std::unique_lock lock(mutex_);
  arrived_.wait_until(lock, core_.next_look(), [this] { return !commands_.empty(); });
}

bool Engine::Impl::take_commands() {
  {
    std::lock_guard lock(mutex_);
    std::ranges::move(commands_, std::back_inserter(taken_));
    commands_.clear();
  }
  // Each leaves the list before it runs: one that throws is not run again.
  while (!taken_.empty()) {
    Command command = std::move(taken_.front());
    taken_.erase(taken_.begin());
    execute(command);
  }
  return !is_stopping_;
}

void Engine::Impl::execute(Command& command) {
  if (auto* submit = std::get_if<Submit>(&command)) {
    core_.submit(submit->id, std::move(submit->request), std::move(submit->sink), submit->arrival);
  } else if (const auto* cancel = std::get_if<Cancel>(&command)) {
    core_.cancel(cancel->id);
  } else if (const auto* fail_all = std::get_if<FailAll>(&command)) {
    core_.fail_all(fail_all->failure);
  } else {
    is_stopping_ = true;
  }
}

Engine::Engine(EngineOptions options, std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<World> world)
    : impl_(std::make_unique<Impl>(options, std::move(tokenizer), std::move(world))) {}
Engine::~Engine() = default;

Result<JobId> Engine::submit(JobRequest request, std::shared_ptr<JobSink> sink) {
  return impl_->submit(std::move(request), std::move(sink));
}
void Engine::cancel(JobId id) { impl_->push(Cancel{id}); }
void Engine::wake() { impl_->wake(); }
void Engine::drain(Deadline deadline) { impl_->drain(deadline); }
Result<std::string> Engine::health() const { return impl_->health(); }
EngineStats Engine::stats() const { return impl_->stats(); }
const parallel::ClusterPlan& Engine::plan() const { return impl_->plan(); }

}  // namespace chorale::coordinator
