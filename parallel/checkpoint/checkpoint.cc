#include "parallel/checkpoint/checkpoint.h"

#include <algorithm>
#include <map>
#include <system_error>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "parallel/checkpoint/json_file.h"
#include "parallel/checkpoint/mapped_file.h"
#include "parallel/checkpoint/safetensors.h"
#include "parallel/checkpoint/show_name.h"

namespace chorale::parallel {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Shape make_shape(const std::vector<int64_t>& d) {
  switch (d.size()) {
    case 0: return Shape{};
    case 1: return Shape{d[0]};
    case 2: return Shape{d[0], d[1]};
    case 3: return Shape{d[0], d[1], d[2]};
    default: CHECK_EQ(d.size(), 4u); return Shape{d[0], d[1], d[2], d[3]};
  }
}

// The file names of an index come from outside: only plain names, so that nothing beside the folder is ever opened.
void check_shard_name(const fs::path& index, const std::string& name) {
  const bool is_plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                        name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
  if (!is_plain)
    fail(ErrorCode::kCorrupt, "{} names the file {}, expected a plain file name inside the folder", index.string(),
         show_name(name));
}

// weight_map: tensor -> file.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& index) {
  const nlohmann::json json = read_json_object(index);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    fail(ErrorCode::kCorrupt, "{} lacks the object weight_map", index.string());
  if (map->empty()) fail(ErrorCode::kCorrupt, "{} has an empty weight_map", index.string());
  std::map<std::string, std::vector<std::string>> names_by_file;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string())
      fail(ErrorCode::kCorrupt, "{}: weight_map gives tensor {} a {}, expected a file name", index.string(),
           show_name(tensor), file.type_name());
    const auto& file_name = file.get_ref<const std::string&>();
    check_shard_name(index, file_name);
    names_by_file[file_name].push_back(tensor);
  }
  return names_by_file;
}

bool has_all_weights(const fs::path& folder) {
  if (is_there(folder / kSingleFile)) return true;
  if (!is_there(folder / kIndexFile)) return false;
  const auto files = read_index(folder / kIndexFile);
  return std::ranges::all_of(files, [&folder](const auto& entry) { return is_there(folder / entry.first); });
}

}  // namespace

struct Checkpoint::Folder {
  nlohmann::json config;
  nlohmann::json generation_config;
  std::vector<SafetensorsFile> files;  // keep the mappings alive
};

Checkpoint Checkpoint::open(const fs::path& path, WeightFiles weights) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    fail(ErrorCode::kNotFound, "no checkpoint at {}: expected a model folder or a .gguf file", path.string());
  return status.type() == fs::file_type::directory ? open_folder(path, weights) : open_file(path);
}

Checkpoint Checkpoint::open_file(const fs::path& path) {
  if (path.extension() == ".safetensors" || path.extension() == ".json")
    fail(ErrorCode::kUnsupported, "{} is one file of a model folder; give the folder {}", path.string(),
         path.has_parent_path() ? path.parent_path().string() : ".");
  Checkpoint result;
  result.path_ = path;
  result.gguf_ = std::make_shared<const GgufFile>(GgufFile::open(path));
  result.tensors_ = result.gguf_->tensors();
  std::ranges::sort(result.tensors_, {}, &StoredTensor::name);
  std::error_code ignored;
  result.file_bytes_ = fs::file_size(path, ignored);
  return result;
}

Checkpoint Checkpoint::open_folder(const fs::path& path, WeightFiles weights) {
  auto folder = std::make_shared<Folder>();
  if (!is_there(path / "config.json"))
    fail(ErrorCode::kNotFound, "{} has no config.json; give a Hugging Face model folder, or the .gguf file itself",
         path.string());
  folder->config = read_json_object(path / "config.json");
  if (is_there(path / "generation_config.json"))
    folder->generation_config = read_json_object(path / "generation_config.json");

  Checkpoint result;
  result.path_ = path;
  const auto open_file = [&](const std::string& name) -> const SafetensorsFile& {
    folder->files.push_back(SafetensorsFile::open(path / name));
    const SafetensorsFile& file = folder->files.back();
    result.file_bytes_ += file.file()->bytes().size();
    return file;
  };
  if (weights == WeightFiles::kOptional && !has_all_weights(path)) {
    // The configuration is all there is.
  } else if (is_there(path / kSingleFile)) {
    const SafetensorsFile& file = open_file(kSingleFile);
    for (const SafetensorsEntry& entry : file.entries()) result.add(file, entry);
  } else if (is_there(path / kIndexFile)) {
    for (const auto& [file_name, tensors] : read_index(path / kIndexFile)) {
      if (!is_there(path / file_name))
        fail(ErrorCode::kNotFound, "{} names the file {}, which is missing; download it", (path / kIndexFile).string(),
             show_name(file_name));
      const SafetensorsFile& file = open_file(file_name);
      for (const std::string& tensor : tensors) {
        const SafetensorsEntry* entry = file.find(tensor);
        if (entry == nullptr)
          fail(ErrorCode::kCorrupt, "{} promises tensor {} in {}, which does not have it", (path / kIndexFile).string(),
               show_name(tensor), show_name(file_name));
        result.add(file, *entry);
      }
    }
  } else {
    fail(ErrorCode::kNotFound, "{} has neither {} nor {}; other weight files (.bin, .pth) are not read", path.string(),
         kSingleFile, kIndexFile);
  }
  std::ranges::sort(result.tensors_, {}, &StoredTensor::name);
  std::ranges::sort(result.skipped_, {}, &SkippedTensor::name);
  result.folder_ = std::move(folder);
  return result;
}

void Checkpoint::add(const SafetensorsFile& file, const SafetensorsEntry& entry) {
  const std::optional<StorageType> type = storage_type_of_safetensors(entry.dtype);
  if (!type || entry.shape.size() > 4) {
    skipped_.push_back({entry.name, entry.dtype, entry.shape, entry.bytes.size()});
    return;
  }
  tensors_.push_back({entry.name, *type, make_shape(entry.shape), entry.bytes, file.file()});
}

const nlohmann::json& Checkpoint::config_json() const {
  CHECK(folder_ != nullptr);
  return folder_->config;
}

const nlohmann::json& Checkpoint::generation_config_json() const {
  CHECK(folder_ != nullptr);
  return folder_->generation_config;
}

const StoredTensor* Checkpoint::find(std::string_view stored_name) const {
  const auto name_of = [](const auto& tensor) { return std::string_view(tensor.name); };
  const auto it = std::ranges::lower_bound(tensors_, stored_name, {}, name_of);
  if (it != tensors_.end() && it->name == stored_name) return &*it;
  const auto skipped = std::ranges::lower_bound(skipped_, stored_name, {}, name_of);
  if (skipped != skipped_.end() && skipped->name == stored_name)
    fail(ErrorCode::kUnsupported, "{}: tensor {} is {} with {} dims; weights must be F32, F16 or BF16 with at most 4",
         path_.string(), show_name(stored_name), skipped->dtype, skipped->shape.size());
  return nullptr;
}

}  // namespace chorale::parallel
