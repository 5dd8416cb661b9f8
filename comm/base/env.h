// Every environment variable that the program reads, in one place. Nobody else calls getenv.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chorale {

enum class EnvVar {
  kSecret,             // CHORALE_SECRET: shared secret of the control link, where no --secret-file is given
  kApiKey,             // CHORALE_API_KEY: a key that clients must show, besides --api-key
  kOmpiWorldSize,      // OMPI_COMM_WORLD_SIZE: set by Open MPI's mpirun
  kPmixRank,           // PMIX_RANK: set by mpirun and by srun --mpi=pmix
  kPmiRank,            // PMI_RANK: set by srun --mpi=pmi2
  kOmpiYieldWhenIdle,  // OMPI_MCA_mpi_yield_when_idle: set before MPI starts, unless the user did
  kCublasLtPath,       // CHORALE_CUBLASLT_PATH: libcublasLt.so.13 or .12, or its folder, instead of looking for it
  kNcclPath,           // CHORALE_NCCL_PATH: libnccl.so.2, or its folder, instead of looking for it
  kNcclCommBlocking,   // NCCL_COMM_BLOCKING=1 is refused: NCCL's calls would wait without a deadline
  // How many thread blocks of a GPU NCCL takes: where one is set, Chorale asks for no number.
  kNcclMaxCtas,              // NCCL_MAX_CTAS
  kNcclMinCtas,              // NCCL_MIN_CTAS
  kNcclMaxNchannels,         // NCCL_MAX_NCHANNELS
  kNcclMinNchannels,         // NCCL_MIN_NCHANNELS
  kNcclMaxP2pNchannels,      // NCCL_MAX_P2P_NCHANNELS
  kNcclMinP2pNchannels,      // NCCL_MIN_P2P_NCHANNELS
  kNcclNchannelsPerNetPeer,  // NCCL_NCHANNELS_PER_NET_PEER
  kEmulatorDevices,  // CHORALE_EMULATOR_DEVICES=0000:01:00.0/a,...: for tests: PCI address and UUID of each device
  kEmulatorStreams,  // CHORALE_EMULATOR_STREAMS=late: for tests; see comm/base/emulator_queue.h
  kEmulatorFigures,  // CHORALE_EMULATOR_FIGURES=1: for tests; bench engine measures the emulator as it does a GPU
  kCudaHome,         // CUDA_HOME, CUDA_PATH: the CUDA toolkit, where libraries are looked for
  kCudaPath,
  kVirtualEnv,   // VIRTUAL_ENV, CONDA_PREFIX: active Python environments; their nvidia-* wheels are looked into
  kCondaPrefix,  //
  kHome,         // HOME, PATH: likewise, for the Pythons there
  kPath,
};
std::string_view env_name(EnvVar variable);

/// Its value, or nothing when it is not set or empty.
std::optional<std::string> env(EnvVar variable);
/// Sets it for this process and those it starts. Call before threads exist.
void set_env(EnvVar variable, const std::string& value);

/// "NAME=value" of those that are set, for the log; the secret's value is hidden, and what every shell sets is left
/// out.
std::vector<std::string> env_in_use();

}  // namespace chorale
