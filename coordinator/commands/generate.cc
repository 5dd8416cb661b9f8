// chorale generate: runs jobs without a server, alone or under mpirun. Result lines go to standard output of rank 0, in
// input order.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <iostream>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/progress.h"
#include "comm/mpi_session.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/parse_arguments.h"
#include "coordinator/engine.h"
#include "coordinator/hosted_world.h"
#include "coordinator/model_services.h"

namespace chorale::coordinator {
namespace {

std::string json_string(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Counts finished jobs for the thread that prints.
class Completion {
 public:
  void add_one() {
    const std::lock_guard lock(mutex_);
    ++num_done_;
    changed_.notify_all();
  }
  template <typename Ready>
  void wait(Ready ready) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, ready);
  }
  int num_done() const { return num_done_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_done_ = 0;
};

/// Collects one prompt's choices. Thread: written by the engine, read after `done`.
class Collector : public JobSink {
 public:
  Collector(Completion& completion, int num_choices)
      : completion_(completion), choices_(static_cast<size_t>(num_choices)) {}

  struct Choice {
    std::vector<parallel::TokenLogprob> tokens;
    std::string text;
    FinishReason finish = FinishReason::kLength;  // of a choice without events: max_tokens was 0
  };
  const std::vector<Choice>& choices() const { return choices_; }
  const std::optional<Failure>& failure() const { return failure_; }
  bool done() const { return done_; }

  void on_prompt_logprobs(std::vector<parallel::SampledToken> /*tokens*/) override {}
  void on_token(TokenEvent event) override {
    Choice& choice = choices_.at(static_cast<size_t>(event.choice));
    choice.tokens.push_back(event.token.token);
    choice.text += event.text;
    if (event.finish) choice.finish = *event.finish;
  }
  void on_done(int64_t /*num_cached_tokens*/) override { end(); }
  void on_error(const Failure& failure) override {
    failure_ = failure;
    end();
  }
  bool is_congested() const override { return false; }

 private:
  void end() {
    done_ = true;
    completion_.add_one();
  }
  Completion& completion_;
  std::vector<Choice> choices_;
  std::optional<Failure> failure_;
  std::atomic<bool> done_ = false;
};

/// One input line: its prompts' collectors, or why it was refused.
struct Line {
  std::vector<std::vector<int32_t>> prompt_ids;
  std::vector<std::shared_ptr<Collector>> prompts;
  std::optional<Failure> refusal;

  std::optional<Failure> failure() const {
    if (refusal) return refusal;
    for (const auto& prompt : prompts)
      if (prompt->failure()) return prompt->failure();
    return std::nullopt;
  }
};

std::string result_line(size_t index, size_t choice_index, const std::vector<int32_t>& prompt_ids,
                        const Collector::Choice& choice) {
  std::vector<int32_t> ids;
  std::string logprobs;
  for (const parallel::TokenLogprob& token : choice.tokens) {
    ids.push_back(token.token_id);
    logprobs += fmt::format("{}{:.9g}", logprobs.empty() ? "" : ", ", token.logprob);  // nine digits: float32 exactly
  }
  return fmt::format(
      R"({{"index": {}, "choice": {}, "prompt_token_ids": [{}], "token_ids": [{}], "logprobs": [{}], "text": {}, "finish_reason": "{}"}})",
      index, choice_index, fmt::join(prompt_ids, ", "), fmt::join(ids, ", "), logprobs, json_string(choice.text),
      to_string(choice.finish));
}

/// Why a job failed. How the world was lost the engine has said, once for all jobs.
std::string reason_of(const Failure& failure) {
  return failure.code == ErrorCode::kPeerLost ? "the world of workers is lost" : failure.message;
}

/// Prints a line's results; false when it failed.
bool print_json(size_t index, const Line& line) {
  if (const std::optional<Failure> failure = line.failure()) {
    std::cout << fmt::format(R"({{"index": {}, "error": {}}})", index, json_string(reason_of(*failure))) << "\n";
    return false;
  }
  size_t choice_index = 0;
  for (size_t p = 0; p < line.prompts.size(); ++p)
    for (const Collector::Choice& choice : line.prompts[p]->choices())
      std::cout << result_line(index, choice_index++, line.prompt_ids[p], choice) << "\n";
  return true;
}

bool print_text(size_t index, const Line& line) {
  if (const std::optional<Failure> failure = line.failure()) {
    std::cerr << fmt::format("error: job {}: {}\n", index, reason_of(*failure));
    return false;
  }
  for (const auto& prompt : line.prompts)
    for (const Collector::Choice& choice : prompt->choices()) std::cout << choice.text << "\n";
  return true;
}

struct GenerateOptions {
  std::vector<std::string> bodies;  // request bodies, one a line
  bool json = false;
  ClusterOptions cluster;
};

Line start_line(const std::string& body, const api::ApiContext& context, Engine& engine, Completion& completion) {
  Line line;
  Result<api::ParsedRequest> parsed = api::parse_request(body, context);
  if (!parsed) {
    line.refusal = parsed.failure();
    return line;
  }
  for (JobRequest& job : parsed->jobs) {
    line.prompt_ids.push_back(job.prompt_ids);
    auto collector = std::make_shared<Collector>(completion, job.num_choices);
    const Result<JobId> id = engine.submit(std::move(job), collector);
    if (!id) {
      line.refusal = id.failure();
      return line;
    }
    line.prompts.push_back(std::move(collector));
  }
  return line;
}

int generate(const GenerateOptions& options, const ModelServices& services, std::unique_ptr<World> world) {
  const auto context =
      make_api_context(services, world->plan(), options.cluster.served_model_names, options.cluster.seed);
  EngineOptions engine_options = options.cluster.engine;
  engine_options.max_waiting_jobs = std::numeric_limits<int>::max();
  Completion completion;
  std::vector<Line> lines;
  Engine engine(engine_options, services.tokenizer, std::move(world));
  int num_prompts = 0;
  for (const std::string& body : options.bodies) {
    lines.push_back(start_line(body, *context, engine, completion));
    num_prompts += static_cast<int>(lines.back().prompts.size());
  }
  ProgressBar progress("jobs", num_prompts);
  bool all_good = true;
  bool world_lost = false;
  for (size_t index = 0; index < lines.size(); ++index) {
    const Line& line = lines[index];
    completion.wait([&] {
      progress.update(completion.num_done());
      return std::ranges::all_of(line.prompts, [](const auto& prompt) { return prompt->done(); });
    });
    all_good &= options.json ? print_json(index, line) : print_text(index, line);
    const std::optional<Failure> failure = line.failure();
    world_lost |= failure && failure->code == ErrorCode::kPeerLost;
  }
  std::cout.flush();
  const EngineStats stats = engine.stats();
  log_info("{} preemptions, {} prompt tokens from the prefix cache", stats.num_preemptions, stats.prefix_cache_hits);
  return world_lost ? kExitWorldLost : all_good ? kExitOk : kExitFailure;
}

/// Every non-blank line of a file, or of standard input for "-".
std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) fail(ErrorCode::kNotFound, "--jobs {}: cannot be opened", path);
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);)
    if (!is_blank(line)) lines.push_back(line);
  return lines;
}

/// The request body that --prompt or --chat stand for.
std::string body_of(const cxxopts::ParseResult& arguments) {
  nlohmann::json body;
  if (arguments.count("chat") != 0)
    body["messages"] = {{{"role", "user"}, {"content", arguments["chat"].as<std::string>()}}};
  else
    body["prompt"] = arguments["prompt"].as<std::string>();
  body["max_tokens"] = arguments["max-tokens"].as<int>();
  body["temperature"] = arguments["temperature"].as<double>();
  if (arguments.count("seed") != 0) body["seed"] = seed_of(arguments);
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

int run_generate(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale generate",
                           "Runs jobs without a server; results on standard output, in input order.");
  add_cluster_options(options);
  options.add_options("Jobs")  //
      ("jobs", "file with one /v1/completions or /v1/chat/completions body a line (- for standard input)",
       cxxopts::value<std::string>())                                                                        //
      ("prompt", "one completion instead of a file", cxxopts::value<std::string>())                          //
      ("chat", "one chat message instead of a file", cxxopts::value<std::string>())                          //
      ("max-tokens", "with --prompt or --chat", cxxopts::value<int>()->default_value("128"))                 //
      ("temperature", "with --prompt or --chat; 0 is greedy", cxxopts::value<double>()->default_value("0"))  //
      ("json", "one JSON object a result: index, choice, ids, logprobs, text, finish_reason")                //
      ("h,help", "print this");
  const auto arguments = parse_arguments(options, argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n  chorale generate --model M --chat 'What is the sea?'\n"
                 "  mpirun -n 4 chorale generate --model M --tp 2 --pp 2 --jobs jobs.jsonl --json\n";
    return kExitOk;
  }
  const auto num_sources = arguments.count("jobs") + arguments.count("prompt") + arguments.count("chat");
  if (num_sources != 1)
    fail(ErrorCode::kInvalidArgument, "give exactly one of --jobs FILE, --prompt TEXT, --chat TEXT");
  GenerateOptions generate_options;
  generate_options.cluster = read_cluster_options(arguments);
  generate_options.json = arguments.count("json") != 0;

  const auto session = comm::MpiSession::start();
  init_log(generate_options.cluster.log_level, fmt::format("rank {}", session->rank()));
  ModelServices services;
  if (session->rank() == 0) {
    generate_options.bodies = arguments.count("jobs") != 0 ? read_lines(arguments["jobs"].as<std::string>())
                                                           : std::vector{body_of(arguments)};
    services = load_model_services(generate_options.cluster.request.model_path, generate_options.cluster.chat_template);
  }
  return run_hosted(*session, worker, generate_options.cluster.request, [&](std::unique_ptr<World> world) {
    return generate(generate_options, services, std::move(world));
  });
}

}  // namespace chorale::coordinator
