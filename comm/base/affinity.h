// The cores that this process may use. Open MPI binds every rank to one core or socket by default, which would put all
// threads of a rank on one core.
#pragma once

namespace chorale {

/// Cores that this process may run on, at least 1.
int available_cores();

/// Gives the process the cores of the launcher that started it (mpirun or its daemon on this host, which is bound to
/// nothing narrower than the allocation). Without such a launcher nothing changes. Call before threads exist. Returns
/// available_cores() afterwards.
int widen_affinity_to_allocation();

}  // namespace chorale
