// One generation against a running server, timed: what `chorale submit` and `bench serve` do many times. It prints
// nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/http/client.h"

namespace chorale::coordinator {

struct TimedAnswer {
  std::string error;  // empty: it went well
  std::string body;   // the server's object; for a stream empty
  std::string text;   // of choice 0, or of all choices with a line between them where the answer came whole
  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;  // generated, as the server counts
  double seconds = 0;
  std::optional<double> first_token_seconds;  // streams only
  std::vector<double> gaps;                   // seconds between the chunks that followed
};

enum class Transport { kStream, kWhole };

/// Sends `body` (a JSON object) to /v1/chat/completions when it has messages, else to /v1/completions. `on_text` hears
/// the text of choice 0 as it comes. Errors of the server and of the network are in the answer; throws Error{kSystem}
/// when interrupted.
TimedAnswer send_generation(const http::HttpClient& client, const std::string& body, Transport transport,
                            const std::function<void(std::string_view)>& on_text, Deadline deadline);

/// From then on SIGINT and SIGTERM are remembered instead of ending the process at once; a second one ends it.
void catch_interrupts();
bool was_interrupted();

}  // namespace chorale::coordinator
