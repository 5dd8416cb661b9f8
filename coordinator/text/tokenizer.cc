#include "coordinator/text/tokenizer.h"

#include <array>
#include <fstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "coordinator/text/pipeline.h"
#include "coordinator/text/unicode.h"
#include "parallel/checkpoint/gguf.h"

namespace chorale::coordinator {
namespace {

namespace fs = std::filesystem;
using text::JsonAt;
using text::Pipeline;

constexpr uintmax_t kMaxFileBytes = 512u << 20;

std::string read_file(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) fail(ErrorCode::kNotFound, "cannot read {}: {}", path.string(), error.message());
  if (size > kMaxFileBytes)
    fail(ErrorCode::kCorrupt, "{} has {} bytes; a tokenizer file of more than {} is refused", path.string(), size,
         kMaxFileBytes);
  std::ifstream in(path, std::ios::binary);
  std::string bytes(size, '\0');
  if (!in.read(bytes.data(), static_cast<std::streamsize>(size)))
    fail(ErrorCode::kSystem, "cannot read {}", path.string());
  return bytes;
}

bool is_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream in(path, std::ios::binary);
  in.read(magic.data(), magic.size());
  return path.extension() == ".gguf" || (in && std::string_view(magic.data(), magic.size()) == "GGUF");
}

/// tokenizer_config.json beside tokenizer.json, x.tokenizer_config.json beside x.tokenizer.json; nullopt beside other
/// names.
std::optional<fs::path> companion(const fs::path& tokenizer, std::string_view name) {
  constexpr std::string_view kTokenizer = "tokenizer.json";
  const std::string file = tokenizer.filename().string();
  if (!file.ends_with(kTokenizer)) return std::nullopt;
  return tokenizer.parent_path() / (file.substr(0, file.size() - kTokenizer.size()) + std::string(name));
}

std::unique_ptr<Pipeline> load_json_file(const fs::path& path) {
  std::vector<nlohmann::json> parsed;
  std::vector<std::string> names;
  for (const std::string_view name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    const auto config = companion(path, name);
    if (!config || !fs::is_regular_file(*config)) continue;
    parsed.push_back(text::parse_json(read_file(*config), config->string()));
    names.push_back(config->string());
  }
  std::vector<JsonAt> configs;
  for (size_t i = 0; i < parsed.size(); ++i) configs.emplace_back(parsed[i], names[i]);
  const std::string json = read_file(path);
  if (const size_t first = json.find_first_not_of(" \t\r\n"); first == std::string::npos || json[first] != '{')
    fail(ErrorCode::kUnsupported,
         "{} is no tokenizer.json of Hugging Face (a JSON object) and no GGUF file; SentencePiece .model, tiktoken, "
         "vocabulary and merges files are not read: save the tokenizer as tokenizer.json",
         path.string());
  auto pipeline = text::load_tokenizer_json(json, path.string(), configs);
  const auto chat_template = companion(path, "chat_template.jinja");
  if (chat_template && fs::is_regular_file(*chat_template)) pipeline->chat_template = read_file(*chat_template);
  return pipeline;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Pipeline> pipeline) : pipeline_(std::move(pipeline)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::from_path(const fs::path& path) {
  const bool folder = fs::is_directory(path);
  const fs::path file = folder ? path / "tokenizer.json" : path;
  if (!fs::is_regular_file(file))
    fail(ErrorCode::kNotFound, "{} does not exist; {}", file.string(),
         folder ? "a model folder needs it to read and write text"
                : "expected a model folder, a tokenizer .json file or a GGUF file");
  if (is_gguf(file)) return from_gguf(parallel::GgufFile::open(file), file.string());
  return std::shared_ptr<const Tokenizer>(new Tokenizer(load_json_file(file)));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view json, const std::string& name) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(text::load_tokenizer_json(json, name, {})));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const parallel::GgufFile& file, const std::string& name) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(text::load_tokenizer_gguf(file, name)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, AddSpecial add_special,
                                       ParseSpecial parse_special) const {
  if (text::is_valid_utf8(text)) return pipeline_->encoder->encode(text, add_special, parse_special);
  return pipeline_->encoder->encode(text::to_valid_utf8(text), add_special, parse_special);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, SkipSpecial skip_special) const {
  text::DecodeChain chain(pipeline_->decoder);
  for (const int32_t id : ids)
    if (pipeline_->contains(id) && (skip_special == SkipSpecial::kNo || !pipeline_->is_special(id)))
      chain.push(pipeline_->decoder_input(id));
  chain.finish();
  return chain.take();
}

const std::string& Tokenizer::token_text(int32_t id) const { return pipeline_->token_text(id); }

std::string Tokenizer::token_bytes(int32_t id) const {
  if (!pipeline_->contains(id)) return {};
  const std::string& input = pipeline_->decoder_input(id);
  return pipeline_->pieces.empty() && !pipeline_->is_special(id) ? pipeline_->decoder.bytes_inside(input) : input;
}

bool Tokenizer::is_special(int32_t id) const { return pipeline_->is_special(id); }
int32_t Tokenizer::vocab_size() const { return pipeline_->end_id(); }
std::optional<int32_t> Tokenizer::find(std::string_view token) const { return pipeline_->find(token); }
const SpecialTokens& Tokenizer::special() const { return pipeline_->special; }
const std::optional<std::string>& Tokenizer::chat_template() const { return pipeline_->chat_template; }

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, SkipSpecial skip_special,
                             std::span<const int32_t> prompt)
    : tokenizer_(std::move(tokenizer)),
      skip_special_(skip_special),
      chain_(std::make_unique<text::DecodeChain>(tokenizer_->pipeline_->decoder)) {
  // The last token with text is enough: what comes before it changes nothing behind it.
  for (size_t i = prompt.size(); i-- > 0;) {
    if (tokenizer_->is_special(prompt[i]) || tokenizer_->token_text(prompt[i]).empty()) continue;
    push(prompt[i]);
    chain_->cut();
    chain_->take();
    break;
  }
}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  const Pipeline& pipeline = *tokenizer_->pipeline_;
  if (!pipeline.contains(id) || (skip_special_ == SkipSpecial::kYes && pipeline.is_special(id))) return {};
  chain_->push(pipeline.decoder_input(id));
  return chain_->take();
}

std::string StreamDecoder::finish() {
  chain_->finish();
  return chain_->take();
}

}  // namespace chorale::coordinator
