#include "worker/plan_recording.h"

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {

constexpr uint32_t kMaxPlanBytes = 64u << 20;  // as on the control link

// Reads plan after plan; knows where it is, for messages.
class RecordingFile {
 public:
  explicit RecordingFile(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
    std::error_code error;
    rest_ = std::filesystem::file_size(path, error);
    if (!file_ || error) fail(ErrorCode::kNotFound, "no recording of plans at {}", path.string());
  }

  // Nothing at the end of the file, and inside an unfinished plan: then torn() says so.
  template <typename Plan>
  std::optional<Plan> next() {
    if (rest_ == 0) return std::nullopt;
    uint32_t size = 0;
    if (rest_ < sizeof size || !file_.read(reinterpret_cast<char*>(&size), sizeof size)) return tear<Plan>();
    rest_ -= sizeof size;
    if (size > kMaxPlanBytes)
      fail(ErrorCode::kCorrupt, "{} is no recording of plans: plan {} has {} bytes, at most {}", path_.string(),
           num_plans_, size, kMaxPlanBytes);
    if (rest_ < size) return tear<Plan>();
    Bytes bytes(size);
    if (!file_.read(reinterpret_cast<char*>(bytes.data()), size)) return tear<Plan>();
    rest_ -= size;
    try {
      Plan plan = Plan::decode(bytes);
      ++num_plans_;
      return plan;
    } catch (const Error& error) {
      fail(ErrorCode::kCorrupt, "{} is no recording of plans: plan {}: {}", path_.string(), num_plans_, error.what());
    }
  }
  const std::string& torn() const { return torn_; }

 private:
  template <typename Plan>
  std::optional<Plan> tear() {
    torn_ = fmt::format("{} ends inside plan {}", path_.string(), num_plans_);
    return std::nullopt;
  }

  const std::filesystem::path& path_;
  std::ifstream file_;
  uint64_t rest_ = 0;  // bytes not read yet
  int64_t num_plans_ = 0;
  std::string torn_;
};

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
  RecordingFile file(path);
  auto cluster = file.next<parallel::ClusterPlan>();
  if (!cluster)
    fail(ErrorCode::kCorrupt, "{} is no recording of plans: it ends before the cluster plan does", path.string());
  PlanRecording recording;
  recording.cluster = std::move(*cluster);
  while (auto step = file.next<parallel::StepPlan>()) recording.steps.push_back(std::move(*step));
  recording.torn = file.torn();
  return recording;
}

}  // namespace chorale::worker
