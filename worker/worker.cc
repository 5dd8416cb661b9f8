#include "worker/worker.h"

#include <unistd.h>

#include <cstdio>
#include <deque>
#include <optional>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/watchdog.h"
#include "comm/control_link.h"
#include "worker/hello.h"
#include "worker/plan_recording.h"
#include "worker/step_watchdog.h"

namespace chorale::worker {
namespace {
using comm::MessageType;

// The step's own deadline ends waits first, with a better message.
constexpr std::chrono::seconds kWatchdogGrace{1};
constexpr std::chrono::hours kIdle{1};
constexpr std::chrono::microseconds kGlance{50};  // at the link, while a device works
constexpr std::chrono::minutes kReplayMeeting{5};

[[noreturn]] void leave(int rank, const std::string& reason) {
  leave_lost_world(fmt::format("rank {}: {}", rank, reason));
}

/// The coordinator knows why the world is lost and says it once for all ranks: this one has nothing to add.
[[noreturn]] void leave_after_others(const std::string& reason) {
  log_debug("leaving: {}", reason);
  _exit(kExitWorldLost);
}

std::string text_of(const Bytes& payload) {
  return std::string(reinterpret_cast<const char*>(payload.data()), payload.size());
}

/// Libraries throw errors of their own: out of memory, no more threads.
parallel::WorkerFault fault_of(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  return {known == nullptr ? ErrorCode::kSystem : known->code(), error.what()};
}

/// The loop between the control link and the stage.
class ControlLoop {
 public:
  ControlLoop(const WorkerOptions& options, const comm::WorldMap& map, const WorldFactory& make_world)
      : options_(options),
        map_(map),
        make_world_(make_world),
        device_(open_own_device(options.device, map)),
        client_(connect()) {}

  int run() {
    const std::optional<parallel::ClusterPlan> plan = await_plan();
    if (!plan) return 0;
    try {
      start(*plan);
    } catch (const std::exception& error) {
      const parallel::WorkerFault fault = fault_of(error);
      report(fault);  // a coordinator that cannot be told heard it from another rank: it ended the world
      if (!fault.lacks_peers() || options_.hosts_coordinator) throw;
      client_.reset();  // sends what is queued
      leave_after_others(error.what());
    }
    try {
      while (turn()) {
      }
    } catch (const std::exception& error) {
      const bool is_known = report(fault_of(error)) || is_stopped();
      client_.reset();  // sends what is queued
      if (is_known && options_.hosts_coordinator) {
        stage_.release();  // NOLINT(bugprone-unused-return-value): what hangs on a device would hold up its end
        throw;
      }
      if (is_known) leave_after_others(error.what());
      leave(map_.rank, error.what());
    }
    return 0;
  }

 private:
  std::unique_ptr<comm::ControlClient> connect() const {
    comm::ControlClientOptions options;
    options.host = options_.control_host;
    options.port = options_.control_port;
    options.secret = options_.secret;
    options.epoch = options_.epoch;
    options.rank = map_.rank;
    const WantedLibraries wanted{.cublaslt = options_.looks_for_cublaslt,
                                 .nccl = options_.comm != parallel::DeviceComm::kMpi};
    options.hello = make_hello(map_, options_.device, device_.get(), wanted).encode();
    options.on_lost = [rank = map_.rank](comm::LinkLoss how, const std::string& reason) {
      if (how == comm::LinkLoss::kOverdue) leave_after_others(reason);
      leave(rank, "lost the coordinator: " + reason);
    };
    try {
      return comm::ControlClient::connect(std::move(options), Deadline::after(options_.connect_deadline));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) throw;
      fail_refused(error.what());
    }
  }

  /// No wrong usage of this command (exit code 2): the two sides do not fit together.
  [[noreturn]] void fail_refused(const std::string& why) const {
    fail(ErrorCode::kUnsupported, "rank {} of {}: {}", map_.rank, map_.size, why);
  }

  // Idle workers block here, on the link.
  comm::Message next_message() {
    for (;;)
      if (auto message = client_->receive(Deadline::after(kIdle))) return std::move(*message);
  }

  /// Nothing when the world is stopped before it began.
  std::optional<parallel::ClusterPlan> await_plan() {
    for (;;) {
      const comm::Message message = next_message();
      if (message.type == MessageType::kStop) return std::nullopt;
      if (message.type == MessageType::kRefused)
        fail_refused("the coordinator refused this worker: " + text_of(message.payload));
      if (message.type == MessageType::kClusterPlan) return parallel::ClusterPlan::decode(message.payload);
      log_warn("a {} message came before the cluster plan", to_string(message.type));
    }
  }

  void start(const parallel::ClusterPlan& plan) {
    const auto tell = [this](const std::exception& error) { report(fault_of(error)); };
    stage_ = std::make_unique<Stage>(plan, map_.rank, options_.threads, std::move(device_), make_world_, tell);
    if (!options_.record_path.empty() && map_.rank == 0) recorder_.emplace(options_.record_path, plan);
    client_->send(MessageType::kReady, stage_->ready().encode());
  }

  /// Answers a step that is done, or takes a message; false when it is the last. Plans are taken before the steps in
  /// flight are done, as many as the runner takes, so that a device goes from one to the next.
  bool turn() {
    StageRunner& runner = stage_->runner();
    if (runner.num_in_flight() == runner.max_in_flight() || (runner.num_in_flight() > 0 && runner.is_done())) {
      answer();
      return true;
    }
    if (runner.num_in_flight() == 0) return take(next_message());
    const std::optional<comm::Message> message = client_->receive(Deadline::after(kGlance));
    return message ? take(*message) : true;
  }

  bool take(const comm::Message& message) {
    switch (message.type) {
      case MessageType::kStop:
        // What its device still does waits for peers that are gone. Who hosts the coordinator lets it have its say.
        if (!message.payload.empty() && !options_.hosts_coordinator) leave_after_others(text_of(message.payload));
        return false;
      case MessageType::kDrain: return true;  // the coordinator plans no new jobs; steps in flight go on
      case MessageType::kStepPlan: break;
      default: log_warn("a {} message is not for workers", to_string(message.type)); return true;
    }
    const parallel::StepPlan plan = parallel::StepPlan::decode(message.payload);
    if (recorder_) recorder_->add(plan);
    in_flight_.push_back({plan.step, std::chrono::milliseconds(plan.deadline_ms)});
    if (in_flight_.size() == 1) watch_oldest();
    stage_->runner().enqueue(plan);
    return true;
  }

  void watch_oldest() {
    const auto& [step, allowed] = in_flight_.front();
    watchdog_.arm(fmt::format("step {}", step), Deadline::after(allowed + kWatchdogGrace));
  }

  void answer() {
    const StepOutcome outcome = stage_->runner().finish();
    in_flight_.pop_front();
    if (in_flight_.empty())
      watchdog_.disarm();
    else
      watch_oldest();
    if (outcome.result) client_->send(MessageType::kStepResult, outcome.result->encode());
    if (outcome.report) client_->send(MessageType::kStageReport, outcome.report->encode());
  }

  /// Whether the coordinator ended the world, for a reason that it knows.
  bool is_stopped() {
    try {
      while (const auto message = client_->receive(Deadline::after(std::chrono::seconds(0))))
        if (message->type == MessageType::kStop) return true;
    } catch (const Error& error) {
      log_debug("no word from the coordinator: {}", error.what());
    }
    return false;
  }

  /// Once. False when the coordinator cannot be told.
  bool report(const parallel::WorkerFault& fault) {
    if (has_reported_) return true;
    try {
      client_->send(MessageType::kFault, fault.encode());
      return has_reported_ = true;
    } catch (const Error& error) {
      log_debug("the coordinator cannot be told: {}", error.what());
      return false;
    }
  }

  const WorkerOptions& options_;
  const comm::WorldMap& map_;
  const WorldFactory& make_world_;
  std::unique_ptr<Device> device_;  // until the stage has it
  std::unique_ptr<comm::ControlClient> client_;
  std::unique_ptr<Stage> stage_;
  std::optional<PlanRecorder> recorder_;
  bool has_reported_ = false;
  std::deque<std::pair<uint64_t, std::chrono::milliseconds>> in_flight_;  // steps and their time, oldest first
  StepWatchdog watchdog_{
      [this](const std::string& what) { leave(map_.rank, what + " did not finish by its deadline"); }};
};

void print_tokens(const parallel::StepResult& result) {
  for (const parallel::SampledToken& token : result.sampled)
    std::printf("step %llu sequence %llu position %d token %d logprob %.9g\n",
                static_cast<unsigned long long>(result.step), static_cast<unsigned long long>(token.sequence_id),
                token.position, token.token.token_id, static_cast<double>(token.token.logprob));
  std::fflush(stdout);
}

WorldFactory world_of(const comm::MpiSession& session) {
  return [&session](const comm::WorldOptions& options) { return comm::make_world(session, options); };
}

}  // namespace

int run_worker(const WorkerOptions& options, const comm::WorldMap& map, const WorldFactory& make_world) {
  set_compute_thread_fp_state();
  return ControlLoop(options, map, make_world).run();
}

int run_worker(const WorkerOptions& options, const comm::MpiSession& session) {
  return run_worker(options, session.map(), world_of(session));
}

int replay_worker(const std::string& recording_path, const WorkerOptions& options, const comm::WorldMap& map,
                  const WorldFactory& make_world) {
  set_compute_thread_fp_state();
  const PlanRecording recording = read_recording(recording_path);
  Stage stage(recording.cluster, map.rank, options.threads, open_own_device(options.device, map), make_world);
  for (const parallel::StepPlan& plan : recording.steps)
    if (const StepOutcome outcome = stage.runner().run(plan); outcome.result) print_tokens(*outcome.result);
  const parallel::Layout& layout = recording.cluster.layout;
  const bool prints = map.rank == layout.rank_of(layout.pp - 1, 0);
  if (prints && !recording.torn.empty())
    fail(ErrorCode::kCorrupt, "{}: only the {} step(s) before it were replayed", recording.torn,
         recording.steps.size());
  return 0;
}

int replay_worker(const std::string& recording_path, const WorkerOptions& options, const comm::MpiSession& session) {
  // Rank 0 goes ahead to where the ranks first meet: what is wrong with the recording or the model is said once, not
  // once a rank.
  const auto meet = [&session] { session.broadcast_text("", Deadline::after(kReplayMeeting)); };
  if (session.rank() != 0) meet();
  return replay_worker(recording_path, options, session.map(), [&](const comm::WorldOptions& world_options) {
    if (session.rank() == 0) meet();
    return comm::make_world(session, world_options);
  });
}

}  // namespace chorale::worker
