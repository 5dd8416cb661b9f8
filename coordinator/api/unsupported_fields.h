// The fields of OpenAI's and vLLM's APIs that would change the answer and that nothing here implements. They are
// refused by name unless they hold the value that changes nothing; fields that nobody knows are ignored.
#pragma once

#include "coordinator/api/fields.h"
#include "coordinator/api/request.h"

namespace chorale::coordinator::api {

/// Rejects the first such field of the body with kUnsupported.
void reject_unsupported_fields(const Json& body, Endpoint endpoint, Fields& fields);

}  // namespace chorale::coordinator::api
