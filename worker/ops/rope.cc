#include "worker/ops/rope.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"
#include "worker/ops/math.h"

namespace chorale::worker {

RopeTable make_rope_table(std::span<const double> inv_freq, int64_t max_positions, double attention_factor) {
  const auto half = static_cast<int64_t>(inv_freq.size());
  RopeTable table{Tensor(DType::kF32, {max_positions, half}), Tensor(DType::kF32, {max_positions, half})};
  for (int64_t p = 0; p < max_positions; ++p)
    for (int64_t i = 0; i < half; ++i) {
      const SinCos angle = sincos_f64(static_cast<double>(p) * inv_freq[static_cast<size_t>(i)]);
      table.cos.as<float>()[p * half + i] = static_cast<float>(angle.cos * attention_factor);
      table.sin.as<float>()[p * half + i] = static_cast<float>(angle.sin * attention_factor);
    }
  return table;
}

void rope(OpContext& ctx, const RopeArgs& args) {
  check_matrix(ctx, args.x, args.x.rows, args.x.cols);
  check_f32(args.x);
  CHECK_GT(args.head_dim, 0);
  CHECK_EQ(args.x.cols % args.head_dim, 0);
  CHECK(args.cos.shape.num_dims() == 2 && args.cos.shape == args.sin.shape);
  CHECK_LE(2 * args.cos.shape[1], args.head_dim);
  if (args.x.rows == 0) return;
  CHECK(args.positions != nullptr);
  if (ctx.device == DeviceKind::kCpu)
    for (int64_t i = 0; i < args.x.rows; ++i) CHECK(args.positions[i] >= 0 && args.positions[i] < args.cos.shape[0]);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
