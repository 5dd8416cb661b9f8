// The emulator itself: threads, barriers, shuffles, matrix instructions, late copies, and what it refuses.
#include "worker/kernels/cuda/emulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/device_test_support.h"
#include "worker/kernels/cuda/math.cuh"
#include "worker/kernels/cuda/matrix_instructions.cuh"
#include "worker/ops/math.h"

namespace chorale::worker {
namespace {

class Emulator : public ::testing::Test {
 protected:
  template <typename Params>
  void run(void (*kernel)(Params), LaunchShape shape, const Params& params) {
    launch(rank_.ctx, kernel, shape, params);
  }
  TestRank rank_;
};

struct SumParams {
  const int* in;
  int* out;
  int n;
};
// The block's sum by a tree in shared memory: needs a barrier a level.
template <bool kHasBarrier>
void sum_kernel(SumParams p) {
  int* part = shared_memory<int>();
  const unsigned t = thread_index().x;
  part[t] = static_cast<int>(t) < p.n ? p.in[block_index().x * block_dims().x + t] : 0;
  for (unsigned width = block_dims().x / 2; width > 0; width /= 2) {
    if (kHasBarrier || width == block_dims().x / 2) sync_block();
    if (t < width) part[t] += part[t + width];
  }
  if (t == 0) p.out[block_index().x] = part[0];
}

TEST_F(Emulator, RunsBarriersInEveryOrder) {
  std::vector<int> in(3 * 256), out(3);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i);
  for (auto order : {emulator::Order::kForward, emulator::Order::kBackward, emulator::Order::kShuffled}) {
    emulator::set_order(order);
    run(sum_kernel<true>, {.grid = {3}, .block = {256}, .shared_bytes = 256 * sizeof(int)},
        SumParams{in.data(), out.data(), 256});
    EXPECT_EQ(out, (std::vector<int>{32640, 98176, 163712}));
  }
  emulator::set_order(emulator::Order::kForward);
}

TEST_F(Emulator, ShowsAMissingBarrier) {
  std::vector<int> in(256, 1), out(1);
  int wrong = 0;
  for (auto order : {emulator::Order::kForward, emulator::Order::kBackward, emulator::Order::kShuffled}) {
    emulator::set_order(order);
    run(sum_kernel<false>, {.grid = {1}, .block = {256}, .shared_bytes = 256 * sizeof(int)},
        SumParams{in.data(), out.data(), 256});
    wrong += out[0] != 256;
  }
  emulator::set_order(emulator::Order::kForward);
  EXPECT_GT(wrong, 0);
}

struct Empty {};
void stuck_kernel(Empty) {
  if (thread_index().x < 40) sync_block();
  if (thread_index().x >= 40) sync_warp();
}
TEST_F(Emulator, NamesTheThreadsThatAreStuck) {
  try {
    run(stuck_kernel, {.grid = {2}, .block = {64}}, Empty{});
    FAIL() << "a block with threads at different barriers ended";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("block (0, 0, 0) is stuck"), std::string::npos) << error.what();
  }
  std::vector<int> in(64, 1), out(1);  // and it goes on with the next launch
  run(sum_kernel<true>, {.grid = {1}, .block = {64}, .shared_bytes = 256}, SumParams{in.data(), out.data(), 64});
  EXPECT_EQ(out[0], 64);
}

struct WarpParams {
  float* out;  // [6, 32]
};
void warp_kernel(WarpParams p) {
  const unsigned l = lane();
  const float mine = static_cast<float>(l * l);
  p.out[l] = shuffle_xor(mine, 5);
  p.out[32 + l] = shuffle_down(mine, 7);
  p.out[64 + l] = shuffle_up(mine, 3);
  p.out[96 + l] = shuffle(mine, 11);
  p.out[128 + l] = static_cast<float>(ballot(l % 3 == 0) >> l & 1u);
  p.out[160 + l] = shared_memory<float>()[l];
}
TEST_F(Emulator, ShufflesAndPoisonsSharedMemory) {
  std::vector<float> out(6 * 32);
  run(warp_kernel, {.grid = {1}, .block = {32}, .shared_bytes = 128}, WarpParams{out.data()});
  for (int l = 0; l < 32; ++l) {
    EXPECT_EQ(out[l], (l ^ 5) * (l ^ 5));
    EXPECT_EQ(out[32 + l], l + 7 > 31 ? l * l : (l + 7) * (l + 7));
    EXPECT_EQ(out[64 + l], l < 3 ? l * l : (l - 3) * (l - 3));
    EXPECT_EQ(out[96 + l], 121);
    EXPECT_EQ(out[128 + l], l % 3 == 0 ? 1 : 0);
    EXPECT_TRUE(std::isnan(out[160 + l]));
  }
}

struct MmaParams {
  const float* a;  // [16, 16]
  const float* b;  // [16, 8]
  float* d;        // [16, 8], read and written
};
template <typename T>
void mma_kernel(MmaParams p) {
  const unsigned g = lane() / 4, t = lane() % 4;
  FragmentA a;
  FragmentB b;
  FragmentC c;
  for (unsigned r = 0; r < 4; ++r) {
    const unsigned row = g + 8 * (r % 2), col = 2 * t + 8 * (r / 2);
    a.reg[r] = pack_pair<T>(p.a[row * 16 + col], p.a[row * 16 + col + 1]);
  }
  for (unsigned r = 0; r < 2; ++r)
    b.reg[r] = pack_pair<T>(p.b[(2 * t + 8 * r) * 8 + g], p.b[(2 * t + 8 * r + 1) * 8 + g]);
  for (unsigned i = 0; i < 4; ++i) c.value[i] = p.d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  multiply_accumulate<T>(c, a, b);
  for (unsigned i = 0; i < 4; ++i) p.d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = c.value[i];
}
template <typename T>
void expect_product(TestRank& rank, T (*round)(float)) {
  std::vector<float> a = random_floats(256, 1), b = random_floats(128, 2), d = random_floats(128, 3), want = d;
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n)
      for (int k = 0; k < 16; ++k)
        want[m * 8 + n] = std::fma(to_float(round(a[m * 16 + k])), to_float(round(b[k * 8 + n])), want[m * 8 + n]);
  launch(rank.ctx, mma_kernel<T>, {.grid = {1}, .block = {32}}, MmaParams{a.data(), b.data(), d.data()});
  EXPECT_EQ(d, want);
}
TEST_F(Emulator, MultipliesMatricesAsAChain) {
  expect_product<BFloat16>(rank_, chorale::to_bf16);
  expect_product<Float16>(rank_, chorale::to_f16);
}

struct CopyParams {
  const float* in;
  float* out;
};
template <bool kWaits>
void copy_kernel(CopyParams p) {
  auto* shared = shared_memory<float>();
  const unsigned t = thread_index().x;
  copy_async_16(shared + 4 * t, p.in + 4 * t);
  copy_async_commit();
  if (kWaits) copy_async_wait<0>();
  sync_block();
  for (unsigned i = 0; i < 4; ++i) p.out[4 * t + i] = shared[(4 * t + i + 60) % 128];
  if (!kWaits) copy_async_wait<0>();
}
TEST_F(Emulator, CopiesArriveNoSoonerThanTheyAreWaitedFor) {
  const std::vector<float> in = random_floats(128, 1);
  std::vector<float> out(128);
  run(copy_kernel<true>, {.grid = {1}, .block = {32}, .shared_bytes = 512}, CopyParams{in.data(), out.data()});
  for (int i = 0; i < 128; ++i) EXPECT_EQ(out[i], in[(i + 60) % 128]);
  run(copy_kernel<false>, {.grid = {1}, .block = {32}, .shared_bytes = 512}, CopyParams{in.data(), out.data()});
  EXPECT_TRUE(std::isnan(out[0]));
}

// What hardware leaves undefined and the emulator refuses, one an element.
enum class Wrong { kNothing, kTwoInstructions, kLaneEndedBefore, kLaneEndsDuring, kCopyTo, kCopyFrom, kLoad };
struct WrongParams {
  Wrong what;
  const float* in;
  float* out;
};
void wrong_kernel(WrongParams p) {
  auto* shared = shared_memory<float>();
  const unsigned l = lane();
  shared[l] = 1.0f;
  float value = 0.0f;
  if (p.what == Wrong::kTwoInstructions) value = l < 5 ? shuffle(value, 0) : static_cast<float>(ballot(true));
  if (p.what == Wrong::kLaneEndedBefore && l == 0) return;  // the first to run in this order
  if (p.what == Wrong::kLaneEndsDuring && l == 31) return;
  sync_warp();
  if (p.what == Wrong::kCopyTo) copy_async_16(shared + 1, p.in);
  if (p.what == Wrong::kCopyFrom) copy_async_16(shared, p.in + 1);
  if (p.what == Wrong::kLoad) value = float_of(load_once_16(p.in + 2).word[0]);
  copy_async_commit();
  copy_async_wait<0>();
  p.out[l] = shuffle(value, 3);
}
TEST_F(Emulator, RefusesWhatHardwareLeavesUndefined) {
  alignas(16) float in[8] = {};
  std::vector<float> out(64);
  const auto complaint_of = [&](Wrong what, unsigned threads = 32) -> std::string {
    try {
      run(wrong_kernel, {.grid = {1}, .block = {threads}, .shared_bytes = 256}, WrongParams{what, in, out.data()});
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  };
  using ::testing::HasSubstr;
  EXPECT_EQ(complaint_of(Wrong::kNothing), "nothing");
  EXPECT_THAT(complaint_of(Wrong::kTwoInstructions), HasSubstr("thread 31 meets its warp for another instruction"));
  EXPECT_THAT(complaint_of(Wrong::kLaneEndedBefore), HasSubstr("thread 1 meets its warp, of which a lane has ended"));
  EXPECT_THAT(complaint_of(Wrong::kLaneEndsDuring), HasSubstr("thread 31 ends while other lanes of its warp wait"));
  EXPECT_THAT(complaint_of(Wrong::kNothing, 40),
              HasSubstr("thread 39 meets for all 32 lanes in a warp that has fewer"));
  EXPECT_THAT(complaint_of(Wrong::kCopyTo), HasSubstr("copies 16 bytes to shared memory that is not aligned"));
  EXPECT_THAT(complaint_of(Wrong::kCopyFrom), HasSubstr("copies 16 bytes from memory that is not aligned"));
  EXPECT_THAT(complaint_of(Wrong::kLoad), HasSubstr("loads 16 bytes that are not aligned"));
  EXPECT_EQ(complaint_of(Wrong::kNothing, 64), "nothing");  // and it goes on with the next launch
}

struct MathParams {
  const float* x;
  float* out;  // [3, n]
  int n;
};
void math_kernel(MathParams p) {
  const int i = static_cast<int>(block_index().x * 256 + thread_index().x);
  if (i >= p.n) return;
  p.out[i] = exp_of(p.x[i]);
  p.out[p.n + i] = tanh_of(p.x[i]);
  p.out[2 * p.n + i] = erf_of(p.x[i]);
}
TEST_F(Emulator, ElementaryFunctionsHaveTheBitsOfTheScalarOnes) {
  const int n = 100000;
  std::vector<float> x(n), out(3 * n);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i - n / 2) * 0.0021f;
  x[0] = INFINITY, x[1] = -INFINITY, x[2] = 0.0f, x[3] = -0.0f;
  run(math_kernel, {.grid = {(n + 255) / 256}, .block = {256}}, MathParams{x.data(), out.data(), n});
  for (int i = 0; i < n; ++i) {
    ASSERT_EQ(out[i], worker::exp_f32(x[i])) << x[i];
    ASSERT_EQ(out[n + i], worker::tanh_f32(x[i])) << x[i];
    ASSERT_EQ(out[2 * n + i], worker::erf_f32(x[i])) << x[i];
  }
}

TEST(DeviceTypes, RoundsToFloat16) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // every float16 comes back
    const Float16 h{static_cast<uint16_t>(bits)};
    const float f = to_float(h);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(f))));
      continue;
    }
    ASSERT_EQ(to_f16(f).bits, h.bits);
    if (std::isinf(f) || (bits & 0x7fff) >= 0x7bff) continue;  // the middle to the next one rounds to even
    const float next = to_float(Float16{static_cast<uint16_t>(bits + 1)}), middle = f + (next - f) * 0.5f;
    ASSERT_EQ(to_f16(middle).bits, bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(to_f16(std::nextafter(middle, f)).bits, bits);
    ASSERT_EQ(to_f16(std::nextafter(middle, next)).bits, bits + 1);
  }
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);
}

}  // namespace
}  // namespace chorale::worker
