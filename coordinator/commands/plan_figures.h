// `chorale plan`'s flags that describe machines, as MachineFigures: a GPU of the table, the GPUs of this machine, or
// CPU nodes by measured or given figures. Only plan.cc calls it.
#pragma once

#include <optional>

#include "comm/base/device.h"
#include "coordinator/commands/cxxopts_fwd.h"
#include "coordinator/worker_entry.h"
#include "parallel/recommend/machine_figures.h"

namespace chorale::coordinator {

void add_figure_options(cxxopts::Options& options);

/// True for --recommend or --gpu. Throws Error{kInvalidArgument} when a flag that describes machines stands without
/// them.
bool wants_advice(const cxxopts::ParseResult& arguments);

/// --mean-context; 0 where it is not given. Throws Error{kInvalidArgument}.
int mean_context_of(const cxxopts::ParseResult& arguments);

/// `device` as --device says. `gpus`: the table's entry of GPUs, or nullptr. Measures this machine when CPUs compute
/// and a figure is not given. Throws Error{kInvalidArgument} with the flag, its value and what was expected; Error{
/// kUnsupported} for a GPU that is not in the table.
parallel::MachineFigures read_figures(const cxxopts::ParseResult& arguments, std::optional<DeviceKind> device,
                                      const DeviceEntry* gpus, const WorkerModule& worker);

}  // namespace chorale::coordinator
