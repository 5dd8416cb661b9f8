#include "coordinator/http/generation.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>
#include <variant>

namespace chorale::coordinator::http {

namespace internal {

struct Done {
  int64_t num_cached_tokens = 0;
};
struct Event {
  size_t job = 0;
  std::variant<std::vector<parallel::SampledToken>, TokenEvent, Done, Failure> what;
};

/// The named queue between the engine thread and the connection's. `mutex` guards all but `congested`.
struct Inbox {
  std::mutex mutex;
  std::vector<Event> events;
  size_t queued_bytes = 0;  // estimate of what `events` will print
  size_t unsent_bytes = 0;
  size_t bound = 0;  // 0: never congested (not a stream)
  Generation::Wake wake;
  std::atomic<bool> congested{false};

  void put(Event event, size_t bytes) {
    const std::lock_guard lock(mutex);
    if (!wake) return;  // closed
    queued_bytes += bytes;
    events.push_back(std::move(event));
    update();
    if (events.size() == 1) wake();
  }

  /// True when the reader has just caught up.
  bool update() {
    if (bound == 0) return false;
    const size_t waiting = queued_bytes + unsent_bytes;
    if (waiting > bound) congested = true;
    return waiting < bound / 2 && congested.exchange(false);
  }
};

}  // namespace internal

namespace {

using internal::Done;
using internal::Event;
using internal::Inbox;

constexpr size_t kEventBytes = 240;   // the frame of a chunk
constexpr size_t kLogprobBytes = 80;  // one alternative, printed

class Sink : public JobSink {
 public:
  Sink(std::shared_ptr<Inbox> inbox, size_t job) : inbox_(std::move(inbox)), job_(job) {}
  void on_prompt_logprobs(std::vector<parallel::SampledToken> tokens) override {
    size_t bytes = kEventBytes;
    for (const auto& token : tokens) bytes += kLogprobBytes * (1 + token.top.size());
    inbox_->put({job_, std::move(tokens)}, bytes);
  }
  void on_token(TokenEvent event) override {
    const size_t bytes = kEventBytes + event.text.size() + kLogprobBytes * event.token.top.size();
    inbox_->put({job_, std::move(event)}, bytes);
  }
  void on_done(int64_t num_cached_tokens) override { inbox_->put({job_, Done{num_cached_tokens}}, 0); }
  void on_error(const Failure& failure) override { inbox_->put({job_, failure}, 0); }
  bool is_congested() const override { return inbox_->congested; }

 private:
  std::shared_ptr<Inbox> inbox_;
  size_t job_;
};

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

Generation::Generation(const api::ParsedRequest& request, std::shared_ptr<const api::ApiContext> context,
                       std::shared_ptr<api::JobService> jobs, const GenerationOptions& options, Wake wake)
    : answer_(request, std::move(context), options.request_id, unix_seconds()),
      jobs_(std::move(jobs)),
      inbox_(std::make_shared<Inbox>()) {
  inbox_->bound = answer_.streams() ? options.stream_buffer_bytes : 0;
  inbox_->wake = std::move(wake);
}

Generation::~Generation() { close(); }

Result<std::unique_ptr<Generation>> Generation::start(api::ParsedRequest request,
                                                      std::shared_ptr<const api::ApiContext> context,
                                                      std::shared_ptr<api::JobService> jobs,
                                                      const GenerationOptions& options, Wake wake) {
  std::unique_ptr<Generation> generation(
      new Generation(request, std::move(context), std::move(jobs), options, std::move(wake)));
  for (size_t i = 0; i < request.jobs.size(); ++i) {
    JobRequest& job = request.jobs[i];
    job.request_id = options.request_id;
    auto id = generation->jobs_->submit(std::move(job), std::make_shared<Sink>(generation->inbox_, i));
    if (!id) return id.failure();  // the destructor cancels those before
    generation->job_ids_.push_back(*id);
  }
  return generation;
}

bool Generation::pump() {
  std::vector<Event> events;
  {
    const std::lock_guard lock(inbox_->mutex);
    events.swap(inbox_->events);
    // What was queued is about to be text; the session reports it as unsent next. Until then it still counts.
    inbox_->unsent_bytes += std::exchange(inbox_->queued_bytes, 0);
  }
  for (Event& event : events) {
    if (failure_) break;
    if (auto* tokens = std::get_if<std::vector<parallel::SampledToken>>(&event.what))
      answer_.on_prompt_logprobs(event.job, std::move(*tokens));
    else if (auto* token = std::get_if<TokenEvent>(&event.what))
      answer_.on_token(event.job, std::move(*token));
    else if (auto* done = std::get_if<Done>(&event.what))
      answer_.on_done(event.job, done->num_cached_tokens);
    else
      failure_ = std::get<Failure>(event.what);
  }
  if (failure_)
    cancel_jobs();
  else if (answer_.is_complete())
    job_ids_.clear();
  return !events.empty();
}

void Generation::set_unsent(size_t bytes) {
  bool caught_up = false;
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->unsent_bytes = bytes;
    caught_up = inbox_->update();
  }
  if (caught_up) jobs_->wake();
}

void Generation::cancel_jobs() {
  for (const JobId id : std::exchange(job_ids_, {})) jobs_->cancel(id);
}

void Generation::close() {
  {
    const std::lock_guard lock(inbox_->mutex);
    inbox_->wake = nullptr;
    inbox_->events.clear();
  }
  cancel_jobs();
}

}  // namespace chorale::coordinator::http
