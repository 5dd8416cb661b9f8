// The options that say what world to form and how to schedule in it; shared by serve, generate, plan and bench. Spelled
// as vLLM's where it has them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/base/log.h"
#include "coordinator/commands/cxxopts_fwd.h"
#include "coordinator/engine.h"
#include "coordinator/make_cluster_plan.h"

namespace chorale::coordinator {

struct ClusterOptions {
  ClusterRequest request;
  EngineOptions engine;
  std::vector<std::string> served_model_names;
  std::string chat_template;     // file; empty: the model's own
  std::optional<uint64_t> seed;  // of the seeds drawn for jobs without one
  LogLevel log_level = LogLevel::kWarn;
};

/// Nothing for "auto", else the DeviceKind of that name. Throws Error{kInvalidArgument}.
std::optional<DeviceKind> parse_device(const std::string& name);

void add_cluster_options(cxxopts::Options& options);
/// Throws Error{kInvalidArgument} with the option's name, its value and what was expected.
ClusterOptions read_cluster_options(const cxxopts::ParseResult& arguments);

}  // namespace chorale::coordinator
