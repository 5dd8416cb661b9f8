#include "parallel/checkpoint/checkpoint.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "parallel/checkpoint/mapped_file.h"
#include "tests/support/shared_data.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/parallel/checkpoint_files.h"

namespace chorale::parallel {
namespace {

const std::string kTensorA = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
const std::string kTensorB = R"({"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}})";

TEST(Checkpoint, OpensTheSharedFolders) {
  SHARED_OR_SKIP(models, "models");
  SHARED_OR_SKIP(goldens, "goldens/models");
  std::vector<std::filesystem::path> folders;
  for (const auto& root : {models, goldens})
    for (const auto& item : std::filesystem::directory_iterator(root))
      if (std::filesystem::exists(item.path() / "config.json")) folders.push_back(item.path());
  EXPECT_GE(folders.size(), 12u);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.string());
    const Checkpoint checkpoint = Checkpoint::open(folder);
    EXPECT_EQ(checkpoint.gguf(), nullptr);
    EXPECT_TRUE(checkpoint.config_json().contains("model_type"));
    EXPECT_FALSE(checkpoint.tensors().empty());
    uint64_t bytes = 0;
    for (const StoredTensor& tensor : checkpoint.tensors()) {
      bytes += tensor.bytes.size();
      EXPECT_EQ(checkpoint.find(tensor.name), &tensor);
    }
    EXPECT_LE(bytes, checkpoint.file_bytes());
  }
}

TEST(Checkpoint, ReadsShapesAndShardsOfARealModel) {
  SHARED_OR_SKIP(folder, "goldens/models/llama3-gqa-rope");  // three shards with an index
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const auto& config = checkpoint.config_json();
  const StoredTensor* embedding = checkpoint.find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->shape, (Shape{config["vocab_size"].get<int64_t>(), config["hidden_size"].get<int64_t>()}));
  EXPECT_EQ(embedding->type, StorageType::kBF16);
  EXPECT_EQ(checkpoint.find("no.such.tensor"), nullptr);
}

TEST(Checkpoint, OpensAGgufFile) {
  SHARED_OR_SKIP(path, "goldens/gguf/llama-q4_k.gguf");
  const Checkpoint checkpoint = Checkpoint::open(path);
  ASSERT_NE(checkpoint.gguf(), nullptr);
  EXPECT_EQ(*checkpoint.gguf()->get_string("general.architecture"), "llama");
  EXPECT_EQ(checkpoint.file_bytes(), std::filesystem::file_size(path));
  ASSERT_NE(checkpoint.find("token_embd.weight"), nullptr);
  EXPECT_EQ(checkpoint.find("token_embd.weight")->shape.num_dims(), 2);
}

TEST(Checkpoint, ReadsExactlyTheFilesOfTheIndex) {
  const test::TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("one.safetensors", safetensors(kTensorA, 8));
  folder.write("two.safetensors", safetensors(kTensorB, 4));
  folder.write("model-00009.safetensors", "left over from another download");
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_TRUE(checkpoint.generation_config_json().is_null());
  EXPECT_EQ(checkpoint.find("b")->shape, (Shape{1, 2}));
  folder.write("model.safetensors", safetensors(kTensorA, 8));  // wins over the index
  EXPECT_EQ(Checkpoint::open(folder.path()).tensors().size(), 1u);
}

TEST(Checkpoint, SkipsWhatCannotBeAWeight) {
  const test::TemporaryFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                                R"("ids":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
                                                R"("conv":{"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[16,20]}})",
                                                20));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  EXPECT_EQ(checkpoint.tensors().size(), 1u);
  ASSERT_EQ(checkpoint.skipped_tensors().size(), 2u);
  EXPECT_EQ(checkpoint.skipped_tensors()[0].name, "conv");
  EXPECT_EQ(checkpoint.skipped_tensors()[1].dtype, "I64");
  expect_error([&] { checkpoint.find("ids"); }, ErrorCode::kUnsupported, "tensor 'ids' is I64");
}

struct BadFolder {
  std::string what;
  std::vector<std::pair<std::string, std::string>> files;
  ErrorCode code;
  std::string part;
};

std::vector<BadFolder> bad_folders() {
  const std::pair<std::string, std::string> config{"config.json", "{}"};
  const auto index = [&](const std::string& json) {
    return std::vector<std::pair<std::string, std::string>>{
        config, {"model.safetensors.index.json", json}, {"one.safetensors", safetensors(kTensorA, 8)}};
  };
  const ErrorCode corrupt = ErrorCode::kCorrupt, not_found = ErrorCode::kNotFound;
  return {
      {"empty folder", {}, not_found, "has no config.json"},
      {"no weights",
       {config, {"pytorch_model.bin", "x"}},
       not_found,
       "neither model.safetensors nor model.safetensors.index.json"},
      {"empty config", {{"config.json", ""}}, corrupt, "config.json is empty"},
      {"corrupt config", {{"config.json", R"({"a":)"}}, corrupt, "config.json is not valid JSON at byte"},
      {"bad UTF-8 config", {{"config.json", "{\"\xff\":1}"}}, corrupt, "config.json is not valid JSON"},
      {"config is a list", {{"config.json", "[1]"}}, corrupt, "config.json holds an array, expected an object"},
      {"deep config", {{"config.json", std::string(100, '[')}}, corrupt, "config.json nests deeper than 64 levels"},
      {"number overflow", {{"config.json", R"({"a":1e999})"}}, corrupt, "config.json is not valid JSON"},
      {"corrupt generation config",
       {config, {"generation_config.json", "3"}},
       corrupt,
       "generation_config.json holds a number"},
      {"empty weights", {config, {"model.safetensors", ""}}, corrupt, "model.safetensors is empty"},
      {"cut weights", {config, {"model.safetensors", safetensors(kTensorA, 7)}}, corrupt, "tensor 'a' ends at byte 8"},
      {"no weight_map", index("{}"), corrupt, "lacks the object weight_map"},
      {"weight_map is a list", index(R"({"weight_map":[]})"), corrupt, "lacks the object weight_map"},
      {"weight_map is empty", index(R"({"weight_map":{}})"), corrupt, "has an empty weight_map"},
      {"file is a number", index(R"({"weight_map":{"a":1}})"), corrupt,
       "gives tensor 'a' a number, expected a file name"},
      {"missing shard", index(R"({"weight_map":{"a":"two.safetensors"}})"), not_found,
       "names the file 'two.safetensors', which is missing"},
      {"tensor not in shard", index(R"({"weight_map":{"x":"one.safetensors"}})"), corrupt,
       "promises tensor 'x' in 'one.safetensors'"},
      {"traversal", index(R"({"weight_map":{"a":"../one.safetensors"}})"), corrupt,
       "expected a plain file name inside the folder"},
      {"absolute", index(R"({"weight_map":{"a":"/etc/passwd"}})"), corrupt,
       "names the file '/etc/passwd', expected a plain"},
      {"dots", index(R"({"weight_map":{"a":".."}})"), corrupt, "expected a plain file name"},
      {"no file name", index(R"({"weight_map":{"a":""}})"), corrupt, "expected a plain file name"},
      {"NUL in name", index(R"({"weight_map":{"a":"one\u0000x"}})"), corrupt,
       "'one\\x00x', expected a plain file name"},
  };
}

TEST(Checkpoint, RefusesBadFoldersInOneLine) {
  for (const BadFolder& bad : bad_folders()) {
    SCOPED_TRACE(bad.what);
    const test::TemporaryFolder folder;
    for (const auto& [name, content] : bad.files) folder.write(name, content);
    expect_error([&] { Checkpoint::open(folder.path()); }, bad.code, bad.part);
  }
}

TEST(Checkpoint, RefusesWhatIsNoCheckpoint) {
  const test::TemporaryFolder folder;
  expect_error([&] { Checkpoint::open(folder.path() / "none"); }, ErrorCode::kNotFound, "no checkpoint at");
  const auto text = folder.write("x.gguf", "hello");
  expect_error([&] { Checkpoint::open(text); }, ErrorCode::kCorrupt, "not a GGUF file");
  const auto weights = folder.write("model.safetensors", safetensors("{}"));
  expect_error([&] { Checkpoint::open(weights); }, ErrorCode::kUnsupported, "give the folder");
  std::filesystem::create_directory(folder.path() / "config.json");
  expect_error([&] { Checkpoint::open(folder.path()); }, ErrorCode::kCorrupt, "is a directory, expected a file");
}

TEST(MappedFile, RefusesWhatCannotBeMapped) {
  const test::TemporaryFolder folder;
  expect_error([&] { MappedFile::open(folder.path() / "none"); }, ErrorCode::kNotFound, "No such file");
  expect_error([&] { MappedFile::open(folder.path()); }, ErrorCode::kCorrupt, "is a directory");
  const auto empty = folder.write("empty", "");
  expect_error([&] { MappedFile::open(empty); }, ErrorCode::kCorrupt, "is empty");
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  expect_error([&] { MappedFile::open(fifo); }, ErrorCode::kCorrupt, "is not a regular file");
}

TEST(MappedFile, MovesItsMapping) {
  const test::TemporaryFolder folder;
  MappedFile a = MappedFile::open(folder.write("a", "aaa"));
  MappedFile b = MappedFile::open(folder.write("b", "bb"));
  b = std::move(a);
  ASSERT_EQ(b.bytes().size(), 3u);
  EXPECT_EQ(b.bytes()[2], std::byte{'a'});
}

TEST(ReadF32, NoticesAFileThatWasTruncatedLater) {
  const test::TemporaryFolder folder;
  folder.write("config.json", "{}");
  const auto path = folder.write("model.safetensors", safetensors(kTensorA, 8));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  float out[2];
  EXPECT_EQ(read_f32(*checkpoint.find("a"), 0, 1, 0, 2, out, 2), 8u);
  std::filesystem::resize_file(path, 10);
  expect_error([&] { read_f32(*checkpoint.find("a"), 0, 1, 0, 2, out, 2); }, ErrorCode::kCorrupt,
               "was truncated while in use");
}

}  // namespace
}  // namespace chorale::parallel
