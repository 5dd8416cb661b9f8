#include "coordinator/text/bpe_model.h"

#include <array>
#include <cctype>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/text/marks.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

constexpr size_t kCharTableEnd = 0x3000;
std::string show(const std::pair<std::string, std::string>& merge) {
  return fmt::format("'{:.60}' + '{:.60}'", merge.first, merge.second);
}

}  // namespace

BpeModel::BpeModel(const Vocabulary& vocabulary, const MergeList& merges, BpeOptions options, const std::string& where)
    : vocabulary_(vocabulary),
      options_(std::move(options)),
      pairs_(merges.size()),
      char_ids_(kCharTableEnd, -1),
      byte_ids_(256, -1) {
  const size_t prefix = options_.continuing_subword_prefix.size();
  cut_at_marks_ = prefix == 0 && options_.end_of_word_suffix.empty() && vocabulary_.find(kMark).has_value();
  uint32_t rank = 0;
  for (const auto& merge : merges) {
    const auto left = vocabulary_.find(merge.first);
    const auto right = vocabulary_.find(merge.second);
    if (!left || !right)
      fail(ErrorCode::kCorrupt, "{}: merge {} ({}) names '{:.60}', which is not in the vocabulary", where, rank,
           show(merge), left ? merge.second : merge.first);
    if (merge.second.size() < prefix)
      fail(ErrorCode::kCorrupt, "{}: merge {} ({}) has no continuing_subword_prefix", where, rank, show(merge));
    const std::string result = merge.first + merge.second.substr(prefix);
    const auto id = vocabulary_.find(result);
    if (!id)
      fail(ErrorCode::kCorrupt, "{}: merge {} ({}) gives '{:.60}', which is not in the vocabulary", where, rank,
           show(merge), result);
    pairs_.add(*left, *right, {rank, *id}, options_.repeated_merge);
    cut_at_marks_ = cut_at_marks_ && !has_inner_mark(result);
    ++rank;
  }
  std::string character;
  for (char32_t c = 0; c < kCharTableEnd; ++c) {
    character.clear();
    append_utf8(character, c);
    char_ids_[c] = vocabulary_.find(character).value_or(-1);
  }
  for (int byte = 0; byte < 256; ++byte)
    byte_ids_[static_cast<size_t>(byte)] = vocabulary_.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  if (options_.unk_token) unk_id_ = vocabulary_.find(*options_.unk_token);
}

void BpeModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_.find(piece)) {
      ids.push_back(*id);
      return;
    }
  }
  if (!cut_at_marks_) return encode_word(piece, ids);
  for_each_marked_word(piece, [&](std::string_view word) { encode_word(word, ids); });
}

void BpeModel::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  WordCache& cache = WordCache::of_thread(serial_);
  if (cache.get(word, ids)) return;
  if (word.size() > UINT32_MAX / 2) fail(ErrorCode::kInvalidArgument, "a text of {} bytes is too long", word.size());
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  split_into_symbols(word, symbols);
  merge_pairs(pairs_, symbols);
  const size_t before = ids.size();
  for (const Symbol& symbol : symbols) ids.push_back(symbol.id);
  cache.put(word, ids.data() + before, ids.size() - before);
  if (symbols.capacity() > 1u << 16) symbols = {};
}

/// `text` is one character, with prefix or suffix where the model has them.
std::optional<int32_t> BpeModel::find_initial(std::string_view text) const {
  size_t offset = 0;
  const char32_t c = next_char(text, offset);
  if (c >= kCharTableEnd || offset < text.size()) return vocabulary_.find(text);
  return char_ids_[c] >= 0 ? std::optional(char_ids_[c]) : std::nullopt;
}

bool BpeModel::push_bytes(std::string_view text, uint32_t begin, std::vector<Symbol>& symbols) const {
  for (const char byte : text)
    if (byte_ids_[static_cast<uint8_t>(byte)] < 0) return false;
  for (const char byte : text) symbols.push_back({byte_ids_[static_cast<uint8_t>(byte)], begin++, 1});
  return true;
}

/// Characters, with what is unknown as bytes or the unknown token; without one it is left out. An unknown run that is
/// being fused is written only when a known character follows, even behind byte tokens: that is how the reference
/// library does it.
void BpeModel::split_into_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
  std::optional<Symbol> unknown;
  std::string decorated;
  for (size_t i = 0; i < word.size();) {
    const size_t length = utf8_length(word[i]);
    std::string_view text = word.substr(i, length);
    const auto begin = static_cast<uint32_t>(i);
    i += length;
    const bool prefixed = begin > 0 && !options_.continuing_subword_prefix.empty();
    const bool suffixed = i == word.size() && !options_.end_of_word_suffix.empty();
    if (prefixed || suffixed) {
      decorated = prefixed ? options_.continuing_subword_prefix : "";
      decorated.append(text).append(suffixed ? options_.end_of_word_suffix : "");
      text = decorated;
    }
    const auto id = find_initial(text);
    if (id) {
      if (unknown) symbols.push_back(*unknown);
      unknown.reset();
      symbols.push_back({*id, begin, static_cast<uint32_t>(length)});
      continue;
    }
    if (options_.byte_fallback && push_bytes(text, begin, symbols)) continue;
    if (!options_.unk_token) continue;
    if (unknown && options_.fuse_unk) {
      unknown->length += static_cast<uint32_t>(length);
      continue;
    }
    if (unknown) symbols.push_back(*unknown);
    if (!unk_id_)
      fail(ErrorCode::kCorrupt, "the tokenizer's unk_token '{:.60}' is not in its vocabulary, and the text needs it",
           *options_.unk_token);
    unknown = Symbol{*unk_id_, begin, static_cast<uint32_t>(length)};
  }
  if (unknown) symbols.push_back(*unknown);
}

std::optional<std::pair<std::string, std::string>> parse_merge(std::string_view line) {
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos || line.find(' ', blank + 1) != std::string_view::npos) return std::nullopt;
  return std::pair{std::string(line.substr(0, blank)), std::string(line.substr(blank + 1))};
}

void read_vocabulary(const JsonAt& json, Vocabulary& vocabulary) {
  const nlohmann::json& entries = json.json();
  if (!entries.is_object()) json.bad(fmt::format("expected an object of token: id, found {}", entries.type_name()));
  for (const auto& [token, id] : entries.items()) {
    if (!id.is_number_integer())
      json.bad(fmt::format("the id of '{:.60}' is {}, not an integer", token, id.type_name()));
    vocabulary.add(token, JsonAt(id, json.where()).integer(), entries.size(), json.where());
  }
}

std::unique_ptr<const Model> make_bpe_model(const JsonAt& json, Vocabulary& vocabulary) {
  if (const auto dropout = json.find("dropout"); dropout && dropout->json() != 0)
    fail(ErrorCode::kUnsupported, "{}: BPE dropout is for training and makes ids random; remove it", json.where());
  read_vocabulary(json.member("vocab"), vocabulary);
  BpeModel::MergeList merges;
  json.member("merges").each([&](const JsonAt& item) {
    if (item.json().is_string()) {
      if (merges.empty() && item.string().starts_with("#version")) return;
      const auto merge = parse_merge(item.string());
      if (!merge)
        item.bad("expected two tokens with one blank between them, found '" + item.string().substr(0, 60) + "'");
      merges.push_back(*merge);
      return;
    }
    if (!item.json().is_array() || item.json().size() != 2) item.bad("expected a pair of tokens");
    merges.emplace_back(JsonAt(item.json()[0], item.where()).string(), JsonAt(item.json()[1], item.where()).string());
  });
  BpeOptions options;
  if (const auto unk = json.find("unk_token")) options.unk_token = unk->string();
  options.continuing_subword_prefix = json.string_or("continuing_subword_prefix", "");
  options.end_of_word_suffix = json.string_or("end_of_word_suffix", "");
  options.fuse_unk = json.boolean_or("fuse_unk", false);
  options.byte_fallback = json.boolean_or("byte_fallback", false);
  options.ignore_merges = json.boolean_or("ignore_merges", false);
  return std::make_unique<BpeModel>(vocabulary, merges, std::move(options), json.where());
}

}  // namespace chorale::coordinator::text
