// A checkpoint as the user has it: a Hugging Face folder (config.json, *.safetensors) or one GGUF file, opened without
// copying and without conversion. The planner reads shapes, each rank's loader reads its own slices. It knows no
// architecture: names are looked up as they are stored (worker/models hold the tables of both spellings).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "parallel/checkpoint/gguf.h"

namespace chorale::parallel {

class SafetensorsFile;
struct SafetensorsEntry;

/// Whether a folder must have its weights. For planners a configuration is enough.
enum class WeightFiles : uint8_t { kRequired, kOptional };

class Checkpoint {
 public:
  /// `path`: a folder with config.json and `model.safetensors` or the files that `model.safetensors.index.json` names
  /// (never a glob), or a .gguf file. Throws Error{kNotFound | kCorrupt | kUnsupported} with file and reason.
  /// kOptional: where one of those files is missing, none is opened.
  static Checkpoint open(const std::filesystem::path& path, WeightFiles weights = WeightFiles::kRequired);

  const std::filesystem::path& path() const { return path_; }
  /// The GGUF file, or nullptr for a folder.
  const GgufFile* gguf() const { return gguf_.get(); }
  /// config.json, and generation_config.json (null when absent). REQUIRES: a folder.
  const nlohmann::json& config_json() const;
  const nlohmann::json& generation_config_json() const;

  /// Sorted by name. Tensors of an index are exactly those that its weight_map names.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// nullptr when there is none. Throws Error{kUnsupported} naming tensor and type when it is one of skipped_tensors().
  const StoredTensor* find(std::string_view stored_name) const;
  uint64_t file_bytes() const { return file_bytes_; }  // of the weight files
  bool has_weights() const { return file_bytes_ > 0; }

  /// A tensor that nothing here can load as numbers (I64 position ids, BOOL masks, more than 4 dims). Folders only: a
  /// GGUF file with such a type is refused.
  struct SkippedTensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t num_bytes = 0;
  };
  const std::vector<SkippedTensor>& skipped_tensors() const { return skipped_; }  // sorted by name

 private:
  struct Folder;
  static Checkpoint open_folder(const std::filesystem::path& path, WeightFiles weights);
  static Checkpoint open_file(const std::filesystem::path& path);
  void add(const SafetensorsFile& file, const SafetensorsEntry& entry);

  std::filesystem::path path_;
  std::shared_ptr<const GgufFile> gguf_;
  std::shared_ptr<const Folder> folder_;
  std::vector<StoredTensor> tensors_;
  std::vector<SkippedTensor> skipped_;
  uint64_t file_bytes_ = 0;
};

/// Reads rows [row_begin, row_end) x columns [col_begin, col_end) of a matrix as float32 into
/// out[(row - row_begin) * out_stride + (column - col_begin)]. A vector is one row; with more than two dims the last
/// one are the columns and all others together the rows. Columns need not meet block boundaries. Returns the bytes of
/// the file it had to touch (whole blocks). REQUIRES: ranges inside the shape. Throws Error{kCorrupt} when the file was
/// truncated since it was opened.
uint64_t read_f32(const StoredTensor& tensor, int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end,
                  float* out, int64_t out_stride);

}  // namespace chorale::parallel
