// chorale submit: sends jobs to a running server and prints their answers, as they come or as JSON lines.
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/env.h"
#include "coordinator/bench/statistics.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/load_client.h"
#include "coordinator/commands/parse_arguments.h"

namespace chorale::coordinator {
namespace {

using Json = nlohmann::ordered_json;

enum class Print { kStreamed, kText, kJson };

struct Plan {
  std::vector<std::string> bodies;
  Print print = Print::kText;
  int concurrency = 1;
  std::chrono::seconds timeout{600};
};

cxxopts::Options make_options() {
  cxxopts::Options options("chorale submit", "Sends jobs to a running server and prints the answers.");
  options.add_options()                                                                                               //
      ("url", "the server", cxxopts::value<std::string>()->default_value("http://127.0.0.1:8000"))                    //
      ("api-key", "sent as bearer token; default: CHORALE_API_KEY", cxxopts::value<std::string>())                    //
      ("prompt", "complete this text", cxxopts::value<std::string>())                                                 //
      ("chat", "answer this message of a user", cxxopts::value<std::string>())                                        //
      ("messages", "JSON file with a list of chat messages (- is standard input)", cxxopts::value<std::string>())     //
      ("jobs", "file with one completions or chat body a line (- is standard input)", cxxopts::value<std::string>())  //
      ("model", "name of the served model", cxxopts::value<std::string>())                                            //
      ("max-tokens", "most tokens of an answer", cxxopts::value<int64_t>())                                           //
      ("temperature", "0 is greedy", cxxopts::value<double>())                                                        //
      ("top-p", "nucleus", cxxopts::value<double>())                                                                  //
      ("top-k", "most likely tokens to choose from", cxxopts::value<int64_t>())                                       //
      ("seed", "same seed, same answer", cxxopts::value<std::string>())                                               //
      ("n", "answers to each prompt", cxxopts::value<int64_t>())                                                      //
      ("stop", "stop string; may be given several times", cxxopts::value<std::string>())                              //
      ("stream", "print the text as it comes (default on a terminal, for one job)")                                   //
      ("no-stream", "print the text when it is whole")                                                                //
      ("json", "print one JSON object a job: index, seconds, response or error")                                      //
      ("concurrency", "jobs under way at once", cxxopts::value<int>()->default_value("1"))                            //
      ("timeout", "seconds for one job", cxxopts::value<int>()->default_value("600"))                                 //
      ("h,help", "print this");
  options.positional_help("");
  return options;
}

constexpr const char* kExamples = R"(
examples:
  chorale submit --chat "What is the capital of France?" --max-tokens 64
  chorale submit --url http://node7:8000 --prompt "Once upon a time" --temperature 0 --seed 1
  chorale submit --jobs prompts.jsonl --concurrency 16 --json > answers.jsonl
)";

std::string read_file(const std::string& path) {
  if (path == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::kNotFound, "cannot read {}", path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// Fields given on the command line go into every job that does not set them itself.
void add_fields(const cxxopts::ParseResult& arguments, Json& body) {
  const auto add = [&](const char* option, const char* field, const auto& value) {
    if (arguments.count(option) != 0 && !body.contains(field)) body[field] = value();
  };
  add("model", "model", [&] { return arguments["model"].as<std::string>(); });
  add("max-tokens", "max_tokens", [&] { return arguments["max-tokens"].as<int64_t>(); });
  add("temperature", "temperature", [&] { return arguments["temperature"].as<double>(); });
  add("top-p", "top_p", [&] { return arguments["top-p"].as<double>(); });
  add("top-k", "top_k", [&] { return arguments["top-k"].as<int64_t>(); });
  add("seed", "seed", [&] { return seed_of(arguments); });
  add("n", "n", [&] { return arguments["n"].as<int64_t>(); });
  add("stop", "stop", [&] { return texts_of(arguments, "stop"); });
}

std::vector<std::string> read_bodies(const cxxopts::ParseResult& arguments) {
  std::vector<Json> bodies;
  if (arguments.count("prompt") != 0) bodies.push_back({{"prompt", arguments["prompt"].as<std::string>()}});
  if (arguments.count("chat") != 0) {
    Json message = {{"role", "user"}, {"content", arguments["chat"].as<std::string>()}};
    bodies.push_back({{"messages", Json::array({std::move(message)})}});
  }
  if (arguments.count("messages") != 0) {
    const auto path = arguments["messages"].as<std::string>();
    Json messages = Json::parse(read_file(path), nullptr, false);
    if (messages.is_object() && messages.contains("messages")) messages = Json(messages["messages"]);
    if (!messages.is_array())
      fail(ErrorCode::kInvalidArgument, "--messages: {} does not hold a JSON list of messages", path);
    bodies.push_back({{"messages", std::move(messages)}});
  }
  if (arguments.count("jobs") != 0) {
    const std::string text = read_file(arguments["jobs"].as<std::string>());
    int number = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string line = text.substr(at, end - at);
      at = end + 1;
      ++number;
      if (is_blank(line)) continue;
      Json body = Json::parse(line, nullptr, false);
      if (!body.is_object()) fail(ErrorCode::kInvalidArgument, "--jobs: line {} is not a JSON object", number);
      bodies.push_back(std::move(body));
    }
  }
  std::vector<std::string> texts;
  for (Json& body : bodies) {
    add_fields(arguments, body);
    texts.push_back(body.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return texts;
}

/// Whether a body asks for several texts, which a stream would mix: several choices, or a list of prompts.
bool has_many_answers(const std::string& body) {
  const Json job = Json::parse(body);
  const Json prompt = job.value("prompt", Json());
  const bool is_one_prompt = !prompt.is_array() || prompt.size() == 1 || (!prompt.empty() && prompt[0].is_number());
  return !is_one_prompt || job.value("n", Json(1)) != Json(1);
}

Plan read_plan(const cxxopts::ParseResult& arguments) {
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "chorale submit: unexpected argument '{}'; give the text as --chat or --prompt",
         arguments.unmatched().front());
  const size_t sources =
      arguments.count("prompt") + arguments.count("chat") + arguments.count("messages") + arguments.count("jobs");
  if (sources != 1)
    fail(ErrorCode::kInvalidArgument,
         "chorale submit: give one of --prompt, --chat, --messages and --jobs; see --help");
  Plan plan;
  plan.bodies = read_bodies(arguments);
  plan.concurrency = arguments["concurrency"].as<int>();
  plan.timeout = std::chrono::seconds(arguments["timeout"].as<int>());
  if (plan.concurrency < 1 || plan.concurrency > 1024)
    fail(ErrorCode::kInvalidArgument, "--concurrency must be between 1 and 1024, not {}", plan.concurrency);
  if (plan.timeout.count() < 1) fail(ErrorCode::kInvalidArgument, "--timeout must be at least 1 second");
  const bool one = plan.bodies.size() == 1 && !has_many_answers(plan.bodies.front());
  const bool wanted = arguments.count("stream") != 0 || isatty(STDOUT_FILENO) == 1;
  if (arguments.count("json") != 0)
    plan.print = Print::kJson;
  else if (one && wanted && arguments.count("no-stream") == 0)
    plan.print = Print::kStreamed;
  return plan;
}

/// Prints answers in the order of the jobs, whenever they came.
class Printer {
 public:
  Printer(Print print, size_t num_jobs) : print_(print), answers_(num_jobs) {}

  void on_text(std::string_view text) const {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  void done(size_t index, TimedAnswer answer) {
    const std::lock_guard lock(mutex_);
    answers_[index] = std::move(answer);
    for (; next_ < answers_.size() && answers_[next_]; ++next_) print(next_, *answers_[next_]);
  }
  /// One line for people; 1 when a job failed. No speed where nothing was made: the errors have said why.
  int finish(double seconds) const {
    size_t num_failed = 0, num_done = 0;
    int64_t num_tokens = 0;
    std::vector<double> first;
    for (const auto& answer : answers_) {
      if (!answer) continue;
      ++num_done;
      if (!answer->error.empty()) ++num_failed;
      num_tokens += answer->num_tokens;
      if (answer->first_token_seconds) first.push_back(*answer->first_token_seconds);
    }
    if (num_failed == num_done) {
      if (answers_.size() > 1) fmt::print(stderr, "0 of {} jobs succeeded ({} failed)\n", answers_.size(), num_failed);
      return num_done == answers_.size() && num_failed == 0 ? kExitOk : kExitFailure;
    }
    std::string line = fmt::format("{} tokens in {:.2f} s, {:.1f} tokens/s", num_tokens, seconds,
                                   seconds > 0 ? static_cast<double>(num_tokens) / seconds : 0.0);
    if (!first.empty()) line += fmt::format(", first token after {:.3f} s", bench::percentile(first, 50));
    if (answers_.size() > 1)
      line = fmt::format("{} of {} jobs ({} failed): {}", num_done, answers_.size(), num_failed, line);
    fmt::print(stderr, "{}\n", line);
    return num_failed == 0 && num_done == answers_.size() ? kExitOk : kExitFailure;
  }

 private:
  void print(size_t index, const TimedAnswer& answer) const {
    if (print_ == Print::kJson) {
      Json line;
      line["index"] = index;
      line["seconds"] = answer.seconds;
      if (answer.error.empty())
        line["response"] = Json::parse(answer.body, nullptr, false);
      else
        line["error"] = answer.error;
      fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
    } else {
      if (print_ == Print::kText) std::fwrite(answer.text.data(), 1, answer.text.size(), stdout);
      if (answer.error.empty() || !answer.text.empty()) std::fputc('\n', stdout);
      if (!answer.error.empty()) fmt::print(stderr, "chorale submit: job {}: {}\n", index, answer.error);
    }
    std::fflush(stdout);
  }

  const Print print_;
  std::mutex mutex_;  // guards the rest
  std::vector<std::optional<TimedAnswer>> answers_;
  size_t next_ = 0;
};

int run(const Plan& plan, const http::HttpClient& client) {
  const auto start = std::chrono::steady_clock::now();
  // JSON lines hold the server's own object, which comes whole; text is always streamed, so that the first token is
  // timed.
  const Transport transport = plan.print == Print::kJson ? Transport::kWhole : Transport::kStream;
  Printer printer(plan.print, plan.bodies.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    try {
      for (size_t i = next++; i < plan.bodies.size() && !was_interrupted(); i = next++) {
        const bool many = has_many_answers(plan.bodies[i]);
        std::function<void(std::string_view)> on_text;
        if (plan.print == Print::kStreamed) on_text = [&](std::string_view text) { printer.on_text(text); };
        printer.done(i, send_generation(client, plan.bodies[i], many ? Transport::kWhole : transport, on_text,
                                        Deadline::after(plan.timeout)));
      }
    } catch (const Error&) {  // interrupted: closing the connection has cancelled the job
    }
  };
  const size_t num_threads = std::min(static_cast<size_t>(plan.concurrency), plan.bodies.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (was_interrupted()) fmt::print(stderr, "\nchorale submit: interrupted; jobs under way were cancelled\n");
  return printer.finish(seconds);
}

}  // namespace

int run_submit(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help() << kExamples;
    return kExitOk;
  }
  const Plan plan = read_plan(arguments);
  const std::string key =
      arguments.count("api-key") != 0 ? arguments["api-key"].as<std::string>() : env(EnvVar::kApiKey).value_or("");
  const http::HttpClient client(arguments["url"].as<std::string>(), key, was_interrupted);
  catch_interrupts();
  return run(plan, client);
}

}  // namespace chorale::coordinator
