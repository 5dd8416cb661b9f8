#include "worker/models/model.h"

#include "comm/base/error.h"

namespace chorale::worker {

std::unique_ptr<Model> make_model(const StageParts& parts) {
  const ModelEntry* entry = ModelRegistry::find(parts.config.architecture);
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "model \"{}\" is not built in; known: {}", parts.config.architecture,
         ModelRegistry::names());
  return entry->make(parts);
}

}  // namespace chorale::worker
