#include "worker/plan_recording.h"

#include "comm/base/error.h"

namespace chorale::worker {
namespace {

constexpr uint32_t kMaxPlanBytes = 64u << 20;  // as on the control link

// The next plan's bytes, or nothing at the end of the file or inside an unfinished plan.
std::optional<Bytes> read_plan(std::ifstream& file, const std::filesystem::path& path) {
  uint32_t size = 0;
  if (!file.read(reinterpret_cast<char*>(&size), sizeof size)) return std::nullopt;
  if (size > kMaxPlanBytes)
    fail(ErrorCode::kCorrupt, "{}: a plan of {} bytes, at most {}", path.string(), size, kMaxPlanBytes);
  Bytes bytes(size);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), size)) return std::nullopt;
  return bytes;
}

}  // namespace

PlanRecorder::PlanRecorder(const std::filesystem::path& path, const parallel::ClusterPlan& plan)
    : path_(path), file_(path, std::ios::binary | std::ios::trunc) {
  write(plan.encode());
}

void PlanRecorder::add(const parallel::StepPlan& plan) { write(plan.encode()); }

void PlanRecorder::write(const Bytes& bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  file_.write(reinterpret_cast<const char*>(&size), sizeof size);
  file_.write(reinterpret_cast<const char*>(bytes.data()), size);
  if (!file_.flush()) fail(ErrorCode::kSystem, "cannot write plans to {}", path_.string());
}

PlanRecording read_recording(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::kNotFound, "no recording of plans at {}", path.string());
  const auto cluster = read_plan(file, path);
  if (!cluster) fail(ErrorCode::kCorrupt, "{} holds no cluster plan", path.string());
  PlanRecording recording;
  recording.cluster = parallel::ClusterPlan::decode(*cluster);
  while (const auto step = read_plan(file, path)) recording.steps.push_back(parallel::StepPlan::decode(*step));
  return recording;
}

}  // namespace chorale::worker
