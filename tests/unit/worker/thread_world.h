// A world whose ranks are threads, driven with step plans as a coordinator would make them: for tests of the stage
// runner. All plans are made before anything runs, so every generated token travels inside the world (from_step).
#pragma once

#include <algorithm>
#include <exception>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "parallel/cluster_plan.h"
#include "worker/runner.h"
#include "worker/weights/weight_loader.h"

namespace chorale::worker::test {

struct Job {
  std::vector<int32_t> prompt;
  int num_tokens = 0;
  parallel::SamplingParams sampling{.temperature = 0.0f};
  parallel::PromptLogprobs prompt_logprobs = parallel::PromptLogprobs::kNo;
};

/// `length` ids that differ with `salt`.
inline std::vector<int32_t> prompt_of(int length, int salt, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>((int64_t{i} * 37 + salt * 11 + 3) % vocab));
  return ids;
}

/// Sampling with everything that changes logits.
inline parallel::SamplingParams penalised_sampling() {
  return {.temperature = 1.3f,
          .min_p = 0.02f,
          .repetition_penalty = 1.2f,
          .presence_penalty = 0.3f,
          .frequency_penalty = 0.2f,
          .seed = 9};
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> prompt_logprobs;
  std::map<int32_t, std::vector<float>> logits_at;  // by predicted position, prompt rows included
  bool operator==(const Answer& other) const {
    return tokens == other.tokens && logprobs == other.logprobs && prompt_logprobs == other.prompt_logprobs;
  }
};

enum class Batching { kAlone, kTogether, kStaggered };

struct Schedule {
  Batching batching = Batching::kTogether;
  int chunk = 0;  // tokens of a prefill chunk; 0: the whole prompt
};

struct WorldOptions {
  int tp = 1;
  int pp = 1;
  int threads = 1;
  DType compute = DType::kF32;
  std::vector<double> shares;
  int64_t max_model_len = 256;
  int64_t num_kv_blocks = 160;
  DeviceKind device = DeviceKind::kCpu;  // of every rank
  int max_in_flight = 2;                 // where the runner takes so many
  parallel::CudaGraphs cuda_graphs = parallel::CudaGraphs::kOn;
  int max_num_seqs = 8;
  bool observes_logits = true;  // a device's host waits for them in every step
  parallel::DeviceComm device_comm = parallel::DeviceComm::kMpi;
  uint32_t deadline_ms = 0;  // of each step; 0: the plan's own
};

/// Turns jobs into plans: sequence id = job index + 1.
class Planner {
 public:
  Planner(const std::vector<Job>& jobs, Schedule schedule, int64_t num_blocks) : jobs_(jobs), schedule_(schedule) {
    // Blocks in an order that is neither ascending nor contiguous.
    for (int64_t i = 0; i < num_blocks; ++i) free_.push_back(static_cast<int32_t>((i * 7 + 3) % num_blocks));
  }

  std::vector<parallel::StepPlan> make() {
    std::vector<parallel::StepPlan> plans;
    std::vector<State> states(jobs_.size());
    size_t first_unfinished = 0;
    while (first_unfinished < jobs_.size()) {
      parallel::StepPlan plan;
      plan.epoch = 1;
      plan.step = plans.size() + 1;
      size_t may_run = jobs_.size();
      if (schedule_.batching == Batching::kAlone) may_run = first_unfinished + 1;
      if (schedule_.batching == Batching::kStaggered) may_run = std::min<size_t>(jobs_.size(), 1 + plans.size() / 2);
      plan.ends = std::exchange(ended_, {});
      for (size_t i = first_unfinished; i < may_run; ++i) add_chunk(i, states[i], plan);
      free_.insert(free_.end(), released_.begin(), released_.end());  // from the next step on
      released_.clear();
      plans.push_back(std::move(plan));
      while (first_unfinished < jobs_.size() && states[first_unfinished].is_done) ++first_unfinished;
    }
    return plans;
  }

 private:
  struct State {
    int32_t computed = 0;
    int generated = 0;
    uint64_t sampled_by = 0;
    std::vector<int32_t> blocks;
    bool has_started = false;
    bool is_done = false;
  };

  void add_chunk(size_t index, State& state, parallel::StepPlan& plan) {
    if (state.is_done) return;
    const Job& job = jobs_[index];
    const auto prompt_len = static_cast<int32_t>(job.prompt.size());
    parallel::SequenceChunk chunk;
    chunk.sequence_id = index + 1;
    chunk.first_position = state.computed;
    if (!state.has_started) {
      plan.starts.push_back({chunk.sequence_id, job.sampling, job.prompt, prompt_len});
      state.has_started = true;
    }
    if (state.computed < prompt_len) {
      const int32_t most = schedule_.chunk == 0 ? prompt_len : schedule_.chunk;
      chunk.num_tokens = std::min(most, prompt_len - state.computed);
      chunk.tokens.assign(job.prompt.begin() + state.computed, job.prompt.begin() + state.computed + chunk.num_tokens);
      chunk.prompt_logprobs = job.prompt_logprobs;
    } else {
      chunk.num_tokens = 1;
      chunk.from_step = state.sampled_by;
    }
    state.computed += chunk.num_tokens;
    while (static_cast<int32_t>(state.blocks.size()) * 16 < state.computed) {
      if (free_.empty()) throw std::runtime_error("the test's cache is too small");
      state.blocks.push_back(free_.back());
      chunk.new_blocks.push_back(free_.back());
      free_.pop_back();
    }
    if (state.computed >= prompt_len) {
      chunk.sample = parallel::Sample::kYes;
      state.sampled_by = plan.step;
      state.is_done = ++state.generated == job.num_tokens;
    }
    if (state.is_done) {
      released_.insert(released_.end(), state.blocks.begin(), state.blocks.end());
      ended_.push_back(chunk.sequence_id);
    }
    plan.chunks.push_back(std::move(chunk));
  }

  const std::vector<Job>& jobs_;
  Schedule schedule_;
  std::vector<int32_t> free_, released_;
  std::vector<uint64_t> ended_;
};

class ThreadWorld {
 public:
  ThreadWorld(const std::filesystem::path& model, const WorldOptions& options) : model_(model) {
    const auto checkpoint = parallel::Checkpoint::open(model);
    plan_.epoch = 1;
    plan_.config = parallel::load_model_config(checkpoint);
    plan_.layout = parallel::make_layout(plan_.config,
                                         {.tp = options.tp, .pp = options.pp, .stages = {}, .shares = options.shares});
    plan_.numerics.compute = plan_.numerics.cache = options.compute;
    plan_.numerics.isa = parallel::best_isa(options.compute);
    plan_.numerics.attention_leaves = parallel::num_attention_leaves(plan_.config);
    plan_.numerics.mlp_leaves = parallel::num_mlp_leaves(plan_.config);
    plan_.num_kv_blocks = options.num_kv_blocks;
    plan_.max_model_len = options.max_model_len;
    plan_.max_num_seqs = options.max_num_seqs;
    plan_.cuda_graphs = options.cuda_graphs;
    plan_.max_num_batched_tokens = 4096;
    plan_.threads = options.threads;
    plan_.spin_us = 0;
    plan_.device_comm = options.device_comm;
    device_ = options.device;
    max_in_flight_ = options.max_in_flight;
    observes_logits_ = options.observes_logits;
    deadline_ms_ = options.deadline_ms;
  }
  const parallel::ClusterPlan& plan() const { return plan_; }
  parallel::ModelConfig& config() { return plan_.config; }  // before run
  /// After run(): bytes that each rank read out of the checkpoint.
  const std::vector<uint64_t>& copied_bytes() const { return copied_bytes_; }

  /// Runs all jobs to their end and returns their answers. Throws the first rank's error.
  std::vector<Answer> run(const std::vector<Job>& jobs, Schedule schedule = {}) {
    std::vector<parallel::StepPlan> plans = Planner(jobs, schedule, plan_.num_kv_blocks).make();
    if (deadline_ms_ > 0)
      for (parallel::StepPlan& plan : plans) plan.deadline_ms = deadline_ms_;
    const int num_ranks = plan_.layout.num_ranks();
    answers_.assign(jobs.size(), {});
    copied_bytes_.assign(static_cast<size_t>(num_ranks), 0);
    auto worlds = comm::make_threads(num_ranks);
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> failures(static_cast<size_t>(num_ranks));
    for (int rank = 0; rank < num_ranks; ++rank)
      threads.emplace_back([&, rank] {
        try {
          run_rank(rank, *worlds[static_cast<size_t>(rank)], plans);
        } catch (...) {
          failures[static_cast<size_t>(rank)] = std::current_exception();
        }
      });
    for (std::thread& thread : threads) thread.join();
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
    return std::move(answers_);
  }

 private:
  void run_rank(int rank, comm::Communicator& world, const std::vector<parallel::StepPlan>& plans) {
    set_compute_thread_fp_state();
    ThreadPool pool({.num_threads = plan_.threads, .spin_us = 0});
    const auto group = world.split(group_members(plan_.layout, rank), Deadline::after(std::chrono::seconds(30)));
    const auto device = device_ == DeviceKind::kCpu ? nullptr : open_device(device_, 0);
    const auto stream = device == nullptr ? nullptr : device->make_stream();
    const DeviceStream where{device.get(), stream.get()};
    StageWeights weights = load_weights(parallel::Checkpoint::open(model_),
                                        {plan_.config, plan_.layout, rank, plan_.numerics.compute, where}, pool);
    copied_bytes_[static_cast<size_t>(rank)] = weights.copied_bytes();
    auto transports = make_stage_transports(plan_, rank, world, where, Deadline::after(std::chrono::seconds(30)));
    StageRunner runner(plan_, rank, world, *group, std::move(weights), pool, where, std::move(transports));
    if (observes_logits_)
      runner.set_logits_observer([this](uint64_t id, int32_t position, std::span<const float> logits) {
        answers_[id - 1].logits_at[position].assign(logits.begin(), logits.end());
      });
    const int most = std::min(max_in_flight_, runner.max_in_flight());
    for (const parallel::StepPlan& plan : plans) {
      if (runner.num_in_flight() == most) keep(runner.finish());
      runner.enqueue(plan);
    }
    while (runner.num_in_flight() > 0) keep(runner.finish());
  }

  void keep(const StepOutcome& outcome) {
    if (outcome.result) {
      for (const parallel::SampledToken& token : outcome.result->sampled) {
        Answer& answer = answers_[token.sequence_id - 1];
        answer.tokens.push_back(token.token.token_id);
        answer.logprobs.push_back(token.token.logprob);
      }
      for (const parallel::SampledToken& token : outcome.result->prompt_logprobs)
        answers_[token.sequence_id - 1].prompt_logprobs.push_back(token.token.logprob);
    }
  }

  std::filesystem::path model_;
  parallel::ClusterPlan plan_;
  DeviceKind device_ = DeviceKind::kCpu;
  int max_in_flight_ = 1;
  bool observes_logits_ = true;
  uint32_t deadline_ms_ = 0;
  std::vector<Answer> answers_;  // written by the last stage's leader only
  std::vector<uint64_t> copied_bytes_;
};

}  // namespace chorale::worker::test
