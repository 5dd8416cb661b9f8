#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "comm/base/bytes.h"
#include "comm/base/dtype.h"
#include "comm/base/tensor.h"

namespace chorale {
namespace {

TEST(ByteReader, ReadsWhatByteWriterWrote) {
  ByteWriter out;
  out.put(int32_t{-7});
  out.put("text");
  out.put(std::vector<float>{1.5f, -0.0f});
  const Bytes bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(in.get<int32_t>(), -7);
  EXPECT_EQ(in.get_string(), "text");
  EXPECT_EQ(in.get_vector<float>(), (std::vector<float>{1.5f, -0.0f}));
  in.expect_end();
}

TEST(ByteReader, RefusesALengthThatLies) {
  ByteWriter out;
  out.put(uint32_t{0xffffffffu});
  const Bytes bytes = out.take();
  EXPECT_THROW(ByteReader(bytes).get_string(), Error);
  EXPECT_THROW(ByteReader(bytes).get_vector<double>(), Error);
  EXPECT_THROW(ByteReader(bytes).get_count(1), Error);
}

TEST(BFloat16, RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // tie, even below
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);  // tie, even above
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(Float16, WidensEveryClassOfValueExactly) {
  EXPECT_EQ(to_float(Float16{0x3c00}), 1.0f);
  EXPECT_EQ(to_float(Float16{0x0001}), 0x1p-24f);
  EXPECT_EQ(to_float(Float16{0xfbff}), -65504.0f);
  EXPECT_TRUE(std::isinf(to_float(Float16{0x7c00})));
}

TEST(Tensor, ClonesAndSlicesRows) {
  Tensor t(DType::kF32, {4, 3});
  t.as<float>()[7] = 5.0f;
  const Tensor copy = t.clone();
  EXPECT_EQ(copy.view().rows(2, 4).as<float>()[1], 5.0f);
  EXPECT_EQ(copy.shape().to_string(), "[4, 3]");
}

}  // namespace
}  // namespace chorale
