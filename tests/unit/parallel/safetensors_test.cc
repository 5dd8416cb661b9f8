#include "parallel/checkpoint/safetensors.h"

#include <fstream>

#include "tests/support/shared_data.h"
#include "tests/unit/parallel/checkpoint_files.h"

namespace chorale::parallel {
namespace {

SafetensorsFile parse(const std::string& file) { return SafetensorsFile::parse(as_bytes(file), "f.safetensors"); }

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets, size_t data_bytes) {
  return safetensors(R"({"t":)" + tensor(dtype, shape, offsets) + "}", data_bytes);
}

TEST(Safetensors, ReadsTensorsSortedByName) {
  std::string bytes =
      safetensors(R"({"__metadata__":{"format":"pt"},"b":)" + tensor("F32", "[2,3]", "[0,24]") + R"(,"a":)" +
                      tensor("BF16", "[4]", "[24,32]") + R"(,"scalar":)" + tensor("I64", "[]", "[32,40]") +
                      R"(,"none":)" + tensor("F16", "[0,7]", "[40,40]") + "}   ",
                  40);
  bytes[bytes.size() - 16] = 'x';
  const SafetensorsFile file = parse(bytes);
  ASSERT_EQ(file.entries().size(), 4u);
  EXPECT_EQ(file.entries()[0].name, "a");
  EXPECT_EQ(file.entries()[0].dtype, "BF16");
  EXPECT_EQ(file.entries()[0].bytes[0], std::byte{'x'});
  ASSERT_NE(file.find("b"), nullptr);
  EXPECT_EQ(file.find("b")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.find("b")->bytes.size(), 24u);
  EXPECT_TRUE(file.find("scalar")->shape.empty());
  EXPECT_EQ(file.find("none")->bytes.size(), 0u);
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST(Safetensors, IgnoresWhateverMetadataHolds) {
  const std::string good = tensor("F32", "[1]", "[0,4]");
  EXPECT_EQ(
      parse(safetensors(R"({"__metadata__":{"a":["b",{"c":1.5}],"d":null},"t":)" + good + "}", 4)).entries().size(),
      1u);
  EXPECT_EQ(parse(safetensors("{}")).entries().size(), 0u);
}

struct Hostile {
  std::string what;
  std::string bytes;
  std::string part;
};

std::vector<Hostile> hostile_files() {
  const std::string good = tensor("F32", "[2]", "[0,8]");
  std::string ones;
  for (int i = 0; i < 32; ++i) ones += "1,";
  const auto header = [](const std::string& json) { return safetensors(json, 8); };
  return {
      {"seven bytes", "1234567", "not a safetensors file: 7 bytes"},
      {"huge header", FileBytes().put(~0ull).raw("{}").str(),
       "claims 18446744073709551615 bytes, the limit is 100000000"},
      {"header past the end", FileBytes().put(uint64_t{3}).raw("{}").str(),
       "the header claims 3 bytes, but only 2 follow"},
      {"no header", safetensors(""), "the header does not start with '{'"},
      {"a list", header("[]"), "the header does not start with '{'"},
      {"leading space", header(" {}"), "the header does not start with '{'"},
      {"not JSON", header(R"({"t":)"), "not valid JSON at byte"},
      {"text behind", header(R"({} x)"), "not valid JSON at byte"},
      {"bad UTF-8", header("{\"\xff\":1}"), "not valid JSON at byte"},
      {"number overflow", header(R"({"t":1e999})"), "not valid JSON at byte"},
      {"tensor is a number", header(R"({"t":3})"), "tensor 't' has a number where none belongs"},
      {"tensor is a list", header(R"({"t":[]})"), "tensor 't' has a list, expected an object"},
      {"tensor is null", header(R"({"t":null})"), "tensor 't' has null where none belongs"},
      {"metadata is a text", header(R"({"__metadata__":"x"})"), "__metadata__ has a text where none belongs"},
      {"deep metadata", header(R"({"__metadata__":{"a":)" + std::string(5000, '[')), "nests deeper than 16"},
      {"deep shape", header(R"({"t":{"shape":[[)"), "tensor 't' has a list where none belongs"},
      {"unknown field", header(R"({"t":{"strides":[1]}})"), "tensor 't' has the unknown field 'strides'"},
      {"field twice", header(R"({"t":{"dtype":"F32","dtype":"F16"}})"), "tensor 't' has the field 'dtype' twice"},
      {"dtype is a number", header(R"({"t":{"dtype":1}})"), "a number where none belongs"},
      {"shape is a text", header(R"({"t":{"shape":"[2]"}})"), "a text where none belongs"},
      {"negative dim", one("F32", "[-2]", "[0,8]", 8), "the number -2 where none belongs"},
      {"fractional dim", one("F32", "[2.0]", "[0,8]", 8), "the number '2.0' where none belongs"},
      {"boolean dim", one("F32", "[true]", "[0,8]", 8), "true where none belongs"},
      {"33 dims", one("F32", "[" + ones + "1]", "[0,4]", 4), "more than 32 numbers in 'shape'"},
      {"no dtype", header(R"({"t":{"shape":[2],"data_offsets":[0,8]}})"), "tensor 't' lacks dtype"},
      {"no shape", header(R"({"t":{"dtype":"F32","data_offsets":[0,8]}})"), "tensor 't' lacks shape"},
      {"no offsets", header(R"({"t":{"dtype":"F32","shape":[2]}})"), "tensor 't' lacks data_offsets"},
      {"unknown dtype", one("F33", "[2]", "[0,8]", 8), "tensor 't' has the unknown dtype 'F33'"},
      {"one offset", one("F32", "[2]", "[8]", 8), "has 1 data_offsets, expected 2"},
      {"three offsets", one("F32", "[2]", "[0,8,8]", 8), "has 3 data_offsets, expected 2"},
      {"offsets swapped", one("F32", "[2]", "[8,0]", 8), "ends at 0 before it starts at 8"},
      {"past the end", one("F32", "[2]", "[0,8]", 7), "ends at byte 8 of the data, but the file has 7"},
      {"offset overflow", one("F32", "[2]", "[18446744073709551608,18446744073709551615]", 8),
       "ends at byte 18446744073709551615"},
      {"shape overflow", one("F32", "[4294967296,4294967296,4294967296]", "[0,8]", 8), "impossible number of elements"},
      {"bits overflow", one("F64", "[288230376151711744]", "[0,0]", 0), "impossible number of elements"},
      {"too few bytes", one("F32", "[3]", "[0,8]", 8), "has 8 bytes, but its shape and dtype F32 need 12"},
      {"too many bytes", one("F16", "[2]", "[0,8]", 8), "has 8 bytes, but its shape and dtype F16 need 4"},
      {"half a byte", one("F4", "[3]", "[0,1]", 1), "its shape and dtype F4 need 1"},
      {"overlap", safetensors(R"({"a":)" + good + R"(,"b":)" + tensor("F32", "[2]", "[4,12]") + "}", 12),
       "tensors 'a' and 'b' overlap"},
      {"same bytes", safetensors(R"({"a":)" + good + R"(,"b":)" + good + "}", 8), "tensors 'a' and 'b' overlap"},
      {"hole", safetensors(R"({"a":)" + good + R"(,"b":)" + tensor("F32", "[1]", "[12,16]") + "}", 16),
       "4 bytes before tensor 'b' belong to no"},
      {"trailing bytes", one("F32", "[2]", "[0,8]", 9), "1 bytes behind the last tensor belong to no tensor"},
      {"name twice", safetensors(R"({"t":)" + good + R"(,"t":)" + tensor("F32", "[1]", "[8,12]") + "}", 12),
       "tensor 't' appears twice"},
      {"newline in name", header("{\"a\\nb\":3}"), "tensor 'a\\x0ab' has a number"},
  };
}

TEST(Safetensors, RefusesHostileFilesInOneLine) {
  for (const Hostile& hostile : hostile_files()) {
    SCOPED_TRACE(hostile.what);
    expect_error([&] { parse(hostile.bytes); }, ErrorCode::kCorrupt, hostile.part);
    expect_error([&] { parse(hostile.bytes); }, ErrorCode::kCorrupt, "f.safetensors");
  }
}

TEST(Safetensors, EveryPrefixOfAFileIsRefused) {
  SHARED_OR_SKIP(path, "models/capp-gpt/model.safetensors");
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  EXPECT_NO_THROW(parse(bytes));
  for (size_t size = 0; size < bytes.size(); size += size < 3000 ? 1 : 40009) {
    const std::string prefix = bytes.substr(0, size);  // its own buffer, so that a sanitizer sees the end
    EXPECT_THROW(parse(prefix), Error) << size;
  }
}

}  // namespace
}  // namespace chorale::parallel
