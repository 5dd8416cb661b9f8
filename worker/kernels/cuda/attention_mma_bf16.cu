// Attention on tensor cores over a bf16 cache: attention_mma.cuh.
#include "worker/kernels/cuda/attention_mma_launch.cuh"

namespace chorale::worker {
namespace {

const KernelTable<AttentionArgs>::Add kAdd({"attention_mma_bf16", kKernelDevice, parallel::Isa::kScalar, 10,
                                            attention_mma::supports<DType::kBF16>, attention_mma::launch_as<BFloat16>});

}  // namespace
}  // namespace chorale::worker
