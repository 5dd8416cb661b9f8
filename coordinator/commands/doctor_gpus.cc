#include "coordinator/commands/doctor_gpus.h"

#include <fmt/format.h>

namespace chorale::coordinator {
namespace {

double gib(uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << 30); }

Finding none_of(const DeviceSurvey& survey) {
  const Verdict verdict = survey.absence == DeviceAbsence::kNoDriver ? Verdict::kOk : Verdict::kWarn;
  return {verdict, "gpu", survey.problem + ": the CPU computes", survey.advice};
}

std::string links(const DeviceFacts& facts) {
  if (!facts.num_nvlinks) return "NVLink unknown";
  return *facts.num_nvlinks == 0 ? "no NVLink" : fmt::format("{} NVLinks", *facts.num_nvlinks);
}

/// Numbers of the devices it cannot read directly.
std::vector<size_t> strangers(const DeviceFacts& facts) {
  std::vector<size_t> list;
  for (size_t other = 0; other < facts.peer_access.size(); ++other)
    if (facts.peer_access[other] == 0) list.push_back(other);
  return list;
}

std::string peers(const DeviceFacts& facts) {
  if (facts.peer_access.size() <= 1) return "no other GPU";
  const std::vector<size_t> without = strangers(facts);
  if (without.empty()) return fmt::format("peer access to all {} others", facts.peer_access.size() - 1);
  return fmt::format("no peer access to {}", fmt::join(without, " "));
}

Finding one_gpu(const DeviceEntry& gpus, int index) {
  const std::string subject = fmt::format("gpu {}", index);
  const auto facts = gpus.facts(index);
  if (!facts)
    return {Verdict::kFail, subject, facts.failure().message,
            "run nvidia-smi: another process may use it alone, or the driver is broken; CUDA_VISIBLE_DEVICES leaves it "
            "out"};
  const std::string fact = fmt::format("{}, {}, {} multiprocessors, {:.1f} of {:.1f} GiB free, {}, {}", facts->name,
                                       facts->arithmetic, facts->num_multiprocessors, gib(facts->memory.free_bytes),
                                       gib(facts->memory.total_bytes), links(*facts), peers(*facts));
  if (facts->memory.free_bytes < facts->memory.total_bytes / 2)
    return {Verdict::kWarn, subject, fact, "another process holds most of its memory: see nvidia-smi"};
  if (!strangers(*facts).empty())
    return {Verdict::kWarn, subject, fact, "activations between those GPUs go through the host's memory"};
  return {Verdict::kOk, subject, fact, ""};
}

/// Without a GPU nobody misses a library. One that is there, or named, and cannot be used is told all the same.
Finding one_library(const LibraryEntry& library, int num_gpus) {
  const auto found = library.find();
  const std::string subject(library.name);
  if (found) return {Verdict::kOk, subject, fmt::format("{} in {}", found->version, found->path), ""};
  if (num_gpus == 0 && found.failure().code == ErrorCode::kNotFound)
    return {Verdict::kOk, subject, "none found, and none needed without a GPU", ""};
  return {Verdict::kWarn, subject, found.failure().message, std::string(library.without)};
}

/// Support, driver and each device.
std::vector<Finding> check_devices(const DeviceEntry* gpus, const DeviceSurvey& survey) {
  if (gpus == nullptr)
    return {{Verdict::kOk, "gpu", "this build is without GPU support: the CPU computes",
             "for GPUs build where CUDA's nvcc is in PATH, or with CUDA_HOME set"}};
  if (survey.num_devices == 0) return {none_of(survey)};
  std::vector<Finding> findings;
  if (const auto first = gpus->facts(0))
    findings.push_back(
        {Verdict::kOk, "gpu",
         fmt::format("{} here, driver for {}, built with {}", survey.num_devices, first->driver, first->runtime), ""});
  for (int i = 0; i < survey.num_devices; ++i) findings.push_back(one_gpu(*gpus, i));
  return findings;
}

}  // namespace

std::vector<Finding> check_gpus(const DeviceEntry* gpus, std::span<const LibraryEntry> libraries) {
  const DeviceSurvey survey = gpus == nullptr ? DeviceSurvey{} : gpus->survey();
  std::vector<Finding> findings = check_devices(gpus, survey);
  for (const LibraryEntry& library : libraries) findings.push_back(one_library(library, survey.num_devices));
  return findings;
}

}  // namespace chorale::coordinator
