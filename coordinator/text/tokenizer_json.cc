// Loads tokenizer.json, the format of the Hugging Face `tokenizers` library, with what tokenizer_config.json adds to
// it.
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/text/bpe_model.h"
#include "coordinator/text/normalizer.h"
#include "coordinator/text/pipeline.h"
#include "coordinator/text/post_processor.h"
#include "coordinator/text/pre_tokenizer.h"
#include "coordinator/text/word_level_model.h"

namespace chorale::coordinator::text {
namespace {

/// added tokens -> normalizer -> normalised added tokens -> pre-tokenizer -> model -> post-processor
class JsonEncoder : public Encoder {
 public:
  explicit JsonEncoder(const AddedTokens& added) : added_(added) {}

  std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                              ParseSpecial parse_special) const override {
    std::vector<int32_t> ids;
    std::vector<Segment> segments;
    added_.split(text, AddedTokens::Stage::kRaw, parse_special, segments);
    for (const Segment& segment : segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_segment(segment.text, segment.text.data() == text.data(), parse_special, ids);
      }
    }
    if (add_special == AddSpecial::kYes) post_processor.apply(ids);
    return ids;
  }

  std::unique_ptr<const Normalizer> normalizer;
  std::unique_ptr<const PreTokenizer> pre_tokenizer;
  std::unique_ptr<const Model> model;
  PostProcessor post_processor;

 private:
  void encode_segment(std::string_view text, bool at_start, ParseSpecial parse_special,
                      std::vector<int32_t>& ids) const {
    std::string normalized;
    if (normalizer) {
      normalized = text;
      normalizer->apply(normalized);
      text = normalized;
    }
    std::vector<Segment> segments;
    added_.split(text, AddedTokens::Stage::kNormalized, parse_special, segments);
    for (const Segment& segment : segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      Pieces pieces;
      pieces.items.push_back({segment.text, at_start && segment.text.data() == text.data()});
      if (pre_tokenizer) pre_tokenizer->apply(pieces);
      for (const Piece& piece : pieces.items) model->encode(piece.text, ids);
    }
  }

  const AddedTokens& added_;
};

std::unique_ptr<const Model> make_model(const JsonAt& json, Vocabulary& vocabulary) {
  // Old files do not name the type; the fields tell.
  const std::string type = json.string_or("type", json.find("merges") ? "BPE" : "");
  if (type == "BPE") return make_bpe_model(json, vocabulary);
  if (type == "WordLevel") return make_word_level_model(json, vocabulary);
  fail(ErrorCode::kUnsupported,
       "{}.type: tokenizer model {} is not supported; supported are BPE (of GPT-2, Llama, Qwen, SmolLM and their like) "
       "and "
       "WordLevel",
       json.where(), type.empty() ? "without a type" : "'" + type + "'");
}

/// "<s>" or {"content": "<s>", ...}; nullopt for null and false.
std::optional<std::string> token_of(const JsonAt& json) {
  if (json.json().is_string()) return json.string();
  if (json.json().is_object()) return json.member("content").string();
  return std::nullopt;
}

/// The string, or "default" (else the first) of a list of named ones.
std::optional<std::string> template_of(const JsonAt& json) {
  if (json.json().is_string()) return json.string();
  std::optional<std::string> chosen;
  json.each([&](const JsonAt& item) {
    const bool is_default = item.member("name").string() == "default";
    if (is_default || !chosen) chosen = item.member("template").string();
  });
  return chosen;
}

void read_special_tokens(const JsonAt& config, Pipeline& pipeline) {
  if (!config.json().is_object()) config.bad("expected an object");
  for (const auto& [key, value] : config.json().items()) {
    if (!std::string_view(key).ends_with("_token") || value.is_boolean() || value.is_number()) continue;
    if (const auto token = token_of({value, config.where() + "." + key})) pipeline.special.strings[key] = *token;
  }
  if (const auto source = config.find("chat_template")) pipeline.chat_template = template_of(*source);
}

std::optional<int32_t> id_of(const Pipeline& pipeline, const std::string& key) {
  const auto text = pipeline.special.strings.find(key);
  return text == pipeline.special.strings.end() ? std::nullopt : pipeline.find(text->second);
}

void resolve_special_ids(Pipeline& pipeline) {
  SpecialTokens& special = pipeline.special;
  special.bos_id = id_of(pipeline, "bos_token");
  special.eos_id = id_of(pipeline, "eos_token");
  special.unk_id = id_of(pipeline, "unk_token");
  special.pad_id = id_of(pipeline, "pad_token");
  if (special.eos_id) special.eos_ids = {*special.eos_id};
  pipeline.special_ids.assign(static_cast<size_t>(pipeline.end_id()), false);
  for (const AddedToken& token : pipeline.added.all())
    pipeline.special_ids[static_cast<size_t>(token.id)] = token.special;
}

/// Tokenizers of the Llama classes rebuild their post-processor from add_bos_token and add_eos_token, where those are
/// given.
std::optional<PostProcessor> configured_post_processor(const JsonAt& config, const Pipeline& pipeline) {
  const std::string tokenizer_class = config.string_or("tokenizer_class", "");
  const bool honours = tokenizer_class.starts_with("Llama") || tokenizer_class.starts_with("CodeLlama") ||
                       tokenizer_class.starts_with("Gemma");
  if (!honours || !(config.find("add_bos_token") || config.find("add_eos_token"))) return std::nullopt;
  std::vector<int32_t> before;
  std::vector<int32_t> behind;
  if (config.boolean_or("add_bos_token", true) && pipeline.special.bos_id) before.push_back(*pipeline.special.bos_id);
  if (config.boolean_or("add_eos_token", false) && pipeline.special.eos_id) behind.push_back(*pipeline.special.eos_id);
  return PostProcessor(std::move(before), std::move(behind));
}

}  // namespace

std::unique_ptr<Pipeline> load_tokenizer_json(std::string_view json, const std::string& name,
                                              const std::vector<JsonAt>& configs) {
  const nlohmann::json parsed = parse_json(json, name);
  const JsonAt root(parsed, name);
  const JsonAt model = root.member("model");
  if (!model.json().is_object())
    model.bad(
        fmt::format("expected an object, found {}; a tokenizer.json of Hugging Face is read, not a vocabulary alone",
                    model.json().type_name()));
  auto pipeline = std::make_unique<Pipeline>();
  auto encoder = std::make_unique<JsonEncoder>(pipeline->added);
  encoder->model = make_model(model, pipeline->vocabulary);
  if (const auto normalizer = root.find("normalizer")) encoder->normalizer = make_normalizer(*normalizer);
  if (const auto pre_tokenizer = root.find("pre_tokenizer"))
    encoder->pre_tokenizer = make_pre_tokenizer(*pre_tokenizer);
  if (const auto decoder = root.find("decoder")) pipeline->decoder = Decoder(*decoder);
  const nlohmann::json none = nlohmann::json::array();
  pipeline->added.load(root.find("added_tokens").value_or(JsonAt(none, name)), pipeline->vocabulary,
                       encoder->normalizer.get());
  if (const auto post_processor = root.find("post_processor"))
    encoder->post_processor = PostProcessor(*post_processor, pipeline->end_id());
  for (const JsonAt& config : configs) read_special_tokens(config, *pipeline);
  resolve_special_ids(*pipeline);
  for (const JsonAt& config : configs)
    if (auto configured = configured_post_processor(config, *pipeline))
      encoder->post_processor = std::move(*configured);
  pipeline->encoder = std::move(encoder);
  return pipeline;
}

}  // namespace chorale::coordinator::text
