// Reads a JSON file of a model folder (config.json, an index) that must be one object. Files are outside input: size
// and nesting are bounded. For Checkpoint and whoever else reads such a file.
#pragma once

#include <cstdint>
#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace chorale::parallel {

constexpr uint64_t kMaxJsonFileBytes = 32u << 20;
constexpr int kMaxJsonNesting = 64;

/// Throws Error{kNotFound | kCorrupt} with the file and the reason: missing, empty, too large, not JSON (where), too
/// deep, no object.
nlohmann::json read_json_object(const std::filesystem::path& path, uint64_t max_bytes = kMaxJsonFileBytes);

}  // namespace chorale::parallel
