// Loads a tokenizer from GGUF metadata (tokenizer.ggml.*) and encodes as llama.cpp does: byte-level BPE ("gpt2") and
// SentencePiece BPE
// ("llama"). Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include <algorithm>
#include <array>

#include "comm/base/error.h"
#include "coordinator/text/bpe_model.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/gguf_pre_tokenizer.h"
#include "coordinator/text/marks.h"
#include "coordinator/text/pipeline.h"
#include "coordinator/text/post_processor.h"
#include "coordinator/text/pre_tokenizer.h"
#include "coordinator/text/spm_model.h"
#include "coordinator/text/unicode.h"
#include "parallel/checkpoint/gguf.h"

namespace chorale::coordinator::text {
namespace {

enum class TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// Tokens that llama.cpp treats as control tokens by their text, whatever type the file gives them.
constexpr std::array<std::string_view, 42> kControlTexts = {"<|eot_id|>",
                                                            "<|im_end|>",
                                                            "<|end|>",
                                                            "<end_of_turn>",
                                                            "<|endoftext|>",
                                                            "<|end_of_text|>",
                                                            "<EOT>",
                                                            "_<EOT>",
                                                            "[EOT]",
                                                            "[EOS]",
                                                            "<end_of_utterance>",
                                                            "<|eom_id|>",
                                                            "<|return|>",
                                                            "<|call|>",
                                                            "<eos>",
                                                            "</s>",
                                                            "<turn|>",
                                                            "<|fim_prefix|>",
                                                            "<fim-prefix>",
                                                            "<fim_prefix>",
                                                            "<PRE>",
                                                            "▁<PRE>",
                                                            "<|code_prefix|>",
                                                            "<|fim_suffix|>",
                                                            "<fim-suffix>",
                                                            "<fim_suffix>",
                                                            "<SUF>",
                                                            "▁<SUF>",
                                                            "<|code_suffix|>",
                                                            "<|fim_middle|>",
                                                            "<fim-middle>",
                                                            "<fim_middle>",
                                                            "<MID>",
                                                            "▁<MID>",
                                                            "<|code_middle|>",
                                                            "<|fim_pad|>",
                                                            "<fim-pad>",
                                                            "<fim_pad>",
                                                            "<|fim_repo|>",
                                                            "<|repo_name|>",
                                                            "<reponame>",
                                                            "<|file_sep|>"};
/// Control tokens that end a turn, for files that do not give tokenizer.ggml.eot_token_id.
constexpr std::array<std::string_view, 5> kTurnEnds = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",
                                                       "<end_of_utterance>"};

bool is_control(TokenType type) { return type == TokenType::kControl || type == TokenType::kUnknown; }

/// special tokens -> (blanks become marks) -> pre-tokenizer -> model -> BOS and EOS
class GgufEncoder : public Encoder {
 public:
  struct SpecialText {
    int32_t id;
    std::string text;
    bool control;
  };

  std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                              ParseSpecial parse_special) const override {
    std::vector<int32_t> ids;
    bool behind_special = true;
    for (const Segment& segment : partition(text, parse_special)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_text(segment.text, behind_special, ids);
      }
      behind_special = segment.id >= 0;
    }
    if (add_special == AddSpecial::kYes) post_processor.apply(ids);
    return ids;
  }

  /// Longest first: a token is searched in what longer ones have left, wherever it stands.
  void set_special_texts(std::vector<SpecialText> texts) {
    specials_ = std::move(texts);
    std::stable_sort(specials_.begin(), specials_.end(),
                     [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
    for (size_t i = 0; i < specials_.size(); ++i) search_.add(specials_[i].text, i);
  }

  std::unique_ptr<const PreTokenizer> pre_tokenizer;  // nullptr: SentencePiece
  std::unique_ptr<const Model> model;
  PostProcessor post_processor;
  bool add_space_prefix = false;

 private:
  std::vector<Segment> partition(std::string_view text, ParseSpecial parse_special) const {
    std::vector<Segment> segments;
    if (!text.empty()) segments.push_back({-1, text});
    for (const size_t index : search_.occurring(text)) {
      const SpecialText& special = specials_[index];
      if (special.control && parse_special == ParseSpecial::kNo) continue;
      std::vector<Segment> parts;
      for (const Segment& segment : segments) {
        if (segment.id >= 0) {
          parts.push_back(segment);
          continue;
        }
        size_t covered = 0;
        for (size_t at; (at = segment.text.find(special.text, covered)) != std::string_view::npos;) {
          if (at > covered) parts.push_back({-1, segment.text.substr(covered, at - covered)});
          parts.push_back({special.id, {}});
          covered = at + special.text.size();
        }
        if (covered < segment.text.size()) parts.push_back({-1, segment.text.substr(covered)});
      }
      segments = std::move(parts);
    }
    return segments;
  }

  void encode_text(std::string_view text, bool behind_special, std::vector<int32_t>& ids) const {
    if (pre_tokenizer) {
      Pieces pieces;
      pieces.items.push_back({text, false});
      pre_tokenizer->apply(pieces);
      for (const Piece& piece : pieces.items) model->encode(piece.text, ids);
      return;
    }
    std::string marked;
    marked.reserve(text.size() + text.size() / 2);
    if (add_space_prefix && behind_special) marked.append(kMark);
    for (const char c : text) c == ' ' ? marked.append(kMark) : marked.append(1, c);
    model->encode(marked, ids);
  }

  std::vector<SpecialText> specials_;
  StringSearch search_;
};

/// Reads one file.
class GgufLoader {
 public:
  GgufLoader(const parallel::GgufFile& file, const std::string& name) : file_(file), name_(name) {}

  std::unique_ptr<Pipeline> load() {
    const std::string* model = file_.get_string("tokenizer.ggml.model");
    if (model == nullptr)
      fail(ErrorCode::kNotFound, "{}: no tokenizer in the file: tokenizer.ggml.model is missing", name_);
    if (*model != "gpt2" && *model != "llama")
      fail(ErrorCode::kUnsupported,
           "{}: tokenizer.ggml.model: tokenizer model '{}' is not supported; supported are gpt2 (byte-level BPE) and "
           "llama (SentencePiece-style BPE)",
           name_, *model);
    is_spm_ = *model == "llama";
    read_tokens();
    read_special_ids();
    is_spm_ ? load_spm() : load_bpe();
    finish_encoder();
    fill_pieces();
    if (const std::string* source = file_.get_string("tokenizer.chat_template")) pipeline_->chat_template = *source;
    pipeline_->encoder = std::move(encoder_);
    return std::move(pipeline_);
  }

 private:
  size_t num_tokens() const { return static_cast<size_t>(pipeline_->vocabulary.end_id()); }

  void read_tokens() {
    const auto* tokens = file_.get_strings("tokenizer.ggml.tokens");
    if (tokens == nullptr || tokens->empty())
      fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.tokens is missing or empty", name_);
    const auto* types = file_.get_ints("tokenizer.ggml.token_type");
    if (types != nullptr && types->size() < tokens->size())
      fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.token_type has {} entries for {} tokens", name_, types->size(),
           tokens->size());
    for (size_t i = 0; i < tokens->size(); ++i) {
      std::string token = (*tokens)[i];
      if (token.empty()) token = fmt::format("[EMPTY_{}]", i);
      if (!is_valid_utf8(token)) fail(ErrorCode::kCorrupt, "{}: token {} is not UTF-8", name_, i);
      const auto type = types != nullptr ? static_cast<TokenType>((*types)[i]) : TokenType::kNormal;
      const bool control = std::find(kControlTexts.begin(), kControlTexts.end(), token) != kControlTexts.end();
      types_.push_back(control ? TokenType::kControl : type);
      pipeline_->vocabulary.add(std::move(token), static_cast<int64_t>(i), tokens->size(), name_);
    }
    pipeline_->special_ids.resize(num_tokens());
    for (size_t i = 0; i < num_tokens(); ++i) pipeline_->special_ids[i] = is_control(types_[i]);
  }

  /// Ids outside the vocabulary count as absent.
  std::optional<int32_t> special_id(std::string_view key, std::optional<int64_t> fallback = std::nullopt) const {
    const auto id = file_.get_int(key);
    const auto valid = [&](std::optional<int64_t> i) {
      return i && *i >= 0 && *i < static_cast<int64_t>(num_tokens());
    };
    if (valid(id)) return static_cast<int32_t>(*id);
    return valid(fallback) ? std::optional(static_cast<int32_t>(*fallback)) : std::nullopt;
  }

  void read_special_ids() {
    SpecialTokens& special = pipeline_->special;
    const auto spm_default = [this](int64_t id) { return is_spm_ ? std::optional(id) : std::nullopt; };
    special.bos_id = special_id("tokenizer.ggml.bos_token_id", spm_default(1));
    special.eos_id = special_id("tokenizer.ggml.eos_token_id", spm_default(2));
    special.unk_id = special_id("tokenizer.ggml.unknown_token_id", spm_default(0));
    special.pad_id = special_id("tokenizer.ggml.padding_token_id");
    const std::pair<const char*, std::optional<int32_t>> named[] = {{"bos_token", special.bos_id},
                                                                    {"eos_token", special.eos_id},
                                                                    {"unk_token", special.unk_id},
                                                                    {"pad_token", special.pad_id}};
    for (const auto& [key, id] : named)
      if (id) special.strings[key] = pipeline_->vocabulary.token(*id);
    const auto end_of_turn = special_id("tokenizer.ggml.eot_token_id");
    for (const auto& id : {special.eos_id, end_of_turn, special_id("tokenizer.ggml.eom_token_id")})
      if (id) special.eos_ids.push_back(*id);
    if (!end_of_turn)
      for (const std::string_view text : kTurnEnds)
        if (const auto id = pipeline_->vocabulary.find(text)) special.eos_ids.push_back(*id);
    std::sort(special.eos_ids.begin(), special.eos_ids.end());
    special.eos_ids.erase(std::unique(special.eos_ids.begin(), special.eos_ids.end()), special.eos_ids.end());
  }

  void load_spm() {
    const auto* scores = file_.get_floats("tokenizer.ggml.scores");
    std::vector<double> values = scores != nullptr ? *scores : std::vector<double>(num_tokens(), 0.0);
    if (values.size() < num_tokens())
      fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.scores has {} entries for {} tokens", name_, values.size(),
           num_tokens());
    values.resize(num_tokens());
    encoder_->model = std::make_unique<SpmModel>(pipeline_->vocabulary, values, pipeline_->special.unk_id, name_);
    encoder_->add_space_prefix = file_.get_bool("tokenizer.ggml.add_space_prefix").value_or(true);
    add_bos_ = true;
  }

  void load_bpe() {
    const std::string* pre = file_.get_string("tokenizer.ggml.pre");
    const GgufPreTokenizer settings = gguf_pre_tokenizer(pre != nullptr ? *pre : "default");
    add_bos_ = settings.add_bos;
    std::vector<std::unique_ptr<const PreTokenizer>> steps;
    for (const std::string_view pattern : settings.patterns)
      steps.push_back(make_split(pattern, SplitBehavior::kIsolated, Invert::kNo));
    steps.push_back(make_byte_level_alphabet());
    encoder_->pre_tokenizer = make_sequence(std::move(steps));
    const auto* lines = file_.get_strings("tokenizer.ggml.merges");
    if (lines == nullptr) fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.merges is missing", name_);
    BpeModel::MergeList merges;
    for (const std::string& line : *lines) {
      auto merge = parse_merge(line);
      if (!merge || !is_valid_utf8(line))
        fail(ErrorCode::kCorrupt, "{}: tokenizer.ggml.merges[{}]: expected two tokens with one blank between them",
             name_, merges.size());
      merges.push_back(std::move(*merge));
    }
    BpeOptions options;
    options.ignore_merges = settings.ignore_merges;
    options.repeated_merge = PairTable::IfPresent::kKeep;
    encoder_->model = std::make_unique<BpeModel>(pipeline_->vocabulary, merges, std::move(options), name_);
  }

  void finish_encoder() {
    std::vector<int32_t> before;
    std::vector<int32_t> behind;
    const SpecialTokens& special = pipeline_->special;
    if (file_.get_bool("tokenizer.ggml.add_bos_token").value_or(add_bos_) && special.bos_id)
      before.push_back(*special.bos_id);
    if (file_.get_bool("tokenizer.ggml.add_eos_token").value_or(false) && special.eos_id)
      behind.push_back(*special.eos_id);
    encoder_->post_processor = PostProcessor(std::move(before), std::move(behind));
    std::vector<GgufEncoder::SpecialText> texts;
    for (size_t i = 0; i < num_tokens(); ++i)
      if (is_control(types_[i]) || types_[i] == TokenType::kUserDefined)
        texts.push_back(
            {static_cast<int32_t>(i), pipeline_->vocabulary.token(static_cast<int32_t>(i)), is_control(types_[i])});
    encoder_->set_special_texts(std::move(texts));
  }

  void fill_pieces() {
    for (size_t i = 0; i < num_tokens(); ++i) {
      const std::string& token = pipeline_->vocabulary.token(static_cast<int32_t>(i));
      std::string piece;
      if (is_control(types_[i]) || types_[i] == TokenType::kUserDefined) {
        piece = token;
      } else if (const auto byte = types_[i] == TokenType::kByte ? byte_of_token(token) : std::nullopt) {
        piece.push_back(*byte);
      } else if (is_spm_) {
        piece = with_blanks(token);
      } else {
        append_byte_level_decoded(piece, token);
      }
      pipeline_->pieces.push_back(std::move(piece));
    }
    pipeline_->decoder = Decoder::of_bytes(encoder_->add_space_prefix ? Decoder::DropLeadingBlank::kYes
                                                                      : Decoder::DropLeadingBlank::kNo);
  }

  const parallel::GgufFile& file_;
  const std::string& name_;
  std::unique_ptr<Pipeline> pipeline_ = std::make_unique<Pipeline>();
  std::unique_ptr<GgufEncoder> encoder_ = std::make_unique<GgufEncoder>();
  std::vector<TokenType> types_;
  bool is_spm_ = false;
  bool add_bos_ = false;
};

}  // namespace

std::unique_ptr<Pipeline> load_tokenizer_gguf(const parallel::GgufFile& file, const std::string& name) {
  return GgufLoader(file, name).load();
}

}  // namespace chorale::coordinator::text
