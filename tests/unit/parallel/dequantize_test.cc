#include "parallel/checkpoint/dequantize.h"

#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include <nlohmann/json.hpp>

#include "comm/base/dtype.h"
#include "parallel/checkpoint/checkpoint.h"
#include "parallel/checkpoint/json_file.h"
#include "tests/support/shared_data.h"
#include "tests/unit/parallel/checkpoint_files.h"

namespace chorale::parallel {
namespace {

constexpr StorageType kAllTypes[] = {StorageType::kF32,  StorageType::kF16,  StorageType::kBF16, StorageType::kQ8_0,
                                     StorageType::kQ4_0, StorageType::kQ4_1, StorageType::kQ5_0, StorageType::kQ5_1,
                                     StorageType::kQ4_K, StorageType::kQ5_K, StorageType::kQ6_K};

nlohmann::json goldens() { return read_json_object(test::source_folder() / "tests/goldens/dequant.json"); }

std::vector<std::byte> from_hex(const std::string& hex) {
  std::vector<std::byte> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

std::vector<float> floats_of(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(Dequantize, EqualsTheReferenceBitForBit) {
  const nlohmann::json golden = goldens();
  for (const StorageType type : kAllTypes) {
    SCOPED_TRACE(to_string(type));
    const auto& entry = golden["types"][std::string(to_string(type))];
    const std::vector<std::byte> blocks = from_hex(entry["blocks"]);
    const std::vector<float> expected = floats_of(from_hex(entry["floats"]));
    const auto num_blocks = static_cast<int64_t>(blocks.size()) / block_bytes(type);
    ASSERT_EQ(num_blocks * block_elements(type), static_cast<int64_t>(expected.size()));
    ASSERT_GE(num_blocks, 3);
    std::vector<float> values(expected.size(), std::numeric_limits<float>::quiet_NaN());
    dequantize(type, blocks.data(), num_blocks, values.data());
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected[i]))
          << "element " << i << ": " << values[i];
  }
}

TEST(Dequantize, AgreesWithToFloatOnEveryHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    std::byte bytes[2];
    std::memcpy(bytes, &half, 2);
    float value;
    dequantize(StorageType::kF16, bytes, 1, &value);
    const float expected = to_float(Float16{half});
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      continue;
    }
    ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(expected)) << bits;
  }
}

// Any range of rows and columns equals the same range of the whole, and nothing outside of it is written.
TEST(ReadF32, CutsAnyRangeInsideBlocks) {
  for (const StorageType type : kAllTypes) {
    SCOPED_TRACE(to_string(type));
    constexpr int64_t kRows = 3, kCols = 768, kStride = 800;
    const int64_t num_blocks = kRows * kCols / block_elements(type);
    std::vector<std::byte> bytes(static_cast<size_t>(num_blocks * block_bytes(type)));
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>((i * 37 + i / 5) % 60);  // small finite scales
    const StoredTensor tensor{"t", type, Shape{kRows, kCols}, bytes};
    std::vector<float> whole(kRows * kCols);
    EXPECT_EQ(read_f32(tensor, 0, kRows, 0, kCols, whole.data(), kCols), bytes.size());
    const int64_t cuts[][2] = {{0, 768}, {0, 1},     {767, 768}, {31, 33},   {32, 64},
                               {5, 20},  {100, 700}, {255, 513}, {256, 512}, {40, 40}};
    for (const auto& [begin, end] : cuts) {
      std::vector<float> part(2 * kStride, -12345.0f);
      const uint64_t touched = read_f32(tensor, 1, 3, begin, end, part.data(), kStride);
      const int64_t elements = block_elements(type);
      const int64_t blocks = begin == end ? 0 : (end - 1) / elements - begin / elements + 1;
      EXPECT_EQ(touched, static_cast<uint64_t>(2 * blocks * block_bytes(type)));
      for (int64_t row = 0; row < 2; ++row)
        for (int64_t col = 0; col < kStride; ++col) {
          const float expected = col < end - begin ? whole[(row + 1) * kCols + begin + col] : -12345.0f;
          ASSERT_EQ(part[row * kStride + col], expected) << begin << ".." << end << " row " << row << " column " << col;
        }
    }
  }
}

TEST(ReadF32, TakesVectorsScalarsAndMoreDims) {
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7};
  const auto bytes = std::as_bytes(std::span(values));
  float out[4] = {};
  read_f32({"v", StorageType::kF32, Shape{8}, bytes}, 0, 1, 5, 8, out, 3);
  EXPECT_EQ(out[0], 5.0f);
  EXPECT_EQ(out[2], 7.0f);
  read_f32({"c", StorageType::kF32, Shape{2, 2, 2}, bytes}, 2, 4, 1, 2, out, 1);
  EXPECT_EQ(out[0], 5.0f);
  EXPECT_EQ(out[1], 7.0f);
  read_f32({"s", StorageType::kF32, Shape{}, bytes.subspan(4, 4)}, 0, 1, 0, 1, out, 1);
  EXPECT_EQ(out[0], 1.0f);
}

TEST(ReadF32Death, RangeOutsideTheShapeIsABug) {
  const float values[4] = {};
  float out[8];
  const StoredTensor tensor{"t", StorageType::kF32, Shape{2, 2}, std::as_bytes(std::span(values))};
  EXPECT_DEATH(read_f32(tensor, 0, 3, 0, 2, out, 2), "row_end");
  EXPECT_DEATH(read_f32(tensor, 0, 2, 1, 3, out, 2), "col_end");
}

// Sum over tensors and elements of bits * (2i + 1), as scripts/make_dequant_goldens.py computes it.
uint64_t checksum(const Checkpoint& checkpoint) {
  uint64_t total = 0;
  std::vector<float> row;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    const int64_t num_cols = tensor.shape[tensor.shape.num_dims() - 1];
    row.resize(static_cast<size_t>(num_cols));
    uint64_t i = 0;
    for (int64_t r = 0; r < tensor.shape.num_elements() / num_cols; ++r) {
      read_f32(tensor, r, r + 1, 0, num_cols, row.data(), num_cols);
      for (const float value : row) total += std::bit_cast<uint32_t>(value) * (2 * i++ + 1);
    }
  }
  return total;
}

TEST(ReadF32, EqualsTheReferenceOnWholeModels) {
  SHARED_OR_SKIP(folder, "goldens/gguf");
  const nlohmann::json golden = goldens();
  int num_files = 0;
  for (const auto& [name, entry] : golden["files"].items()) {
    if (!std::filesystem::exists(folder / name)) continue;
    SCOPED_TRACE(name);
    const Checkpoint checkpoint = Checkpoint::open(folder / name);
    EXPECT_EQ(checkpoint.tensors().size(), entry["num_tensors"].get<size_t>());
    EXPECT_EQ(std::to_string(checksum(checkpoint)), entry["checksum"].get<std::string>());
    ++num_files;
  }
  EXPECT_EQ(num_files, 13);
}

}  // namespace
}  // namespace chorale::parallel
