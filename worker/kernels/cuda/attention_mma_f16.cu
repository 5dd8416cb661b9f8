// Attention on tensor cores over a f16 cache: attention_mma.cuh.
#include "worker/kernels/cuda/attention_mma_launch.cuh"

namespace chorale::worker {
namespace {

const KernelTable<AttentionArgs>::Add kAdd({"attention_mma_f16", kKernelDevice, parallel::Isa::kScalar, 10,
                                            attention_mma::supports<DType::kF16>, attention_mma::launch_as<Float16>});

}  // namespace
}  // namespace chorale::worker
