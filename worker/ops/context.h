// What every op needs besides its arguments: the device, the instruction set of the numerics class, threads and
// scratch. The runner makes one per rank and passes it down; ops keep nothing in it.
#pragma once

#include "comm/base/tensor.h"
#include "parallel/numerics.h"
#include "worker/ops/workspace.h"

namespace chorale::worker {

class ThreadPool;
class HostStaging;

struct OpContext {
  DeviceKind device = DeviceKind::kCpu;
  /// From the NumericsClass that the coordinator chose (N10), never from this CPU: kernels do not detect.
  parallel::Isa isa = parallel::Isa::kScalar;
  ThreadPool& pool;
  Workspace& scratch;
  Stream* stream = nullptr;        // where a device's kernels are launched; nullptr on the CPU
  HostStaging* staging = nullptr;  // the way of small host arrays to the device; nullptr: straight
};

}  // namespace chorale::worker
