// The table of kernels of one op: a kernel file adds an entry before main, the op picks one for its context. All
// kernels that support the same (context, args) give the same bits; tests iterate over the table and check that with
// ==.
#pragma once

#include <string_view>

#include "comm/base/error.h"
#include "comm/base/registry.h"
#include "worker/ops/context.h"

namespace chorale::worker {

template <typename Args>
struct Kernel {
  std::string_view name;  // "linear_avx512"
  DeviceKind device = DeviceKind::kCpu;
  parallel::Isa isa = parallel::Isa::kScalar;  // instructions it executes
  int priority = 0;                            // the highest that supports the arguments is taken
  bool (*supports)(const OpContext&, const Args&) = nullptr;
  void (*launch)(OpContext&, const Args&) = nullptr;  // shapes have been checked by the op
};

template <typename Args>
using KernelTable = Registry<Kernel<Args>>;

/// For kernels that take whatever passes the op's door.
template <typename Args>
bool supports_all(const OpContext&, const Args&) {
  return true;
}

/// The kernel for these arguments: best priority among those of the context's device whose instructions its class
/// includes. CHECKs that one exists: the scalar kernels support everything that an op's door lets in.
template <typename Args>
const Kernel<Args>& select_kernel(const OpContext& ctx, const Args& args) {
  const Kernel<Args>* best = nullptr;
  for (const Kernel<Args>& kernel : KernelTable<Args>::all())
    if (kernel.device == ctx.device && kernel.isa <= ctx.isa && kernel.supports(ctx, args) &&
        (best == nullptr || kernel.priority > best->priority))
      best = &kernel;
  CHECK(best != nullptr);
  return *best;
}

}  // namespace chorale::worker
