// One request's jobs on their way: submitted to the engine, their events carried from the engine thread to the
// connection's, and made into the answer there. Owned by an HTTP session. It knows no socket: it is woken, pumped, and
// told how much is unsent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/answer.h"
#include "coordinator/api/job_service.h"

namespace chorale::coordinator::http {

namespace internal {
struct Inbox;
}

struct GenerationOptions {
  std::string request_id;
  size_t stream_buffer_bytes = 256 << 10;  // events and text that wait for a reader; above it a stream is congested
};

/// Thread: start() anywhere; the rest on the connection's thread only.
class Generation {
 public:
  /// Called on the engine thread when there is something to pump; must return at once. Never after close().
  using Wake = std::function<void()>;

  /// Submits all jobs. On a Failure none of them runs.
  static Result<std::unique_ptr<Generation>> start(api::ParsedRequest request,
                                                   std::shared_ptr<const api::ApiContext> context,
                                                   std::shared_ptr<api::JobService> jobs,
                                                   const GenerationOptions& options, Wake wake);
  ~Generation();  // as close()
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  /// Takes what the engine has reported into the answer. False when there was nothing.
  bool pump();
  api::Answer& answer() { return answer_; }
  /// Why a job failed, once one has; the other jobs of the request are cancelled then.
  const std::optional<Failure>& failure() const { return failure_; }
  /// How many bytes of the stream the client has not taken; decides congestion.
  void set_unsent(size_t bytes);
  /// Cancels what still runs; no wake follows.
  void close();

 private:
  Generation(const api::ParsedRequest& request, std::shared_ptr<const api::ApiContext> context,
             std::shared_ptr<api::JobService> jobs, const GenerationOptions& options, Wake wake);
  void cancel_jobs();

  api::Answer answer_;
  std::shared_ptr<api::JobService> jobs_;
  std::shared_ptr<internal::Inbox> inbox_;
  std::vector<JobId> job_ids_;
  std::optional<Failure> failure_;
};

}  // namespace chorale::coordinator::http
