// Compiled where NCCL's header is found: what nccl_types.h says is what nccl.h says.
#if __has_include(<nccl.h>)
#include <nccl.h>

#include "comm/cuda/nccl_types.h"

namespace chorale::nccl {

static_assert(sizeof(Result) == sizeof(ncclResult_t) && kSuccess == ncclSuccess && kRemoteError == ncclRemoteError);
static_assert(kInProgress == ncclInProgress && kInt8 == ncclInt8 && kFloat32 == ncclFloat32 && kSum == ncclSum);
static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId) && sizeof(UniqueId) == NCCL_UNIQUE_ID_BYTES);
static_assert(sizeof(Config) <= sizeof(ncclConfig_t) && kUndefined == NCCL_CONFIG_UNDEF_INT);
static_assert(offsetof(Config, magic) == offsetof(ncclConfig_t, magic));
static_assert(offsetof(Config, version) == offsetof(ncclConfig_t, version));
static_assert(offsetof(Config, blocking) == offsetof(ncclConfig_t, blocking));
static_assert(offsetof(Config, max_ctas) == offsetof(ncclConfig_t, maxCTAs));
static_assert(offsetof(Config, net_name) == offsetof(ncclConfig_t, netName));
static_assert(offsetof(Config, split_share) == offsetof(ncclConfig_t, splitShare));

}  // namespace chorale::nccl
#endif
