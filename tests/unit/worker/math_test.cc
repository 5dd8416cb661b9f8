// Error of the project's own elementary functions against libm in higher precision, over a dense sample of all float32
// values.
#include "worker/ops/math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

/// Distance in units of the last place of the (normal) result.
double ulps(float got, double want) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : 1e9;
  const auto rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::fabs(rounded) < std::numeric_limits<float>::min())
    return got == rounded || std::fabs(got) < std::numeric_limits<float>::min() ? 0 : 1e9;
  return std::fabs(got - want) / std::ldexp(1.0, std::ilogb(rounded) - 23);
}

constexpr uint32_t kStride = 1009;  // prime: reaches every exponent and all kinds of mantissas

template <typename Fn>
void for_floats(const Fn& fn) {
  for (uint64_t bits = 0; bits <= 0xffffffffu; bits += kStride) fn(std::bit_cast<float>(static_cast<uint32_t>(bits)));
}

class Math : public ::testing::Test {
 protected:
  ThreadPool pool_;  // sets the compute threads' floating-point state
};

TEST_F(Math, ExpIsWithinTwoUlps) {
  double worst = 0;
  for_floats([&](float x) { worst = std::max(worst, ulps(exp_f32(x), std::exp(static_cast<double>(x)))); });
  RecordProperty("ulps", std::to_string(worst));
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isnan(exp_f32(std::numeric_limits<float>::quiet_NaN())));
}

TEST_F(Math, LogIsWithinOneUlp) {
  double worst = 0;
  for_floats([&](float x) {
    if (!(std::fabs(x) < std::numeric_limits<float>::min()))
      worst = std::max(worst, ulps(log_f32(x), std::log(static_cast<double>(x))));
  });
  RecordProperty("ulps", std::to_string(worst));
  EXPECT_LE(worst, 1.0);
  EXPECT_EQ(log_f32(0.0f), -std::numeric_limits<float>::infinity());
}

TEST_F(Math, TanhIsWithinThreeUlps) {
  double worst = 0;
  for_floats([&](float x) { worst = std::max(worst, ulps(tanh_f32(x), std::tanh(static_cast<double>(x)))); });
  RecordProperty("ulps", std::to_string(worst));
  EXPECT_LE(worst, 3.0);
}

TEST_F(Math, ErfIsWithinItsAbsoluteError) {
  double worst = 0;
  for_floats([&](float x) {
    if (!std::isnan(x)) worst = std::max(worst, std::fabs(erf_f32(x) - std::erf(static_cast<double>(x))));
  });
  RecordProperty("error", std::to_string(worst));
  EXPECT_LE(worst, 2e-7);
}

TEST_F(Math, SinCosAreExactToFloat64) {
  double worst = 0;
  for (int i = 0; i < 400000; ++i) {
    const double x = (i - 200000) * 1.2345678901 * (i % 7 == 0 ? 4000.0 : 1.0);
    const SinCos got = sincos_f64(x);
    worst = std::max({worst, std::fabs(got.sin - std::sin(x)), std::fabs(got.cos - std::cos(x))});
  }
  EXPECT_LE(worst, 4e-16);  // libm's own error is half of it
}

}  // namespace
}  // namespace chorale::worker
