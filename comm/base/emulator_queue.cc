#include "comm/base/emulator_queue.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "comm/base/fp_state.h"
#include "comm/base/log.h"

namespace chorale {
namespace {
constexpr std::chrono::milliseconds kLateStart{2};
constexpr std::chrono::seconds kStuck{5};  // without one piece of work ending
}  // namespace

uint64_t EmulatorMark::next() {
  const std::lock_guard lock(mutex_);
  return ++recorded_;
}

uint64_t EmulatorMark::last() {
  const std::lock_guard lock(mutex_);
  return recorded_;
}

void EmulatorMark::reach(uint64_t number, const std::optional<DeviceProblem>& problem) {
  const std::lock_guard lock(mutex_);
  reached_ = std::max(reached_, number);
  reached_at_ = Deadline::Clock::now();
  if (problem && !problem_) problem_ = problem;
  changed_.notify_all();
}

Deadline::Clock::time_point EmulatorMark::reached_at() const {
  const std::lock_guard lock(mutex_);
  return reached_at_;
}

std::optional<EmulatorMark::Reached> EmulatorMark::await(uint64_t number,
                                                         std::optional<Deadline::Clock::time_point> when) {
  std::unique_lock lock(mutex_);
  const auto is_reached = [&] { return reached_ >= number; };
  if (!when)
    changed_.wait(lock, is_reached);
  else if (!changed_.wait_until(lock, *when, is_reached))
    return std::nullopt;
  return Reached{problem_};
}

class EmulatorQueue::State {
 public:
  explicit State(Pace pace) : pace_(pace) {}

  void push(Work work) {
    const std::lock_guard lock(mutex_);
    ++num_pushed_;
    work_.push_back(std::move(work));
    arrived_.notify_one();
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    arrived_.notify_one();
  }

  bool await_idle(Deadline::Clock::time_point when) {
    std::unique_lock lock(mutex_);
    const uint64_t wanted = num_pushed_;
    if (num_ended_ < wanted) is_wanted_ = true;
    arrived_.notify_one();
    return ended_.wait_until(lock, when, [&] { return num_ended_ >= wanted; });
  }

  /// Whether it ended, for ever-moving deadlines of destructors.
  bool await_end_of_moving() {
    for (uint64_t before = num_ended();;) {
      if (await_idle(Deadline::Clock::now() + kStuck)) return true;
      const uint64_t now = num_ended();
      if (now == before) return false;
      before = now;
    }
  }

  std::optional<DeviceProblem> failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  void serve() {
    set_compute_thread_fp_state();
    std::unique_lock lock(mutex_);
    for (;;) {
      arrived_.wait(lock, [&] { return stopping_ || !work_.empty(); });
      if (pace_ == Pace::kLate) arrived_.wait_for(lock, kLateStart, [&] { return is_wanted_ || stopping_; });
      if (work_.empty()) return;  // told to stop, and done
      Work work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      std::optional<DeviceProblem> problem = run(work);
      work = nullptr;  // what it kept alive goes while nobody is locked out
      lock.lock();
      if (problem && !failure_) failure_ = std::move(problem);
      ++num_ended_;
      if (work_.empty()) is_wanted_ = false;
      ended_.notify_all();
    }
  }

 private:
  uint64_t num_ended() const {
    const std::lock_guard lock(mutex_);
    return num_ended_;
  }

  static std::optional<DeviceProblem> run(const Work& work) {
    try {
      work();
    } catch (const Error& error) {
      return DeviceProblem{error.code(), error.what()};
    } catch (const std::exception& error) {
      return DeviceProblem{ErrorCode::kSystem, error.what()};
    }
    return std::nullopt;
  }

  const Pace pace_;
  mutable std::mutex mutex_;
  std::condition_variable arrived_, ended_;
  std::deque<Work> work_;
  uint64_t num_pushed_ = 0, num_ended_ = 0;
  bool stopping_ = false;
  bool is_wanted_ = false;  // somebody waits
  std::optional<DeviceProblem> failure_;
};

EmulatorQueue::EmulatorQueue(Pace pace)
    : state_(std::make_shared<State>(pace)), thread_([state = state_] { state->serve(); }) {}

EmulatorQueue::~EmulatorQueue() {
  const bool is_done = state_->await_end_of_moving();
  state_->stop();
  if (is_done) {
    thread_.join();
    return;
  }
  log_warn("a stream of the emulator is stuck in its work and is left behind");
  thread_.detach();
}

void EmulatorQueue::push(Work work) {
  state_->push([state = state_.get(), work = std::move(work)] {
    if (!state->failure()) work();
  });
}

void EmulatorQueue::push_mark(std::shared_ptr<EmulatorMark> mark) {
  const uint64_t number = mark->next();
  state_->push([state = state_.get(), mark = std::move(mark), number] { mark->reach(number, state->failure()); });
}

bool EmulatorQueue::await_idle(Deadline::Clock::time_point when) {
  const bool is_done = state_->await_idle(when);
  throw_failure();
  return is_done;
}

void EmulatorQueue::throw_failure() const {
  if (const auto failure = state_->failure()) throw Error(failure->code, failure->message);
}

void EmulatorQueue::push_last(State& state, Work work) { state.push(std::move(work)); }

bool EmulatorQueue::is_idle(State& state, Deadline::Clock::time_point when) { return state.await_idle(when); }

}  // namespace chorale
