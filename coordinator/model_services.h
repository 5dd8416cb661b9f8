// What the coordinator loads of a model besides its shapes: tokenizer and chat template, and the context that request
// parsing needs. Used by serve, generate and benches; the weights are the workers' business.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/request.h"
#include "coordinator/text/tokenizer.h"
#include "parallel/cluster_plan.h"

namespace chorale::coordinator {

struct ModelServices {
  std::shared_ptr<const Tokenizer> tokenizer;  // null: the model folder has none
  std::shared_ptr<const api::ModelText> text;  // null with it
};

/// Loads what `model_path` has. A folder without a tokenizer.json serves prompts of ids only. `chat_template_file`
/// overrides the model's own template. Throws Error.
ModelServices load_model_services(const std::string& model_path, const std::string& chat_template_file);

/// The context of a running world. `served_names` may be empty: then the model's path is its name. With `seed`, the
/// seeds of jobs that give none are drawn from it, in order of arrival; else they cannot be guessed.
std::shared_ptr<const api::ApiContext> make_api_context(const ModelServices& services,
                                                        const parallel::ClusterPlan& plan,
                                                        std::vector<std::string> served_names,
                                                        std::optional<uint64_t> seed);

}  // namespace chorale::coordinator
