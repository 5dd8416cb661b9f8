// What a user asks of a world of the toy model (tests/support/toy_model.h), for tests of who gets what.
#pragma once

#include "coordinator/make_cluster_plan.h"

namespace chorale::coordinator {

inline ClusterRequest toy_request(int tp, int pp) {
  ClusterRequest request;
  request.model_path = "m";
  request.layout.tp = tp;
  request.layout.pp = pp;
  return request;
}

}  // namespace chorale::coordinator
