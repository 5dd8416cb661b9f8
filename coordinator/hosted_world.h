// A world whose rank 0 also hosts the coordinator (the first way to start, architecture.md section 2; also `generate`
// and `bench engine`): all ranks call run_hosted with the same request; rank 0 listens on the control link and tells
// the others over MPI where.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/worker_entry.h"
#include "coordinator/world.h"

namespace chorale::coordinator {

struct ClusterRequest;

/// Says why a world that is forming should not be waited for, or nothing. Asked a few times a second.
using GaveUp = std::function<std::optional<std::string>()>;
std::optional<std::string> nobody_gave_up();

/// Hears what a world that is forming waits for, as text for people: "waiting for workers: 1 of 4 have joined".
using Progress = std::function<void(const std::string& waits_for)>;

/// What a world that is forming asks and tells. Thread: both are called on the thread that forms it.
struct Forming {
  GaveUp gave_up = nobody_gave_up;
  Progress progress = [](const std::string&) {};
};

/// Runs on a thread of rank 0 once all workers are ready; owns the world and stops it before it returns the exit code.
using Coordinate = std::function<int(std::unique_ptr<World> world)>;

/// The main thread computes as this process's rank until the world stops. Returns coordinate's exit code on rank 0, the
/// worker's elsewhere. Throws Error{kInvalidArgument} on rank 0 when the world's size is not tp x pp. An Error of the
/// coordinator (a plan that does not fit, a worker that does not come) stops the workers and is thrown on rank 0.
/// `forming` serves while the world forms (coordinator/control_world.h).
int run_hosted(const comm::MpiSession& session, const WorkerModule& worker, const ClusterRequest& request,
               const Coordinate& coordinate, const Forming& forming = {});

}  // namespace chorale::coordinator
