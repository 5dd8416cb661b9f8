#include "coordinator/text/post_processor.h"

#include <nlohmann/json.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator::text {
namespace {

constexpr size_t kMaxAddedIds = 1024;

int32_t id_below(const JsonAt& json, int32_t num_ids) {
  const int64_t id = json.integer();
  if (id < 0 || id >= num_ids) json.bad(fmt::format("id {} is outside the vocabulary of {} ids", id, num_ids));
  return static_cast<int32_t>(id);
}

/// ["[CLS]", 101]
int32_t named_id(const JsonAt& json, int32_t num_ids) {
  if (!json.json().is_array() || json.json().size() != 2) json.bad("expected a token and its id");
  return id_below({json.json()[1], json.where() + "[1]"}, num_ids);
}

}  // namespace

PostProcessor::PostProcessor(std::vector<int32_t> before, std::vector<int32_t> behind) {
  Template items(before.begin(), before.end());
  items.emplace_back(std::nullopt);
  items.insert(items.end(), behind.begin(), behind.end());
  if (items.size() > 1) templates_.push_back(std::move(items));
}

PostProcessor::PostProcessor(const JsonAt& json, int32_t num_ids) { load(json, num_ids); }

void PostProcessor::load(const JsonAt& json, int32_t num_ids) {
  const std::string& type = json.member("type").string();
  if (type == "Sequence") {
    json.member("processors").each([&](const JsonAt& item) { load(item, num_ids); });
  } else if (type == "TemplateProcessing") {
    load_template(json, num_ids);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    templates_.push_back({named_id(json.member("cls"), num_ids), std::nullopt, named_id(json.member("sep"), num_ids)});
  } else if (type != "ByteLevel") {  // ByteLevel only trims offsets
    fail(ErrorCode::kUnsupported,
         "{}: post-processor '{}' is not supported; supported are TemplateProcessing, ByteLevel, BertProcessing, "
         "RobertaProcessing and Sequence",
         json.where(), type);
  }
}

void PostProcessor::load_template(const JsonAt& json, int32_t num_ids) {
  Template items;
  const JsonAt special_tokens = json.member("special_tokens");
  json.member("single").each([&](const JsonAt& item) {
    if (const auto sequence = item.find("Sequence")) {
      if (sequence->member("id").string() != "A")
        sequence->bad("the template for single texts may use sequence A only");
      items.emplace_back(std::nullopt);
      return;
    }
    const std::string& name = item.member("SpecialToken").member("id").string();
    special_tokens.member(name).member("ids").each(
        [&](const JsonAt& id) { items.emplace_back(id_below(id, num_ids)); });
  });
  if (items.size() > kMaxAddedIds) json.bad("the template adds too many tokens");
  if (items.size() != 1 || items[0]) templates_.push_back(std::move(items));
}

void PostProcessor::apply(std::vector<int32_t>& ids) const {
  for (const Template& items : templates_) {
    std::vector<int32_t> out;
    out.reserve(ids.size() + items.size());
    for (const auto& item : items) {
      if (item) {
        out.push_back(*item);
      } else {
        out.insert(out.end(), ids.begin(), ids.end());
      }
    }
    ids = std::move(out);
  }
}

}  // namespace chorale::coordinator::text
