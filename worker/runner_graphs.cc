// The part of StageRunner that records its decode steps at start (worker/decode_graphs.h): between the rows' arrival
// and their leaving, with the logits of small batches. What depends on parameters of the sequences, sampling, comes
// after. Where one rank cannot record them, all go without.
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/progress.h"
#include "worker/capture_agreement.h"
#include "worker/ops/logits.h"
#include "worker/runner.h"
#include "worker/step_sizes.h"
#include "worker/transport_warm_up.h"

namespace chorale::worker {
namespace {

// All ranks capture at once, and nobody waits for another meanwhile: seconds. Then who is done waits for the others.
constexpr std::chrono::minutes kCaptureTime{5}, kRenewalTime{5};
constexpr std::chrono::seconds kAgreementTime{30};

}  // namespace

// Partial sums must meet without the host.
bool StageRunner::can_capture() const {
  return where_ && (plan_.layout.tp == 1 || groups_.transports.group != nullptr);
}

void StageRunner::capture_graphs() {
  world_.barrier(Deadline::after(parallel::kLoadDeadline));  // from here on no rank is late because it still loads
  const auto start = Deadline::Clock::now();
  const Deadline deadline = Deadline::after(kCaptureTime);
  const bool is_first = plan_.layout.is_first_stage(rank_), is_last = plan_.layout.is_last_stage(rank_);
  const int64_t max_rows = max_graph_rows(plan_);
  graphs_.emplace(op_, where_,
                  DecodeGraphs::Limits{.max_rows = max_rows,
                                       .max_blocks = max_graph_blocks(plan_),
                                       .hidden_size = plan_.config.hidden_size,
                                       .logits_rows = is_last ? std::min(max_rows, kSlabRows) : 0,
                                       .vocab_size = plan_.config.vocab_size});
  const auto body = [&](Step& step, const int32_t* sources, MatrixView hidden, MatrixView logits) {
    if (is_first) embed(step, sources, hidden);
    model_->forward(step, hidden);
    if (logits.rows > 0) collect_logits(step, hidden, logits);
  };
  graphs_->rehearse(body, deadline);

  std::optional<ProgressBar> bar;
  int64_t num_graphs = 0;
  std::string failure;
  try {
    const auto show = [&](int64_t done, int64_t total) {
      if (!bar && rank_ == 0) bar.emplace("capturing CUDA graphs", total);
      if (bar) bar->update(done);
      num_graphs = total;
    };
    graphs_->capture(body, show, deadline);
  } catch (const Error& error) {
    // A rank that hangs or is gone is no reason to go on without graphs.
    if (error.code() == ErrorCode::kDeadlineExceeded || error.code() == ErrorCode::kPeerLost) throw;
    failure = error.what();
  }
  bar.reset();
  if (!agree_on_graphs(failure, Deadline(deadline.when() + kAgreementTime))) return;
  const std::chrono::duration<double> taken = Deadline::Clock::now() - start;
  log_info("captured {} CUDA graphs of decode steps of up to {} sequences in {:.2f} s", num_graphs, max_rows,
           taken.count());
}

// True where every rank has all graphs. Else none keeps any: those of the ranks of a group meet in their calls to it,
// so all or none are launched.
bool StageRunner::agree_on_graphs(const std::string& failure, Deadline deadline) {
  const std::vector<std::string> failures = share_failures(world_, failure, deadline);
  const std::string warning = describe_failures(failures);
  if (warning.empty()) return true;
  if (rank_ == 0) log_warn("{}", warning);
  graphs_.reset();
  bool renews = false;
  for (const int member : group_members(plan_.layout, rank_))
    renews = renews || !failures[static_cast<size_t>(member)].empty();
  if (renews && groups_.transports.group) {
    const Deadline until = Deadline::after(kRenewalTime);
    groups_.transports.group->renew(until);
    warm_up_group(plan_, rank_, *groups_.transports.group, *where_.stream, scratch_, until);
  }
  return false;
}

}  // namespace chorale::worker
