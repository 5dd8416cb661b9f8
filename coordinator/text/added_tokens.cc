#include "coordinator/text/added_tokens.h"

#include <algorithm>
#include <set>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

constexpr size_t kMaxContentBytes = 4096;

bool word_ends_at(std::string_view text, size_t end) { return end > 0 && is_word(previous_char(text, end)); }
bool word_starts_at(std::string_view text, size_t begin) {
  return begin < text.size() && is_word(next_char(text, begin));
}

size_t skip_space_left(std::string_view text, size_t begin) {
  for (size_t i = begin; i > 0 && is_white_space(previous_char(text, i));) begin = i;
  return begin;
}
size_t skip_space_right(std::string_view text, size_t end) {
  for (size_t i = end; i < text.size() && is_white_space(next_char(text, i));) end = i;
  return end;
}

}  // namespace

void StringSearch::add(std::string_view text, size_t value) {
  if (text.empty()) return;
  starts_[static_cast<unsigned char>(text[0])] = true;
  size_t node = 0;
  for (const char c : text) {
    const auto [place, inserted] = nodes_[node].next.try_emplace(static_cast<unsigned char>(c), nodes_.size());
    node = place->second;
    if (inserted) nodes_.emplace_back();
  }
  if (!nodes_[node].value) nodes_[node].value = value;
}

std::optional<StringSearch::Match> StringSearch::find(std::string_view text, size_t from) const {
  if (nodes_.size() == 1) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    std::optional<Match> longest;
    size_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto next = nodes_[node].next.find(static_cast<unsigned char>(text[i]));
      if (next == nodes_[node].next.end()) break;
      node = next->second;
      if (nodes_[node].value) longest = Match{begin, i + 1, *nodes_[node].value};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

std::vector<size_t> StringSearch::occurring(std::string_view text) const {
  std::set<size_t> found;
  for (size_t begin = 0; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    size_t node = 0;
    for (size_t i = begin; i < text.size(); ++i) {
      const auto next = nodes_[node].next.find(static_cast<unsigned char>(text[i]));
      if (next == nodes_[node].next.end()) break;
      node = next->second;
      if (nodes_[node].value) found.insert(*nodes_[node].value);
    }
  }
  return {found.begin(), found.end()};
}

void AddedTokens::load(const JsonAt& json, const Vocabulary& vocabulary, const Normalizer* normalizer) {
  std::set<int64_t> file_ids;
  json.each([&](const JsonAt& item) {
    AddedToken token;
    token.content = item.member("content").string();
    token.special = item.member("special").boolean();
    token.normalized = item.member("normalized").boolean();
    token.lstrip = item.member("lstrip").boolean();
    token.rstrip = item.member("rstrip").boolean();
    token.single_word = item.member("single_word").boolean();
    const int64_t file_id = item.member("id").integer();
    if (!file_ids.insert(file_id).second) item.bad(fmt::format("id {} is given to two added tokens", file_id));
    if (token.content.empty()) return;
    if (file_id >= 0 && file_id < vocabulary.end_id()) token.id = static_cast<int32_t>(file_id);
    add(std::move(token), vocabulary, item.where());
    if (tokens_.back().id != file_id)
      log_warn("{}: added token '{}' has id {} in the file and gets {}, the next free one", item.where(),
               tokens_.back().content, file_id, tokens_.back().id);
  });
  end_id_ = vocabulary.end_id();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    end_id_ = std::max(end_id_, tokens_[i].id + 1);
    std::string searched = tokens_[i].content;
    if (tokens_[i].normalized && normalizer != nullptr) normalizer->apply(searched);
    (tokens_[i].normalized ? normalized_ : raw_).add(searched, i);
  }
}

void AddedTokens::add(AddedToken token, const Vocabulary& vocabulary, const std::string& where) {
  if (token.content.size() > kMaxContentBytes)
    fail(ErrorCode::kCorrupt, "{}: an added token has {} bytes; at most {} are supported", where, token.content.size(),
         kMaxContentBytes);
  const auto known = vocabulary.find(token.content);
  // The reference library counts on from the number of tokens, not from the largest id.
  const auto next = std::max(static_cast<int32_t>(vocabulary.size()), end_id_);
  const bool gap = token.id >= 0 && !vocabulary.contains(token.id) && vocabulary.contains(next);
  token.id = known ? *known : gap ? token.id : next;  // a gap of the vocabulary that the file fills
  if (!known && vocabulary.contains(token.id))
    fail(ErrorCode::kCorrupt, "{}: added token '{:.60}' gets id {}, which '{:.60}' of the vocabulary has", where,
         token.content, token.id, vocabulary.token(token.id));
  if (!by_content_.try_emplace(token.content, tokens_.size()).second ||
      !by_id_.try_emplace(token.id, tokens_.size()).second)
    fail(ErrorCode::kCorrupt, "{}: added token '{:.60}' occurs twice", where, token.content);
  end_id_ = std::max(end_id_, token.id + 1);
  tokens_.push_back(std::move(token));
}

void AddedTokens::split(std::string_view text, Stage stage, ParseSpecial parse_special,
                        std::vector<Segment>& out) const {
  const StringSearch& search = stage == Stage::kRaw ? raw_ : normalized_;
  size_t covered = 0;
  for (size_t from = 0; const auto match = search.find(text, from);) {
    from = match->end;
    const AddedToken& token = tokens_[match->value];
    if (token.special && parse_special == ParseSpecial::kNo) continue;
    if (token.single_word && (word_ends_at(text, match->begin) || word_starts_at(text, match->end))) continue;
    size_t begin = match->begin;
    size_t end = match->end;
    if (token.lstrip) begin = std::max(skip_space_left(text, begin), covered);
    if (token.rstrip) end = skip_space_right(text, end);
    if (covered < begin) out.push_back({-1, text.substr(covered, begin - covered)});
    out.push_back({token.id, {}});
    covered = end;
  }
  if (covered < text.size()) out.push_back({-1, text.substr(covered)});
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}
const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace chorale::coordinator::text
