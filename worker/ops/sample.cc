#include "worker/ops/sample.h"

#include "parallel/step_plan.h"
#include "worker/ops/door.h"
#include "worker/ops/kernel.h"
#include "worker/philox.h"

namespace chorale::worker {

void sample(OpContext& ctx, const SampleArgs& args) {
  check_matrix(ctx, args.logits, args.logits.rows, args.logits.cols);
  check_f32(args.logits);
  if (args.logits.rows == 0) return;
  CHECK_GT(args.logits.cols, 0);
  CHECK(args.num_top >= 0 && args.num_top <= args.logits.cols);
  CHECK(args.rows != nullptr && args.chosen != nullptr && args.chosen_logprobs != nullptr);
  CHECK(args.num_top == 0 || (args.top_ids != nullptr && args.top_logprobs != nullptr));
  select_kernel(ctx, args).launch(ctx, args);
}

bool has_penalties(const parallel::SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
}

void SampleRows::add(const parallel::SamplingParams& params, int32_t prompt_len, int32_t position, int32_t count_slot) {
  const bool is_greedy = !(params.temperature >= kGreedyBelow), counts = has_penalties(params);
  CHECK(!counts || count_slot >= 0);
  SampleRow row{.draw = uniform_draw(params.seed, params.choice, static_cast<uint32_t>(position)),
                .temperature = is_greedy ? 0.0f : params.temperature,
                .top_p = params.top_p,
                .min_p = params.min_p,
                .repetition_penalty = params.repetition_penalty,
                .presence_penalty = params.presence_penalty,
                .frequency_penalty = params.frequency_penalty,
                .top_k = params.top_k,
                .count_slot = counts ? count_slot : -1,
                .first_bias = static_cast<int32_t>(bias_ids.size()),
                .num_biases = static_cast<int32_t>(params.logit_bias.size()),
                .first_banned = static_cast<int32_t>(banned_ids.size())};
  for (const auto& [id, bias] : params.logit_bias) {
    bias_ids.push_back(id);
    bias_values.push_back(bias);
  }
  if (position - prompt_len < params.min_tokens) {
    banned_ids.insert(banned_ids.end(), params.banned_until_min.begin(), params.banned_until_min.end());
    row.num_banned = static_cast<int32_t>(params.banned_until_min.size());
  }
  rows.push_back(row);
  if (!is_greedy) mix = RowMix::kAny;
}

void count_tokens(OpContext& ctx, const CountTokensArgs& args) {
  if (args.num_tokens == 0) return;
  CHECK(args.counts != nullptr && args.ids != nullptr && args.slots != nullptr);
  CHECK_GT(args.vocab, 0);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
