#include "comm/cuda/cuda_survey.h"

#include <cuda_runtime_api.h>

#include "comm/base/shared_library.h"
#include "comm/cuda/cuda_error.h"

namespace chorale {
namespace {

constexpr int kOldestCapability = 80;  // of the fat binary

/// 13000 -> "CUDA 13.0"
std::string cuda_version(int version) { return fmt::format("CUDA {}.{}", version / 1000, version % 1000 / 10); }

int attribute(int ordinal, cudaDeviceAttr which) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, which, ordinal), "cudaDeviceGetAttribute");
  return value;
}
int capability(int ordinal) {
  return 10 * attribute(ordinal, cudaDevAttrComputeCapabilityMajor) +
         attribute(ordinal, cudaDevAttrComputeCapabilityMinor);
}

int peer_attribute(int from, int to, cudaDeviceP2PAttr which) {
  int value = 0;
  check_cuda(cudaDeviceGetP2PAttribute(&value, which, from, to), "cudaDeviceGetP2PAttribute");
  return value;
}

/// The driver's management library: its own version and NVLink, which the runtime does not tell. It comes with the
/// driver; without it both are unknown. Its functions and codes are stable by contract (NVML API reference).
class Nvml {
 public:
  Nvml() : library_(SharedLibrary::open("libnvidia-ml.so.1")) {
    if (!library_) return;
    const auto init = library_->function<int (*)()>("nvmlInit_v2");
    is_up_ = init != nullptr && init() == kSuccess;
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;
  ~Nvml() {
    if (!is_up_) return;
    if (const auto shut_down = library_->function<int (*)()>("nvmlShutdown")) shut_down();
  }

  /// "580.82.07", or empty.
  std::string driver_version() const {
    if (!is_up_) return {};
    char text[96] = {};
    const auto get = library_->function<int (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
    return get != nullptr && get(text, sizeof text) == kSuccess ? text : "";
  }
  std::optional<int> num_nvlinks(const char* pci_bus_id) const {
    if (!is_up_) return std::nullopt;
    const auto find = library_->function<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
    const auto state = library_->function<int (*)(void*, unsigned, int*)>("nvmlDeviceGetNvLinkState");
    void* device = nullptr;
    if (find == nullptr || state == nullptr || find(pci_bus_id, &device) != kSuccess) return std::nullopt;
    int count = 0;
    for (unsigned link = 0; link < kMaxLinks; ++link) {
      int active = 0;
      if (state(device, link, &active) == kSuccess && active != 0) ++count;
    }
    return count;
  }

 private:
  static constexpr int kSuccess = 0;
  static constexpr unsigned kMaxLinks = 18;  // NVML_NVLINK_MAX_LINKS
  Result<SharedLibrary> library_;
  bool is_up_ = false;
};

DeviceSurvey too_old_gpus(int num_devices) {
  return {.absence = DeviceAbsence::kNoDevice,
          .problem = fmt::format("none of the {} NVIDIA GPUs here has compute capability {}.{} or newer", num_devices,
                                 kOldestCapability / 10, kOldestCapability % 10),
          .advice = "use the CPU (--device cpu) or a GPU of the Ampere generation or later"};
}

std::string advice_for(int status) {
  switch (status) {
    case cudaErrorSystemNotReady: return "start the fabric manager (systemctl start nvidia-fabricmanager)";
    case cudaErrorSystemDriverMismatch:
      return "the kernel's driver module and libcuda.so differ in version: restart the host after the driver's update";
    case cudaErrorCompatNotSupportedOnDevice:
      return "CUDA's compatibility package is in LD_LIBRARY_PATH, which only data centre GPUs support: remove it or "
             "update the driver";
    default: return "run nvidia-smi: where it fails too, the driver is broken; see the host's kernel log";
  }
}

}  // namespace

DeviceSurvey interpret_survey(int status, int num_devices, int driver_version) {
  if (status == cudaSuccess && num_devices > 0) return {.num_devices = num_devices};
  if (driver_version == 0)
    return {.absence = DeviceAbsence::kNoDriver,
            .problem = "no NVIDIA driver (libcuda.so.1) here",
            .advice = "for a GPU install NVIDIA's driver; in a container start it with --gpus all"};
  if (status == cudaErrorInsufficientDriver)
    return {.absence = DeviceAbsence::kDriverTooOld,
            .problem = fmt::format("the NVIDIA driver is for {}, this program needs one for {} or newer",
                                   cuda_version(driver_version), cuda_version(CUDART_VERSION)),
            .advice = "update the driver, or build Chorale with an older CUDA toolkit"};
  if (status == cudaErrorNoDevice || (status == cudaSuccess && num_devices == 0))
    return {.absence = DeviceAbsence::kNoDevice,
            .problem = fmt::format("there is an NVIDIA driver ({}) but no GPU", cuda_version(driver_version)),
            .advice = "look at nvidia-smi and CUDA_VISIBLE_DEVICES; in a container start it with --gpus all"};
  const auto error = static_cast<cudaError_t>(status);
  return {.absence = DeviceAbsence::kBroken,
          .problem = fmt::format("the NVIDIA driver ({}) does not work: {} ({})", cuda_version(driver_version),
                                 cudaGetErrorString(error), cudaGetErrorName(error)),
          .advice = advice_for(status)};
}

std::vector<int> usable_gpus() {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  std::vector<int> ordinals;
  for (int i = 0; i < count; ++i)
    if (capability(i) >= kOldestCapability) ordinals.push_back(i);
  return ordinals;
}

DeviceSurvey survey_gpus() {
  int count = 0, driver = 0;  // without a driver the runtime leaves the count as it was
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  DeviceSurvey survey = interpret_survey(status, count, driver);
  if (survey.num_devices == 0) return survey;
  try {
    survey.num_devices = static_cast<int>(usable_gpus().size());
    return survey.num_devices > 0 ? survey : too_old_gpus(count);
  } catch (const Error& error) {
    return {.absence = DeviceAbsence::kBroken, .problem = error.what(), .advice = advice_for(cudaErrorUnknown)};
  }
}

Result<DeviceFacts> gpu_facts(int index) {
  try {
    const std::vector<int> gpus = usable_gpus();
    const int ordinal = gpus.at(index);
    const std::unique_ptr<Device> device = open_device(DeviceKind::kCuda, index);
    DeviceFacts facts{.name = device->name(), .arithmetic = device->arithmetic(), .memory = device->memory()};
    facts.compute_capability = capability(ordinal);
    facts.num_multiprocessors = attribute(ordinal, cudaDevAttrMultiProcessorCount);
    for (int other : gpus)
      facts.peer_access.push_back(
          other == ordinal || peer_attribute(ordinal, other, cudaDevP2PAttrAccessSupported) != 0 ? 1 : 0);
    int driver = 0;
    check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    char bus_id[32] = {};
    check_cuda(cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, ordinal), "cudaDeviceGetPCIBusId");
    const Nvml nvml;
    const std::string version = nvml.driver_version();
    facts.driver = cuda_version(driver) + (version.empty() ? "" : ", " + version);
    facts.runtime = cuda_version(CUDART_VERSION);
    facts.num_nvlinks = nvml.num_nvlinks(bus_id);
    return facts;
  } catch (const Error& error) {
    return Failure{error.code(), error.what(), ""};
  }
}

}  // namespace chorale
