#include "parallel/checkpoint/gguf.h"

#include <malloc.h>

#include <chrono>
#include <fstream>
#include <optional>

#include "tests/support/shared_data.h"
#include "tests/unit/parallel/checkpoint_files.h"

namespace chorale::parallel {
namespace {

enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kFloat, kBool, kString, kArray, kU64, kI64, kDouble };

GgufFile parse(const std::string& file) { return GgufFile::parse(as_bytes(file), "f.gguf"); }

// A file with metadata only, from its key-value bytes.
std::string with_keys(uint64_t num_keys, const FileBytes& keys) {
  return gguf_header(0, num_keys).raw(keys.str()).str();
}

// A file with these rows as its table of tensors, then `data_bytes` of data.
std::string with_tensors(const std::vector<std::string>& rows, size_t data_bytes) {
  FileBytes file = gguf_header(rows.size(), 0);
  for (const std::string& row : rows) file.raw(row);
  return file.pad_to(32, data_bytes).str();
}

TEST(Gguf, ReadsEveryKindOfValue) {
  FileBytes keys;
  keys.text("u8")
      .put(kU8)
      .put(uint8_t{200})
      .text("i8")
      .put(kI8)
      .put(int8_t{-3})
      .text("u16")
      .put(kU16)
      .put(uint16_t{60000});
  keys.text("i16")
      .put(kI16)
      .put(int16_t{-4})
      .text("u32")
      .put(kU32)
      .put(uint32_t{4000000000})
      .text("i32")
      .put(kI32)
      .put(-5);
  keys.text("f32")
      .put(kFloat)
      .put(1.5f)
      .text("bool")
      .put(kBool)
      .put(uint8_t{1})
      .text("text")
      .put(kString)
      .text("hello");
  keys.text("u64")
      .put(kU64)
      .put(uint64_t{1} << 62)
      .text("i64")
      .put(kI64)
      .put(int64_t{-6})
      .text("f64")
      .put(kDouble)
      .put(0.1);
  keys.text("ints").put(kArray).put(kI16).put(uint64_t{2}).put(int16_t{-1}).put(int16_t{2});
  keys.text("floats").put(kArray).put(kFloat).put(uint64_t{1}).put(2.5f);
  keys.text("texts").put(kArray).put(kString).put(uint64_t{2}).text("a").text("");
  keys.text("bools").put(kArray).put(kBool).put(uint64_t{2}).put(uint8_t{0}).put(uint8_t{1});
  const GgufFile file = parse(with_keys(16, keys));
  EXPECT_EQ(file.get_int("u8"), 200);
  EXPECT_EQ(file.get_int("i8"), -3);
  EXPECT_EQ(file.get_int("u16"), 60000);
  EXPECT_EQ(file.get_int("i16"), -4);
  EXPECT_EQ(file.get_int("u32"), 4000000000);
  EXPECT_EQ(file.get_int("i32"), -5);
  EXPECT_EQ(file.get_float("f32"), 1.5);
  EXPECT_EQ(file.get_float("i32"), -5.0);
  EXPECT_EQ(file.get_bool("bool"), true);
  EXPECT_EQ(*file.get_string("text"), "hello");
  EXPECT_EQ(file.get_int("u64"), int64_t{1} << 62);
  EXPECT_EQ(file.get_int("i64"), -6);
  EXPECT_EQ(file.get_float("f64"), 0.1);
  EXPECT_EQ(*file.get_ints("ints"), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(*file.get_floats("floats"), (std::vector<double>{2.5}));
  EXPECT_EQ(*file.get_strings("texts"), (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(std::get<std::vector<bool>>(*file.find("bools")), (std::vector<bool>{false, true}));
  EXPECT_EQ(file.get_int("absent"), std::nullopt);
  EXPECT_EQ(file.get_strings("absent"), nullptr);
  expect_error([&] { file.get_int("text"); }, ErrorCode::kCorrupt,
               "metadata key 'text' is a string, expected an integer");
}

TEST(Gguf, PlacesTensorsInRowMajorOrder) {
  std::string bytes = with_tensors({gguf_tensor("a", {32, 3}, 0, 0), gguf_tensor("b", {64, 2}, 8, 384)}, 384 + 136);
  bytes[bytes.size() - 136] = 'b';
  const GgufFile file = parse(bytes);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].shape, (Shape{3, 32}));
  EXPECT_EQ(file.tensors()[0].type, StorageType::kF32);
  EXPECT_EQ(file.tensors()[1].shape, (Shape{2, 64}));
  EXPECT_EQ(file.tensors()[1].type, StorageType::kQ8_0);
  EXPECT_EQ(file.tensors()[1].bytes.size(), 136u);
  EXPECT_EQ(file.tensors()[1].bytes[0], std::byte{'b'});
}

TEST(Gguf, ObeysGeneralAlignment) {
  FileBytes file = gguf_header(1, 1);
  file.text("general.alignment").put(kU32).put(uint32_t{256}).raw(gguf_tensor("a", {1}, 0, 0)).pad_to(256);
  file.put(42.0f);
  const GgufFile result = parse(file.str());
  float value;
  std::memcpy(&value, result.tensors()[0].bytes.data(), 4);
  EXPECT_EQ(value, 42.0f);
}

struct Hostile {
  std::string what;
  std::string bytes;
  ErrorCode code;
  std::string part;
};

std::vector<Hostile> hostile_headers() {
  const auto key = [](uint32_t type) { return FileBytes().text("k").put(type); };
  const auto list = [&](uint32_t type, uint64_t count) { return key(kArray).put(type).put(count); };
  const ErrorCode corrupt = ErrorCode::kCorrupt, unsupported = ErrorCode::kUnsupported;
  return {
      {"not GGUF", "GGML....", corrupt, "does not start with \"GGUF\""},
      {"three bytes", "GGU", corrupt, "does not start with \"GGUF\""},
      {"version 1", gguf_header(0, 0, 1).str(), unsupported, "GGUF version 1 is not supported"},
      {"version 4", gguf_header(0, 0, 4).str(), unsupported, "GGUF version 4 is not supported"},
      {"version 0", gguf_header(0, 0, 0).str(), unsupported, "GGUF version 0 is not supported"},
      {"big-endian", gguf_header(0, 0, 0x03000000).str(), unsupported, "big-endian GGUF files are not supported"},
      {"ends in header", "GGUF\x03", corrupt, "truncated: the file ends at byte 5 inside the header"},
      {"huge count of keys", gguf_header(0, ~0ull).str(), corrupt,
       "count of metadata keys claims 18446744073709551615 items"},
      {"huge count of tensors", gguf_header(1ull << 60, 0).str(), corrupt,
       "count of tensors claims 1152921504606846976 items"},
      {"key longer than file", with_keys(1, FileBytes().put(uint64_t{1} << 63).raw(std::string(20, 'x'))), corrupt,
       "a metadata key claims 9223372036854775808 bytes of text"},
      {"empty key", with_keys(1, FileBytes().text("").put(kU8).put(uint64_t{1})), corrupt, "has a name of 0 bytes"},
      {"key of 70000 bytes", with_keys(1, FileBytes().text(std::string(70000, 'x')).put(kU8).put(uint8_t{1})), corrupt,
       "has a name of 70000 bytes, expected 1 to 65535"},
      {"unknown type", with_keys(1, key(13)), corrupt, "metadata key 'k' has the unknown type 13"},
      {"value cut off", with_keys(1, key(kU64).put(uint32_t{1})), corrupt, "inside the value of metadata key 'k'"},
      {"text cut off", with_keys(1, key(kString).put(uint64_t{9}).raw("short")), corrupt,
       "claims 9 bytes of text, but the file has only 5"},
      {"bool of 2", with_keys(1, key(kBool).put(uint8_t{2})), corrupt, "a bool of 2, expected 0 or 1"},
      {"u64 too large", with_keys(1, key(kU64).put(~0ull)), unsupported, "above the range of int64"},
      {"u64 item too large", with_keys(1, list(kU64, 1).put(~0ull)), unsupported, "above the range of int64"},
      {"bool item of 7", with_keys(1, list(kBool, 1).put(uint8_t{7})), corrupt,
       "item 0 of metadata key 'k' is not a bool"},
      {"list too long", with_keys(1, list(kU32, 1ull << 62)), corrupt, "claims 4611686018427387904 items"},
      {"list of texts too long", with_keys(1, list(kString, 1000).raw(std::string(100, '\0'))), corrupt,
       "claims 1000 items"},
      {"nested list", with_keys(1, list(kArray, 1).put(kU8).put(uint64_t{0})), unsupported,
       "nested lists are not supported"},
      {"list of unknown type", with_keys(1, list(99, 0)), corrupt, "has the unknown item type 99"},
      {"key twice", with_keys(2, key(kU8).put(uint8_t{1}).text("k").put(kU8).put(uint8_t{2})), corrupt,
       "metadata key 'k' appears twice"},
      {"newline in key",
       with_keys(2, FileBytes().text("a\nb").put(kU8).put(uint8_t{1}).text("a\nb").put(kU8).put(uint8_t{2})), corrupt,
       "metadata key 'a\\x0ab' appears twice"},
      {"split file", with_keys(1, FileBytes().text("split.count").put(kU16).put(uint16_t{3})), unsupported,
       "part of a split GGUF file (3 parts)"},
      {"alignment 0", with_keys(1, FileBytes().text("general.alignment").put(kU32).put(uint32_t{0})), corrupt,
       "general.alignment is 0"},
      {"alignment 48", with_keys(1, FileBytes().text("general.alignment").put(kU32).put(uint32_t{48})), corrupt,
       "general.alignment is 48"},
      {"alignment text", with_keys(1, FileBytes().text("general.alignment").put(kString).text("32")), corrupt,
       "'general.alignment' is a string, expected an integer"},
  };
}

std::vector<Hostile> hostile_tensors() {
  const ErrorCode corrupt = ErrorCode::kCorrupt, unsupported = ErrorCode::kUnsupported;
  const auto one = [](const std::string& row, size_t data_bytes) { return with_tensors({row}, data_bytes); };
  return {
      {"past the end", one(gguf_tensor("t", {64}, 0, 0), 255), corrupt,
       "'t' needs 256 bytes at offset 0, but the file holds only 255"},
      {"offset past the end", one(gguf_tensor("t", {1}, 0, 1ull << 40), 64), corrupt, "at offset 1099511627776"},
      {"offset overflows", one(gguf_tensor("t", {32}, 0, ~0ull - 31), 128), corrupt,
       "needs 128 bytes at offset 18446744073709551584"},
      {"unaligned offset", one(gguf_tensor("t", {4}, 0, 8), 64), corrupt,
       "offset 8, not a multiple of the alignment 32"},
      {"dims overflow", one(gguf_tensor("t", {1ull << 40, 1ull << 40}, 0, 0), 64), corrupt,
       "impossible number of elements"},
      {"dims wrap to zero", one(gguf_tensor("t", {1ull << 32, 1ull << 32, 2}, 0, 0), 64), corrupt,
       "impossible number of elements"},
      {"five dims", one(gguf_tensor("t", {1, 1, 1, 1, 1}, 0, 0), 64), corrupt, "has 5 dimensions, expected at most 4"},
      {"empty dim", one(gguf_tensor("t", {4, 0}, 0, 0), 64), corrupt, "has an empty dimension"},
      {"broken block", one(gguf_tensor("t", {48}, 8, 0), 64), corrupt,
       "rows of 48 elements, not a multiple of Q8_0's block of 32"},
      {"broken superblock", one(gguf_tensor("t", {128}, 12, 0), 144), corrupt, "not a multiple of Q4_K's block of 256"},
      {"IQ2_XS", one(gguf_tensor("blk.0.x", {256}, 17, 0), 256), unsupported,
       "tensor 'blk.0.x' has type IQ2_XS; supported are F32"},
      {"I64", one(gguf_tensor("t", {4}, 27, 0), 64), unsupported, "has type I64; supported are"},
      {"unknown type", one(gguf_tensor("t", {4}, 1000, 0), 64), corrupt, "has the unknown type 1000"},
      {"removed type", one(gguf_tensor("t", {32}, 4, 0), 64), corrupt, "has the unknown type 4"},
      {"empty name", one(gguf_tensor("", {4}, 0, 0), 64), corrupt, "has a name of 0 bytes"},
      {"name twice", with_tensors({gguf_tensor("t", {8}, 0, 0), gguf_tensor("t", {8}, 0, 32)}, 64), corrupt,
       "tensor 't' appears twice"},
      {"overlap", with_tensors({gguf_tensor("a", {16}, 0, 32), gguf_tensor("b", {16}, 0, 0)}, 128), corrupt,
       "tensors 'b' and 'a' overlap"},
      {"table cut off", with_tensors({gguf_tensor("t", {8}, 0, 0)}, 32).substr(0, 50), corrupt,
       "the file ends at byte 50 inside tensor 't'"},
      {"data cut off", with_tensors({gguf_tensor("t", {8}, 0, 0)}, 32).substr(0, 62), corrupt,
       "holds only 0 bytes of tensors"},
  };
}

TEST(Gguf, RefusesHostileFilesInOneLine) {
  std::vector<Hostile> cases = hostile_headers();
  for (Hostile& hostile : hostile_tensors()) cases.push_back(std::move(hostile));
  for (const Hostile& hostile : cases) {
    SCOPED_TRACE(hostile.what);
    expect_error([&] { parse(hostile.bytes); }, hostile.code, hostile.part);
    expect_error([&] { parse(hostile.bytes); }, hostile.code, "f.gguf");
  }
}

TEST(Gguf, AllocatesLittleForASmallFile) {
  constexpr size_t kFileBytes = 100'000;
  FileBytes many_keys, many_rows;
  uint32_t num_keys = 0, num_rows = 0;
  for (; many_keys.str().size() < kFileBytes; ++num_keys)
    many_keys.put(uint64_t{4}).put(num_keys).put(kU8).put(uint8_t{0});
  for (; many_rows.str().size() < kFileBytes; ++num_rows)
    many_rows.put(uint64_t{4}).put(num_rows).put(uint32_t{0}).put(uint32_t{0}).put(uint64_t{0});
  const FileBytes list = FileBytes().text("k").put(kArray);
  const std::string files[] = {
      with_keys(num_keys, many_keys),
      gguf_header(num_rows, 0).raw(many_rows.str()).pad_to(32, 4).str(),
      with_keys(1, FileBytes(list).put(kU8).put(uint64_t{kFileBytes}).pad_to(1, kFileBytes)),
      with_keys(1, FileBytes(list).put(kString).put(uint64_t{kFileBytes / 8}).pad_to(1, kFileBytes)),
      with_keys(1,
                FileBytes(list).put(kString).put(uint64_t{kFileBytes / 8 - 9}).pad_to(1, kFileBytes - 77).put(~0ull)),
  };
  for (const std::string& bytes : files) {
    const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;  // zero under a sanitizer
    std::optional<GgufFile> file;
    try {
      file = parse(bytes);
    } catch (const Error&) {
    }
    EXPECT_LT(mallinfo2().uordblks + mallinfo2().hblkhd, before + 3'000'000);
  }
}

TEST(Gguf, EveryPrefixOfAFileIsRefusedOrAtLeastHarmless) {
  SHARED_OR_SKIP(path, "goldens/gguf/llama-q4_k.gguf");
  const GgufFile whole = GgufFile::open(path);
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  size_t num_refused = 0;
  for (size_t size = 0; size < bytes.size(); size += size < 12000 ? 7 : 4001) {
    const std::string prefix = bytes.substr(0, size);  // its own buffer, so that a sanitizer sees the end
    try {
      parse(prefix);
    } catch (const Error&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_refused, 1000u);
  EXPECT_THROW(parse(bytes.substr(0, bytes.size() - 33)), Error);
}

TEST(Gguf, ReadsTheSharedModels) {
  SHARED_OR_SKIP(folder, "goldens/gguf");
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    if (item.path().extension() != ".gguf") continue;
    SCOPED_TRACE(item.path().string());
    const GgufFile file = GgufFile::open(item.path());
    const std::string architecture = *file.get_string("general.architecture");
    const int64_t width = *file.get_int(architecture + ".embedding_length");
    for (const StoredTensor& tensor : file.tensors()) {
      if (tensor.name != "token_embd.weight") continue;
      EXPECT_EQ(tensor.shape[1], width);
    }
    EXPECT_GT(file.tensors().size(), 10u);
  }
}

TEST(Gguf, ReadsAVocabularyWithoutTensorsQuickly) {
  SHARED_OR_SKIP(path, "tokenizers/llamacpp-golden/ggml-vocab-qwen2.gguf");
  const auto start = std::chrono::steady_clock::now();
  const GgufFile file = GgufFile::open(path);
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_TRUE(file.tensors().empty());
  EXPECT_GT(file.get_strings("tokenizer.ggml.tokens")->size(), 150000u);
  EXPECT_LT(elapsed.count(), 2000.0);  // 30 ms on an idle core; the bound is for busy machines and sanitizers
}

}  // namespace
}  // namespace chorale::parallel
