#include "coordinator/text/vocabulary.h"

#include <utility>

#include "comm/base/error.h"

namespace chorale::coordinator::text {

void Vocabulary::add(std::string token, int64_t id, size_t expected_size, const std::string& where) {
  const auto limit =
      static_cast<int64_t>(8 * expected_size + (1u << 20));  // gaps are allowed, absurd ids would only eat memory
  if (id < 0 || id >= limit)
    fail(ErrorCode::kCorrupt, "{}: token '{:.100}' has id {}, outside 0..{} for a vocabulary of {} tokens", where,
         token, id, limit - 1, expected_size);
  const auto index = static_cast<size_t>(id);
  if (index >= tokens_.size()) tokens_.resize(index + 1, nullptr);
  if (tokens_[index] != nullptr)
    fail(ErrorCode::kCorrupt, "{}: tokens '{:.100}' and '{:.100}' have the same id {}", where, *tokens_[index], token,
         id);
  const auto [place, inserted] = ids_.try_emplace(std::move(token), static_cast<int32_t>(id));
  if (!inserted)
    fail(ErrorCode::kCorrupt, "{}: token '{:.100}' has two ids, {} and {}", where, place->first, place->second, id);
  tokens_[index] = &place->first;
}

const std::string& Vocabulary::token(int32_t id) const {
  static const std::string kNone;
  return contains(id) ? *tokens_[static_cast<size_t>(id)] : kNone;
}

}  // namespace chorale::coordinator::text
