#include "coordinator/text/spm_model.h"

#include <algorithm>
#include <cmath>

#include "comm/base/error.h"
#include "coordinator/text/marks.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

/// Tokens are at most a few hundred bytes in the wild; without a bound their splits would cost the square of their
/// length.
constexpr size_t kMaxTokenBytes = 2048;
constexpr size_t kMaxSplits = 64u << 20;

size_t count_splits(const Vocabulary& vocabulary, const std::string& where) {
  size_t splits = 0;
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const std::string& token = vocabulary.token(id);
    if (token.size() > kMaxTokenBytes)
      fail(ErrorCode::kCorrupt, "{}: token {} has {} bytes; at most {} are supported", where, id, token.size(),
           kMaxTokenBytes);
    for (size_t i = 0; i < token.size(); i += utf8_length(token[i])) ++splits;
  }
  if (splits > kMaxSplits)
    fail(ErrorCode::kCorrupt, "{}: the tokens have {} characters together, too many", where, splits);
  return splits;
}

}  // namespace

SpmModel::SpmModel(const Vocabulary& vocabulary, const std::vector<double>& scores, std::optional<int32_t> unk_id,
                   const std::string& where)
    : vocabulary_(vocabulary), pairs_(count_splits(vocabulary, where)), byte_ids_(256, -1), unk_id_(unk_id) {
  std::vector<double> sorted = scores;
  for (const double score : sorted)
    if (!std::isfinite(score)) fail(ErrorCode::kCorrupt, "{}: a score is not a finite number", where);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const double score = scores[static_cast<size_t>(id)];
    const auto rank = std::lower_bound(sorted.begin(), sorted.end(), score, std::greater<>()) - sorted.begin();
    add_splits(id, static_cast<uint32_t>(rank));
    cut_at_marks_ = cut_at_marks_ && !has_inner_mark(vocabulary.token(id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    auto id = vocabulary.find(fmt::format("<0x{:02X}>", byte));
    if (!id) id = vocabulary.find(std::string(1, static_cast<char>(byte)));
    byte_ids_[static_cast<size_t>(byte)] = id.value_or(-1);
  }
}

/// Every way to make a token of two parts that can occur as symbols.
void SpmModel::add_splits(int32_t id, uint32_t rank) {
  const std::string_view token = vocabulary_.token(id);
  const auto part_id = [&](std::string_view part) {
    if (const auto known = vocabulary_.find(part)) return *known;
    if (part.size() > utf8_length(part[0])) return -1;
    const auto next = static_cast<int32_t>(vocabulary_.end_id() + static_cast<int32_t>(parts_.size()));
    return parts_.try_emplace(std::string(part), next).first->second;
  };
  if (token.empty()) return;
  for (size_t i = utf8_length(token[0]); i < token.size(); i += utf8_length(token[i])) {
    const int32_t left = part_id(token.substr(0, i));
    const int32_t right = part_id(token.substr(i));
    if (left >= 0 && right >= 0) pairs_.add(left, right, {rank, id}, PairTable::IfPresent::kKeep);
  }
}

void SpmModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (!cut_at_marks_) return encode_word(piece, ids);
  for_each_marked_word(piece, [&](std::string_view word) { encode_word(word, ids); });
}

int32_t SpmModel::symbol_id(std::string_view text) const {
  if (const auto id = vocabulary_.find(text)) return *id;
  const auto part = parts_.find(text);
  return part == parts_.end() ? -1 : part->second;
}

void SpmModel::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  WordCache& cache = WordCache::of_thread(serial_);
  if (cache.get(word, ids)) return;
  if (word.size() > UINT32_MAX / 2) fail(ErrorCode::kInvalidArgument, "a text of {} bytes is too long", word.size());
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  for (size_t i = 0; i < word.size();) {
    const size_t length = utf8_length(word[i]);
    symbols.push_back({symbol_id(word.substr(i, length)), static_cast<uint32_t>(i), static_cast<uint32_t>(length)});
    i += length;
  }
  merge_pairs(pairs_, symbols);
  const size_t before = ids.size();
  for (const Symbol& symbol : symbols) {
    if (vocabulary_.contains(symbol.id)) {
      ids.push_back(symbol.id);
      continue;
    }
    for (const char byte : word.substr(symbol.begin, symbol.length)) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id >= 0) ids.push_back(id);
      if (id < 0 && unk_id_) ids.push_back(*unk_id_);
    }
  }
  cache.put(word, ids.data() + before, ids.size() - before);
  if (symbols.capacity() > 1u << 16) symbols = {};
}

}  // namespace chorale::coordinator::text
