#include "coordinator/api/logprobs_json.h"

#include <algorithm>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

/// `bytes` as valid UTF-8: what is not becomes U+FFFD, a byte at a time.
std::string to_valid_utf8(std::string bytes) {
  std::string valid;
  for (std::string_view rest = bytes; !rest.empty();) {
    const size_t bad = find_invalid_utf8(rest);
    valid += rest.substr(0, bad);
    if (bad == std::string_view::npos) break;
    valid += "\xef\xbf\xbd";
    rest.remove_prefix(bad + 1);
  }
  return valid;
}

int64_t count_code_points(std::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

}  // namespace

float printable(float logprob) { return std::max(logprob, -9999.0f); }

std::string LogprobsWriter::bytes_of(int32_t id) const {
  return text_ == nullptr ? fmt::format("token_id:{}", id) : text_->token_bytes(id);
}

std::string LogprobsWriter::name_of(int32_t id) const {
  if (text_ == nullptr || options_.tokens_as_ids == Toggle::kYes) return fmt::format("token_id:{}", id);
  return to_valid_utf8(text_->token_bytes(id));
}

Json LogprobsWriter::completion(const std::vector<LogprobEntry>& entries, int64_t& offset) const {
  Json tokens = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const LogprobEntry& entry : entries) {
    const std::string name = name_of(entry.token_id);
    tokens.push_back(name);
    offsets.push_back(offset);
    offset += count_code_points(name);
    if (!entry.logprob) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(printable(*entry.logprob));
    Json top = Json::object();
    // Two tokens may have one spelling; the likelier one, which comes first, stays.
    for (const auto& alternative : entry.top) {
      const std::string key = name_of(alternative.token_id);
      if (!top.contains(key)) top[key] = printable(alternative.logprob);
    }
    if (!top.contains(name)) top[name] = printable(*entry.logprob);
    tops.push_back(std::move(top));
  }
  Json result;
  result["text_offset"] = std::move(offsets);
  result["token_logprobs"] = std::move(logprobs);
  result["tokens"] = std::move(tokens);
  result["top_logprobs"] = std::move(tops);
  return result;
}

Json LogprobsWriter::chat(const std::vector<LogprobEntry>& entries) const {
  const auto item = [&](int32_t id, float logprob) {
    Json bytes = Json::array();
    for (const char c : bytes_of(id)) bytes.push_back(static_cast<uint8_t>(c));
    Json json;
    json["token"] = name_of(id);
    json["logprob"] = printable(logprob);
    json["bytes"] = std::move(bytes);
    return json;
  };
  Json content = Json::array();
  for (const LogprobEntry& entry : entries) {
    Json json = item(entry.token_id, entry.logprob.value_or(0));
    Json tops = Json::array();
    for (const auto& alternative : entry.top) tops.push_back(item(alternative.token_id, alternative.logprob));
    json["top_logprobs"] = std::move(tops);
    content.push_back(std::move(json));
  }
  Json result;
  result["content"] = std::move(content);
  return result;
}

}  // namespace chorale::coordinator::api
