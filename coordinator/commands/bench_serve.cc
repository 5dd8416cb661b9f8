// chorale bench serve: load on a running server, at a rate (open loop) or with so many requests under way (closed
// loop). Prompts are lists of token ids, so that their length is exact; every answer runs to its most tokens.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/env.h"
#include "comm/base/progress.h"
#include "coordinator/bench/rows.h"
#include "coordinator/bench/statistics.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/load_client.h"
#include "coordinator/commands/parse_arguments.h"

namespace chorale::coordinator {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

struct LoadOptions {
  std::string url;
  std::string api_key;
  int num_requests = 64;
  double request_rate = 0;  // requests a second; 0: closed loop
  int concurrency = 16;     // most requests under way
  int prompt_len = 128;     // tokens
  int max_tokens = 64;
  double temperature = 0;
  uint64_t seed = 1;
  std::chrono::seconds timeout{600};
};

constexpr const char* kText =
    "A choir sings one song with many voices. Each singer holds a part of the score, listens to the others, and comes "
    "in at the bar "
    "where the part begins. When one voice is late the others wait; when one falls silent another takes the part, and "
    "the song goes "
    "on where it was. The listener in the last row hears a single chord and cannot tell how many people stand on the "
    "stage. So it is "
    "with machines that share a model: the layers are the bars, the heads are the voices, and the answer is the "
    "chord. ";

LoadOptions read_options(const cxxopts::ParseResult& arguments) {
  LoadOptions load;
  load.url = arguments["url"].as<std::string>();
  load.api_key =
      arguments.count("api-key") != 0 ? arguments["api-key"].as<std::string>() : env(EnvVar::kApiKey).value_or("");
  load.num_requests = arguments["num-requests"].as<int>();
  load.request_rate = arguments["request-rate"].as<double>();
  load.concurrency = arguments["concurrency"].as<int>();
  load.prompt_len = arguments["prompt-len"].as<int>();
  load.max_tokens = arguments["max-tokens"].as<int>();
  load.temperature = arguments["temperature"].as<double>();
  load.seed = seed_of(arguments);
  load.timeout = std::chrono::seconds(arguments["timeout"].as<int>());
  const auto at_least = [](const char* name, int value, int least, int most) {
    if (value < least || value > most)
      fail(ErrorCode::kInvalidArgument, "--{} must be between {} and {}, not {}", name, least, most, value);
  };
  at_least("num-requests", load.num_requests, 1, 1'000'000);
  at_least("concurrency", load.concurrency, 1, 1024);
  at_least("prompt-len", load.prompt_len, 1, 10'000'000);
  at_least("max-tokens", load.max_tokens, 1, 10'000'000);
  at_least("timeout", static_cast<int>(load.timeout.count()), 1, 1'000'000);
  if (!(load.request_rate >= 0)) fail(ErrorCode::kInvalidArgument, "--request-rate must not be negative");
  // An open loop must not wait for answers: then concurrency only bounds the threads.
  if (load.request_rate > 0 && arguments.count("concurrency") == 0) load.concurrency = std::min(load.num_requests, 512);
  return load;
}

/// Ids of the text by the server's own tokenizer; a model without one gets small ids, which every vocabulary has.
std::vector<int32_t> text_ids(const http::HttpClient& client) {
  const http::HttpAnswer answer =
      client.post("/tokenize", Json{{"prompt", kText}, {"add_special_tokens", false}}.dump(),
                  Deadline::after(std::chrono::seconds(30)));
  if (answer.status == 200) {
    const Json json = Json::parse(answer.body, nullptr, false);
    if (json.is_object() && json.contains("tokens")) return json.at("tokens").get<std::vector<int32_t>>();
  }
  std::vector<int32_t> ids(64);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(3 + i % 16);
  return ids;
}

/// One body a request: tokens of the text in random order, so that no two prompts share a prefix for the cache to find.
std::vector<std::string> make_bodies(const LoadOptions& load, const std::vector<int32_t>& ids) {
  std::mt19937_64 random(load.seed);
  std::vector<std::string> bodies;
  for (int i = 0; i < load.num_requests; ++i) {
    Json prompt = Json::array();
    for (int k = 0; k < load.prompt_len; ++k) prompt.push_back(ids[random() % ids.size()]);
    bodies.push_back(Json{{"prompt", std::move(prompt)},
                          {"max_tokens", load.max_tokens},
                          {"temperature", load.temperature},
                          {"seed", load.seed + static_cast<uint64_t>(i)},
                          {"ignore_eos", true},
                          {"return_token_ids", true}}  // so that each token is an event of its own
                         .dump());
  }
  return bodies;
}

/// When each request leaves, in seconds: all at once, or as a Poisson process.
std::vector<double> make_departures(const LoadOptions& load) {
  std::vector<double> departures(static_cast<size_t>(load.num_requests), 0.0);
  if (load.request_rate <= 0) return departures;
  std::mt19937_64 random(load.seed ^ 0x9e3779b97f4a7c15u);
  std::exponential_distribution<double> gap(load.request_rate);
  double at = 0;
  for (double& departure : departures) {
    departure = at;
    at += gap(random);
  }
  return departures;
}

struct LoadResult {
  std::vector<TimedAnswer> answers;
  double seconds = 0;
};

LoadResult run_load(const LoadOptions& load, const http::HttpClient& client, const std::vector<std::string>& bodies) {
  const std::vector<double> departures = make_departures(load);
  LoadResult result;
  result.answers.resize(bodies.size());
  for (auto& answer : result.answers) answer.error = "not sent";
  ProgressBar bar("bench serve", load.num_requests);
  std::mutex mutex;  // guards bar and num_done
  std::condition_variable paced;
  int64_t num_done = 0;
  std::atomic<size_t> next{0};
  const auto start = Clock::now();
  const auto work = [&] {
    try {
      for (size_t i = next++; i < bodies.size() && !was_interrupted(); i = next++) {
        {
          std::unique_lock lock(mutex);
          const auto departure =
              start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(departures[i]));
          while (Clock::now() < departure && !was_interrupted())
            paced.wait_until(lock, std::min(departure, Clock::now() + std::chrono::milliseconds(100)));
        }
        result.answers[i] =
            send_generation(client, bodies[i], Transport::kStream, nullptr, Deadline::after(load.timeout));
        const std::lock_guard lock(mutex);
        bar.update(++num_done);
      }
    } catch (const Error&) {  // interrupted
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < std::min(load.concurrency, load.num_requests); ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

std::vector<bench::Row> make_rows(const LoadResult& result) {
  std::vector<double> first, gaps, whole;
  double tokens = 0, prompt_tokens = 0;
  for (const TimedAnswer& answer : result.answers) {
    if (!answer.error.empty()) continue;
    if (answer.first_token_seconds) first.push_back(*answer.first_token_seconds * 1e3);
    for (const double gap : answer.gaps) gaps.push_back(gap * 1e3);
    whole.push_back(answer.seconds * 1e3);
    tokens += static_cast<double>(answer.num_tokens);
    prompt_tokens += static_cast<double>(answer.num_prompt_tokens);
  }
  std::vector<bench::Row> rows;
  const auto add = [&](const char* test, const char* unit, const std::vector<double>& samples) {
    if (samples.empty()) return;
    rows.push_back(bench::make_row(test, unit, samples));
    rows.back().extra.emplace_back("p90", bench::percentile(samples, 90));
  };
  add("ttft", "ms", first);
  add("itl", "ms", gaps);
  add("e2e", "ms", whole);
  add("output throughput", "tok/s", {tokens / result.seconds});
  add("total throughput", "tok/s", {(tokens + prompt_tokens) / result.seconds});
  add("request throughput", "req/s", {static_cast<double>(whole.size()) / result.seconds});
  return rows;
}

}  // namespace

int run_bench_serve(int argc, char** argv) {
  cxxopts::Options options("chorale bench serve", "Puts load on a running server and measures what its clients see.");
  options.add_options()                                                                             //
      ("url", "the server", cxxopts::value<std::string>()->default_value("http://127.0.0.1:8000"))  //
      ("api-key", "sent as bearer token; default: CHORALE_API_KEY", cxxopts::value<std::string>())  //
      ("num-requests", "requests in all", cxxopts::value<int>()->default_value("64"))               //
      ("request-rate", "requests a second, Poisson; 0: as many as --concurrency allows",
       cxxopts::value<double>()->default_value("0"))                                                //
      ("concurrency", "most requests under way", cxxopts::value<int>()->default_value("16"))        //
      ("prompt-len", "tokens of each prompt", cxxopts::value<int>()->default_value("128"))          //
      ("max-tokens", "tokens of each answer", cxxopts::value<int>()->default_value("64"))           //
      ("temperature", "0 is greedy", cxxopts::value<double>()->default_value("0"))                  //
      ("seed", "of prompts, rate and sampling", cxxopts::value<std::string>()->default_value("1"))  //
      ("timeout", "seconds for one request", cxxopts::value<int>()->default_value("600"))           //
      ("json", "print one JSON list of rows")                                                       //
      ("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout
        << options.help() << "\nexamples:\n  chorale bench serve --concurrency 16 --num-requests 128\n"
        << "  chorale bench serve --url http://node7:8000 --request-rate 4 --prompt-len 512 --max-tokens 128 --json\n";
    return kExitOk;
  }
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "chorale bench serve: unexpected argument '{}'", arguments.unmatched().front());
  const LoadOptions load = read_options(arguments);
  const http::HttpClient client(load.url, load.api_key, was_interrupted);
  catch_interrupts();
  std::vector<int32_t> ids;
  try {
    ids = text_ids(client);
  } catch (const Error& error) {  // no server: a failure of this command, while a lost world would be another exit code
    fail(ErrorCode::kSystem, "{}", error.what());
  }
  const std::vector<std::string> bodies = make_bodies(load, ids);
  const LoadResult result = run_load(load, client, bodies);
  const std::vector<bench::Row> rows = make_rows(result);
  if (arguments.count("json") != 0)
    fmt::print("{}\n", bench::to_json(rows));
  else
    fmt::print("{}", bench::to_table(rows));

  size_t num_failed = 0;
  std::string reason;
  for (const TimedAnswer& answer : result.answers) {
    if (answer.error.empty()) continue;
    ++num_failed;
    reason = answer.error;
  }
  if (num_failed == 0) return kExitOk;
  fmt::print(stderr, "chorale bench serve: {} of {} requests failed, the last with: {}\n", num_failed, bodies.size(),
             reason);
  return kExitFailure;
}

}  // namespace chorale::coordinator
