#include "parallel/step_plan.h"

#include <unordered_set>

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

void put_sampling(const SamplingParams& p, ByteWriter& out) {
  out.put(p.temperature);
  out.put(p.top_k);
  out.put(p.top_p);
  out.put(p.min_p);
  out.put(p.repetition_penalty);
  out.put(p.presence_penalty);
  out.put(p.frequency_penalty);
  out.put(p.seed);
  out.put(p.choice);
  out.put(p.num_top_logprobs);
  out.put(p.min_tokens);
  out.put(p.banned_until_min);
  out.put(static_cast<uint32_t>(p.logit_bias.size()));
  for (const auto& [id, bias] : p.logit_bias) {
    out.put(id);
    out.put(bias);
  }
}

SamplingParams get_sampling(ByteReader& in) {
  SamplingParams p;
  in.get(p.temperature);
  in.get(p.top_k);
  in.get(p.top_p);
  in.get(p.min_p);
  in.get(p.repetition_penalty);
  in.get(p.presence_penalty);
  in.get(p.frequency_penalty);
  in.get(p.seed);
  in.get(p.choice);
  in.get(p.num_top_logprobs);
  in.get(p.min_tokens);
  p.banned_until_min = in.get_vector<int32_t>();
  const uint32_t num_biases = in.get_count(sizeof(int32_t) + sizeof(float));
  for (uint32_t i = 0; i < num_biases; ++i) {
    const auto id = in.get<int32_t>();
    p.logit_bias.emplace_back(id, in.get<float>());
  }
  return p;
}

void put_token(const TokenLogprob& token, ByteWriter& out) {
  out.put(token.token_id);
  out.put(token.logprob);
}

TokenLogprob get_token(ByteReader& in) {
  const auto id = in.get<int32_t>();
  return {id, in.get<float>()};
}

void put_sampled(const std::vector<SampledToken>& tokens, ByteWriter& out) {
  out.put(static_cast<uint32_t>(tokens.size()));
  for (const SampledToken& sampled : tokens) {
    out.put(sampled.sequence_id);
    out.put(sampled.position);
    put_token(sampled.token, out);
    out.put(static_cast<uint32_t>(sampled.top.size()));
    for (const TokenLogprob& token : sampled.top) put_token(token, out);
  }
}

std::vector<SampledToken> get_sampled(ByteReader& in) {
  constexpr size_t kTokenBytes = sizeof(int32_t) + sizeof(float);
  constexpr size_t kSampledBytes = sizeof(uint64_t) + sizeof(int32_t) + kTokenBytes + sizeof(uint32_t);
  std::vector<SampledToken> tokens(in.get_count(kSampledBytes));
  for (SampledToken& sampled : tokens) {
    in.get(sampled.sequence_id);
    in.get(sampled.position);
    sampled.token = get_token(in);
    sampled.top.resize(in.get_count(kTokenBytes));
    for (TokenLogprob& token : sampled.top) token = get_token(in);
  }
  return tokens;
}

SequenceChunk get_chunk(ByteReader& in) {
  SequenceChunk chunk;
  in.get(chunk.sequence_id);
  in.get(chunk.first_position);
  in.get(chunk.num_tokens);
  chunk.tokens = in.get_vector<int32_t>();
  in.get(chunk.from_step);
  chunk.new_blocks = in.get_vector<int32_t>();
  chunk.sample = in.get<uint8_t>() != 0 ? Sample::kYes : Sample::kNo;
  chunk.prompt_logprobs = in.get<uint8_t>() != 0 ? PromptLogprobs::kYes : PromptLogprobs::kNo;
  return chunk;
}

constexpr size_t kMinStartBytes = 64;
constexpr size_t kMinChunkBytes = 34;

}  // namespace

int StepPlan::num_tokens() const {
  int total = 0;
  for (const SequenceChunk& chunk : chunks) total += chunk.num_tokens;
  return total;
}

Bytes StepPlan::encode() const {
  ByteWriter out;
  out.put(epoch);
  out.put(step);
  out.put(deadline_ms);
  out.put(ends);
  out.put(static_cast<uint32_t>(starts.size()));
  for (const SequenceStart& start : starts) {
    out.put(start.sequence_id);
    put_sampling(start.sampling, out);
    out.put(start.history);
    out.put(start.prompt_len);
  }
  out.put(static_cast<uint32_t>(chunks.size()));
  for (const SequenceChunk& chunk : chunks) {
    out.put(chunk.sequence_id);
    out.put(chunk.first_position);
    out.put(chunk.num_tokens);
    out.put(chunk.tokens);
    out.put(chunk.from_step);
    out.put(chunk.new_blocks);
    out.put(chunk.sample);
    out.put(chunk.prompt_logprobs);
  }
  return out.take();
}

StepPlan StepPlan::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  StepPlan plan;
  in.get(plan.epoch);
  in.get(plan.step);
  in.get(plan.deadline_ms);
  plan.ends = in.get_vector<uint64_t>();
  const uint32_t num_starts = in.get_count(kMinStartBytes);
  for (uint32_t i = 0; i < num_starts; ++i) {
    SequenceStart start;
    in.get(start.sequence_id);
    start.sampling = get_sampling(in);
    start.history = in.get_vector<int32_t>();
    in.get(start.prompt_len);
    plan.starts.push_back(std::move(start));
  }
  const uint32_t num_chunks = in.get_count(kMinChunkBytes);
  for (uint32_t i = 0; i < num_chunks; ++i) plan.chunks.push_back(get_chunk(in));
  in.expect_end();
  return plan;
}

std::string StepPlan::to_string() const {
  std::string text = fmt::format("step {} of world {}: {} tokens", step, epoch, num_tokens());
  for (uint64_t id : ends) text += fmt::format("; end {}", id);
  for (const SequenceStart& start : starts)
    text += fmt::format("; start {} ({} prompt + {} generated)", start.sequence_id, start.prompt_len,
                        static_cast<int64_t>(start.history.size()) - start.prompt_len);
  for (const SequenceChunk& chunk : chunks)
    text += fmt::format("; seq {} [{}, {}){}{}", chunk.sequence_id, chunk.first_position,
                        chunk.first_position + chunk.num_tokens,
                        chunk.tokens.empty() ? fmt::format(" from step {}", chunk.from_step) : "",
                        chunk.sample == Sample::kYes ? " sample" : "");
  return text;
}

void validate(const StepPlan& plan, int64_t num_kv_blocks, int64_t max_model_len, int max_num_batched_tokens) {
  const auto refuse = [&plan](const std::string& what) {
    fail(ErrorCode::kInvalidArgument, "step {}: {}", plan.step, what);
  };
  if (plan.num_tokens() > max_num_batched_tokens)
    refuse(fmt::format("{} tokens, at most {}", plan.num_tokens(), max_num_batched_tokens));
  std::unordered_set<uint64_t> sequences;
  for (const SequenceChunk& chunk : plan.chunks) {
    const uint64_t id = chunk.sequence_id;
    if (!sequences.insert(id).second) refuse(fmt::format("sequence {} appears twice", id));
    if (chunk.num_tokens < 1 || chunk.first_position < 0 ||
        int64_t{chunk.first_position} + chunk.num_tokens > max_model_len)
      refuse(fmt::format("sequence {}: positions [{}, +{}) are outside [0, {})", id, chunk.first_position,
                         chunk.num_tokens, max_model_len));
    const bool by_id = static_cast<int32_t>(chunk.tokens.size()) == chunk.num_tokens;
    const bool by_step =
        chunk.tokens.empty() && chunk.num_tokens == 1 && chunk.from_step > 0 && chunk.from_step < plan.step;
    if (!by_id && !by_step)
      refuse(fmt::format("sequence {}: {} tokens given for {} rows", id, chunk.tokens.size(), chunk.num_tokens));
    for (int32_t block : chunk.new_blocks)
      if (block < 0 || block >= num_kv_blocks)
        refuse(fmt::format("sequence {}: block {} is outside [0, {})", id, block, num_kv_blocks));
  }
}

Bytes StepResult::encode() const {
  ByteWriter out;
  out.put(epoch);
  out.put(step);
  put_sampled(sampled, out);
  put_sampled(prompt_logprobs, out);
  return out.take();
}

StepResult StepResult::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  StepResult result;
  in.get(result.epoch);
  in.get(result.step);
  result.sampled = get_sampled(in);
  result.prompt_logprobs = get_sampled(in);
  in.expect_end();
  return result;
}

Bytes StageReport::encode() const {
  ByteWriter out;
  out.put(epoch);
  out.put(step);
  out.put(stage);
  out.put(compute_us);
  out.put(comm_us);
  out.put(wait_us);
  out.put(gap_ns);
  return out.take();
}

StageReport StageReport::decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  StageReport report;
  in.get(report.epoch);
  in.get(report.step);
  in.get(report.stage);
  in.get(report.compute_us);
  in.get(report.comm_us);
  in.get(report.wait_us);
  in.get(report.gap_ns);
  in.expect_end();
  return report;
}

}  // namespace chorale::parallel
