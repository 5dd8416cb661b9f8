// A file of plans as a world ran them: first the ClusterPlan, then every StepPlan, each as u32 length (little-endian)
// and its encoding. Every rank gets the same plans, so one rank writes; replaying it gives the same answers, with
// neither coordinator nor clients.
#pragma once

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "parallel/cluster_plan.h"
#include "parallel/step_plan.h"

namespace chorale::worker {

class PlanRecorder {
 public:
  /// Throws Error{kSystem} when the file cannot be written.
  PlanRecorder(const std::filesystem::path& path, const parallel::ClusterPlan& plan);
  void add(const parallel::StepPlan& plan);

 private:
  void write(const Bytes& bytes);
  std::filesystem::path path_;
  std::ofstream file_;
};

struct PlanRecording {
  parallel::ClusterPlan cluster;
  std::vector<parallel::StepPlan> steps;
  std::string torn;  // why the file ends inside a plan (its writer was killed); empty: it does not
};
/// A file that ends inside a step gives the steps before it, and `torn`. Throws Error{kNotFound | kCorrupt}, naming the
/// file, where it is no recording.
PlanRecording read_recording(const std::filesystem::path& path);

}  // namespace chorale::worker
