#include "coordinator/model_services.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>

#include "comm/base/error.h"
#include "coordinator/api/tokenizer_text.h"
#include "parallel/checkpoint/gguf.h"

namespace chorale::coordinator {
namespace {

namespace fs = std::filesystem;

/// A template that somebody asked for must compile; the model's own may be for others.
std::string read_template(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::kNotFound, "--chat-template {}: cannot be opened", path);
  std::string source{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (const auto compiled = ChatTemplate::compile(source); !compiled)
    fail(ErrorCode::kInvalidArgument, "--chat-template {}: {}", path, compiled.failure().message);
  return source;
}

/// GGUF files without a vocabulary say so, or say nothing.
bool has_tokenizer(const std::string& model_path) {
  if (fs::is_directory(model_path)) return fs::exists(fs::path(model_path) / "tokenizer.json");
  const parallel::GgufFile file = parallel::GgufFile::open(model_path);
  const std::string* model = file.get_string("tokenizer.ggml.model");
  return model != nullptr && *model != "no_vocab" && *model != "none";
}

}  // namespace

ModelServices load_model_services(const std::string& model_path, const std::string& chat_template_file) {
  ModelServices services;
  if (!has_tokenizer(model_path)) return services;  // prompts of ids only
  services.tokenizer = Tokenizer::from_path(model_path);
  std::optional<std::string> source = services.tokenizer->chat_template();
  if (!chat_template_file.empty()) source = read_template(chat_template_file);
  services.text = api::make_tokenizer_text(services.tokenizer, source);
  return services;
}

std::shared_ptr<const api::ApiContext> make_api_context(const ModelServices& services,
                                                        const parallel::ClusterPlan& plan,
                                                        std::vector<std::string> served_names,
                                                        std::optional<uint64_t> seed) {
  auto context = std::make_shared<api::ApiContext>();
  if (served_names.empty()) served_names.push_back(plan.model_path);
  context->model.served_names = std::move(served_names);
  context->model.root = plan.model_path;
  context->model.max_model_len = plan.max_model_len;
  context->model.vocab_size = plan.config.vocab_size;
  context->model.created =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  context->text = services.text;
  if (seed) {
    struct Source {
      std::mutex mutex;
      std::mt19937_64 random;
    };
    auto source = std::make_shared<Source>();
    source->random.seed(*seed);
    context->draw_seed = [source] {
      const std::lock_guard lock(source->mutex);
      return source->random();
    };
  }
  return context;
}

}  // namespace chorale::coordinator
