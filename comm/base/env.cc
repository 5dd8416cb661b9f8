#include "comm/base/env.h"

#include <cstdlib>

#include "comm/base/error.h"

namespace chorale {
namespace {

constexpr EnvVar kShown[] = {EnvVar::kSecret,         EnvVar::kApiKey,   EnvVar::kOmpiWorldSize,
                             EnvVar::kPmixRank,       EnvVar::kPmiRank,  EnvVar::kOmpiYieldWhenIdle,
                             EnvVar::kCublasLtPath,   EnvVar::kNcclPath, EnvVar::kEmulatorDevices,
                             EnvVar::kEmulatorStreams};

bool is_secret(EnvVar variable) { return variable == EnvVar::kSecret || variable == EnvVar::kApiKey; }

}  // namespace

std::string_view env_name(EnvVar variable) {
  switch (variable) {
    case EnvVar::kSecret: return "CHORALE_SECRET";
    case EnvVar::kApiKey: return "CHORALE_API_KEY";
    case EnvVar::kOmpiWorldSize: return "OMPI_COMM_WORLD_SIZE";
    case EnvVar::kPmixRank: return "PMIX_RANK";
    case EnvVar::kPmiRank: return "PMI_RANK";
    case EnvVar::kOmpiYieldWhenIdle: return "OMPI_MCA_mpi_yield_when_idle";
    case EnvVar::kCublasLtPath: return "CHORALE_CUBLASLT_PATH";
    case EnvVar::kNcclPath: return "CHORALE_NCCL_PATH";
    case EnvVar::kNcclCommBlocking: return "NCCL_COMM_BLOCKING";
    case EnvVar::kNcclMaxCtas: return "NCCL_MAX_CTAS";
    case EnvVar::kNcclMinCtas: return "NCCL_MIN_CTAS";
    case EnvVar::kNcclMaxNchannels: return "NCCL_MAX_NCHANNELS";
    case EnvVar::kNcclMinNchannels: return "NCCL_MIN_NCHANNELS";
    case EnvVar::kNcclMaxP2pNchannels: return "NCCL_MAX_P2P_NCHANNELS";
    case EnvVar::kNcclMinP2pNchannels: return "NCCL_MIN_P2P_NCHANNELS";
    case EnvVar::kNcclNchannelsPerNetPeer: return "NCCL_NCHANNELS_PER_NET_PEER";
    case EnvVar::kEmulatorDevices: return "CHORALE_EMULATOR_DEVICES";
    case EnvVar::kEmulatorStreams: return "CHORALE_EMULATOR_STREAMS";
    case EnvVar::kEmulatorFigures: return "CHORALE_EMULATOR_FIGURES";
    case EnvVar::kCudaHome: return "CUDA_HOME";
    case EnvVar::kCudaPath: return "CUDA_PATH";
    case EnvVar::kVirtualEnv: return "VIRTUAL_ENV";
    case EnvVar::kCondaPrefix: return "CONDA_PREFIX";
    case EnvVar::kHome: return "HOME";
    case EnvVar::kPath: return "PATH";
  }
  return "";
}

std::optional<std::string> env(EnvVar variable) {
  const char* value = std::getenv(std::string(env_name(variable)).c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

void set_env(EnvVar variable, const std::string& value) {
  if (setenv(std::string(env_name(variable)).c_str(), value.c_str(), 1) != 0)
    fail(ErrorCode::kSystem, "cannot set {} in the environment", env_name(variable));
}

std::vector<std::string> env_in_use() {
  std::vector<std::string> lines;
  for (EnvVar variable : kShown) {
    const auto value = env(variable);
    if (value) lines.push_back(fmt::format("{}={}", env_name(variable), is_secret(variable) ? "(hidden)" : *value));
  }
  return lines;
}

}  // namespace chorale
