#include "comm/cuda/cuda_error.h"

namespace chorale {

bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case static_cast<cudaError_t>(226):  // cudaErrorContained, which older toolkits do not name
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorMpsRpcFailure:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown: return true;
    default: return false;
  }
}

void fail_cuda(cudaError_t status, const char* call) {
  cudaGetLastError();
  const ErrorCode code = status == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kSystem;
  fail(code, "{} failed: {} ({}){}", call, cudaGetErrorString(status), cudaGetErrorName(status),
       is_sticky(status)
           ? "; a kernel or the GPU failed earlier, and this process cannot use the GPU any more: start it "
             "again, and run scripts/gpu-check if it comes back"
           : "");
}

}  // namespace chorale
