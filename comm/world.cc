#include "comm/world.h"

#include "comm/backends/factories.h"
#include "comm/base/error.h"

namespace chorale::comm {

std::unique_ptr<Communicator> make_world(const MpiSession& session, const WorldOptions& options) {
  if (session.size() == 1) return make_single();
  WorldMap map = session.map();
  if (!options.host_of.empty()) {
    CHECK_EQ(options.host_of.size(), map.host_of.size());
    map.host_of = options.host_of;
  }
  const WorldBackend* best = nullptr;
  for (const WorldBackend& backend : Registry<WorldBackend>::all()) {
    if (!options.backend.empty() && backend.name != options.backend) continue;
    if (backend.fits(map) && (best == nullptr || backend.priority > best->priority)) best = &backend;
  }
  if (best == nullptr)
    fail(ErrorCode::kInvalidArgument, "communication backend '{}' does not fit {} ranks on {} hosts; there are {}",
         options.backend, map.size, map.num_hosts(), Registry<WorldBackend>::names());
  return best->make(make_mpi_world(), map, options);
}

}  // namespace chorale::comm
