#include "parallel/checkpoint/json_file.h"

#include <algorithm>
#include <string_view>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "parallel/checkpoint/mapped_file.h"

namespace chorale::parallel {
namespace {

// Deepest nesting of brackets outside texts. Looks at bytes only, so that nothing recursive ever sees a hostile depth.
int nesting_of(std::string_view json) {
  int depth = 0;
  int deepest = 0;
  bool in_text = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_text) {
      if (c == '\\') ++i;
      if (c == '"') in_text = false;
    } else if (c == '"') {
      in_text = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

nlohmann::json read_json_object(const std::filesystem::path& path, uint64_t max_bytes) {
  const MappedFile file = MappedFile::open(path);
  const auto bytes = file.bytes();
  if (bytes.size() > max_bytes)
    fail(ErrorCode::kCorrupt, "{} has {} bytes, the limit is {}", path.string(), bytes.size(), max_bytes);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (nesting_of(text) > kMaxJsonNesting)
    fail(ErrorCode::kCorrupt, "{} nests deeper than {} levels", path.string(), kMaxJsonNesting);
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    fail(ErrorCode::kCorrupt, "{} is not valid JSON at byte {}", path.string(), e.byte);
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCorrupt, "{} is not valid JSON: {}", path.string(), e.what());
  }
  if (!json.is_object())
    fail(ErrorCode::kCorrupt, "{} holds {} {}, expected an object", path.string(), json.is_array() ? "an" : "a",
         json.type_name());
  return json;
}

}  // namespace chorale::parallel
