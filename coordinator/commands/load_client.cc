#include "coordinator/commands/load_client.h"

#include <atomic>
#include <chrono>
#include <csignal>

#include <nlohmann/json.hpp>

namespace chorale::coordinator {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set in a signal handler");

void on_signal(int signal) {
  if (interrupted.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// What a server may leave out or send as null reads as `otherwise`.
int64_t count_at(const Json& usage, const char* name) {
  return usage.is_object() && usage.contains(name) && usage.at(name).is_number_integer() ? usage.at(name).get<int64_t>()
                                                                                         : 0;
}

std::string error_text(const Json& body, int status) {
  if (body.is_object() && body.contains("error")) {
    const Json& error = body.at("error");
    if (error.is_object() && error.contains("message") && error.at("message").is_string()) {
      std::string text = error.at("message");
      if (error.contains("param") && error.at("param").is_string())
        text += " (" + error.at("param").get<std::string>() + ")";
      return status == 0 ? text : fmt::format("{}: {}", status, text);
    }
  }
  return fmt::format("the server answered {} without an error object", status);
}

std::string text_of(const Json& choice) {
  for (const char* key : {"delta", "message"})
    if (choice.contains(key))
      return choice.at(key).contains("content") && choice.at(key).at("content").is_string()
                 ? choice.at(key).at("content")
                 : "";
  return choice.contains("text") && choice.at("text").is_string() ? choice.at("text") : "";
}

/// Takes one event of the stream into the answer.
class StreamReader {
 public:
  StreamReader(TimedAnswer& answer, const std::function<void(std::string_view)>& on_text, Clock::time_point start)
      : answer_(answer), on_text_(on_text), start_(start) {}

  void on_event(std::string_view data) {
    if (data == "[DONE]") {
      is_done_ = true;
      return;
    }
    const Json event = Json::parse(data, nullptr, false);
    if (!event.is_object()) {
      answer_.error = "the server sent an event that is not JSON";
      return;
    }
    if (event.contains("error")) {
      answer_.error = error_text(event, 0);
      return;
    }
    if (event.contains("usage") && event.at("usage").is_object()) {
      answer_.num_prompt_tokens = count_at(event.at("usage"), "prompt_tokens");
      answer_.num_tokens = count_at(event.at("usage"), "completion_tokens");
    }
    if (!event.contains("choices") || !event.at("choices").is_array()) return;
    for (const Json& choice : event.at("choices"))
      if (choice.is_object()) on_choice(choice);
  }
  bool is_done() const { return is_done_; }

 private:
  void on_choice(const Json& choice) {
    const bool only_role = choice.contains("delta") && choice.at("delta").contains("role");
    if (only_role) return;
    const double now = seconds_since(start_);
    if (!answer_.first_token_seconds)
      answer_.first_token_seconds = now;
    else
      answer_.gaps.push_back(now - last_);
    last_ = now;
    if (count_at(choice, "index") != 0) return;
    const std::string text = text_of(choice);
    answer_.text += text;
    if (on_text_ && !text.empty()) on_text_(text);
  }

  TimedAnswer& answer_;
  const std::function<void(std::string_view)>& on_text_;
  Clock::time_point start_;
  double last_ = 0;
  bool is_done_ = false;
};

void read_whole(const std::string& text, int status, TimedAnswer& answer) {
  const Json body = Json::parse(text, nullptr, false);
  if (status != 200) {
    answer.error = error_text(body, status);
    return;
  }
  if (!body.is_object() || !body.contains("choices") || !body.at("choices").is_array()) {
    answer.error = "the server's answer has no choices";
    return;
  }
  answer.body = text;
  for (const Json& choice : body.at("choices")) {
    if (!choice.is_object()) continue;
    if (!answer.text.empty()) answer.text.push_back('\n');
    answer.text += text_of(choice);
  }
  if (!body.contains("usage")) return;
  answer.num_prompt_tokens = count_at(body.at("usage"), "prompt_tokens");
  answer.num_tokens = count_at(body.at("usage"), "completion_tokens");
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool was_interrupted() { return interrupted; }

TimedAnswer send_generation(const http::HttpClient& client, const std::string& body, Transport transport,
                            const std::function<void(std::string_view)>& on_text, Deadline deadline) {
  TimedAnswer answer;
  Json json = Json::parse(body, nullptr, false);
  const bool chat = json.is_object() && json.contains("messages");
  const std::string path = chat ? "/v1/chat/completions" : "/v1/completions";
  if (json.is_object()) {
    json["stream"] = transport == Transport::kStream;
    json.erase("stream_options");
    if (transport == Transport::kStream) json["stream_options"] = {{"include_usage", true}};
  }
  const std::string sent = json.is_discarded() ? body : json.dump(-1, ' ', false, Json::error_handler_t::replace);
  const auto start = Clock::now();
  try {
    StreamReader reader(answer, on_text, start);
    const auto on_event = [&](std::string_view data) { reader.on_event(data); };
    const http::HttpAnswer reply = transport == Transport::kStream ? client.post_stream(path, sent, on_event, deadline)
                                                                   : client.post(path, sent, deadline);
    if (transport == Transport::kWhole || reply.status != 200)
      read_whole(reply.body, reply.status, answer);
    else if (!reader.is_done() && answer.error.empty())
      answer.error = "the server's stream ended without [DONE]";
  } catch (const Error& error) {  // one lost request of many is a result here, not the end
    if (was_interrupted()) throw;
    answer.error = error.what();
  }
  answer.seconds = seconds_since(start);
  return answer;
}

}  // namespace chorale::coordinator
