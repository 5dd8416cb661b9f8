#include "worker/sampler.h"

#include <algorithm>
#include <limits>

#include "comm/base/error.h"
#include "worker/ops/math.h"
#include "worker/ops/sample.h"
#include "worker/philox.h"

namespace chorale::worker {
namespace {

constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

bool is_greedy(const parallel::SamplingParams& params) { return !(params.temperature >= kGreedyBelow); }

int32_t best_id(std::span<const float> logits) {
  int32_t best = 0;
  for (size_t id = 1; id < logits.size(); ++id)
    if (logits[id] > logits[best]) best = static_cast<int32_t>(id);
  return best;
}

// Candidates in order, sorted only as far as anybody has looked: most draws end within the first few.
class OrderedCandidates {
 public:
  OrderedCandidates(std::span<const float> logits, std::vector<int32_t>& ids) : logits_(logits), ids_(ids) {}
  size_t size() const { return ids_.size(); }
  int32_t operator[](size_t i) {
    if (i >= num_sorted_) sort_to(std::min(ids_.size(), std::max<size_t>(kFirst, num_sorted_ * kGrowth)));
    return ids_[i];
  }
  void keep_best(size_t k) {
    if (k < ids_.size()) sort_to(k), ids_.resize(k);
  }

 private:
  static constexpr size_t kFirst = 64, kGrowth = 16;
  void sort_to(size_t end) {
    const auto before = [this](int32_t a, int32_t b) {
      return logits_[a] > logits_[b] || (logits_[a] == logits_[b] && a < b);
    };
    const auto from = ids_.begin() + static_cast<std::ptrdiff_t>(num_sorted_);
    const auto to = ids_.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != ids_.end()) std::nth_element(from, to, ids_.end(), before);
    std::sort(from, to, before);
    num_sorted_ = end;
  }
  std::span<const float> logits_;
  std::vector<int32_t>& ids_;
  size_t num_sorted_ = 0;
};

}  // namespace

SequenceSampler::SequenceSampler(const parallel::SequenceStart& start) : params_(start.sampling) {
  const auto prompt_len = std::min<size_t>(static_cast<size_t>(std::max(start.prompt_len, 0)), start.history.size());
  prompt_.assign(start.history.begin(), start.history.begin() + static_cast<std::ptrdiff_t>(prompt_len));
  has_penalties_ =
      params_.repetition_penalty != 1.0f || params_.presence_penalty != 0.0f || params_.frequency_penalty != 0.0f;
  if (!has_penalties_) return;
  for (int32_t token : prompt_) output_counts_.try_emplace(token, 0);
  for (size_t i = prompt_len; i < start.history.size(); ++i) ++output_counts_[start.history[i]];
}

void SequenceSampler::append(int32_t token) {
  if (has_penalties_) ++output_counts_[token];
}

bool SequenceSampler::is_plain_greedy(int32_t position) const {
  const bool is_banning = is_banned_time(position) && !params_.banned_until_min.empty();
  return is_greedy(params_) && !has_penalties_ && params_.logit_bias.empty() && !is_banning;
}

void SequenceSampler::adjust(std::span<float> logits, int32_t position) const {
  const auto is_inside = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < logits.size(); };
  for (const auto& [id, bias] : params_.logit_bias)
    if (is_inside(id)) logits[id] += bias;
  if (is_banned_time(position))
    for (int32_t id : params_.banned_until_min)
      if (is_inside(id)) logits[id] = kMinusInf;
  // Each id is changed on its own, so the map's order does not matter.
  for (const auto& [id, count] : output_counts_) {
    if (!is_inside(id)) continue;
    float& logit = logits[id];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    logit -= params_.frequency_penalty * static_cast<float>(count);
    if (count > 0) logit -= params_.presence_penalty;
  }
}

int32_t SequenceSampler::sample(std::span<const float> raw, int32_t position, SamplerScratch& scratch) const {
  CHECK(!raw.empty());
  scratch.logits.assign(raw.begin(), raw.end());
  const std::span<float> logits(scratch.logits);
  for (float& logit : logits)
    if (logit != logit) logit = kMinusInf;
  adjust(logits, position);
  for (float& logit : logits)  // a bias of +inf on a masked id, or 0 x inf
    if (logit != logit) logit = kMinusInf;
  if (is_greedy(params_)) return best_id(logits);
  for (float& logit : logits) logit /= params_.temperature;
  return draw(logits, position, scratch);
}

int32_t SequenceSampler::draw(std::span<const float> logits, int32_t position, SamplerScratch& scratch) const {
  const float max = logits[static_cast<size_t>(best_id(logits))];
  if (max == kMinusInf) return 0;
  std::vector<float>& weights = scratch.weights;
  std::vector<int32_t>& ids = scratch.candidates;
  weights.resize(logits.size());
  ids.clear();
  double total = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    weights[id] = logits[id] == max ? 1.0f : exp_f32(logits[id] - max);  // also where both are +inf
    if (weights[id] == 0 || weights[id] < params_.min_p) continue;
    ids.push_back(static_cast<int32_t>(id));
    total += weights[id];
  }
  OrderedCandidates candidates(logits, ids);
  if (params_.top_k > 0 && static_cast<size_t>(params_.top_k) < candidates.size()) {
    candidates.keep_best(static_cast<size_t>(params_.top_k));
    total = 0;
    for (int32_t id : ids) total += weights[id];
  }
  double kept = total;
  size_t num_kept = candidates.size();
  if (params_.top_p < 1.0f) {
    kept = 0;
    num_kept = 0;
    const double enough = static_cast<double>(params_.top_p) * total;
    while (num_kept < candidates.size() && (num_kept == 0 || kept < enough)) kept += weights[candidates[num_kept++]];
  }
  const double target = uniform_draw(params_.seed, params_.choice, static_cast<uint32_t>(position)) * kept;
  double cumulative = 0;
  for (size_t i = 0; i + 1 < num_kept; ++i) {
    cumulative += weights[candidates[i]];
    if (cumulative > target) return candidates[i];
  }
  return candidates[num_kept - 1];
}

}  // namespace chorale::worker
