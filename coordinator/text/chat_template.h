// A model's chat template, compiled once and rendered for each chat request. Called by the API layer and by `chorale
// tokenize
// --chat`. The language is Jinja2 as Hugging Face transformers sets it up; this header does not tokenize and reads no
// files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator {

namespace jinja {
struct Template;
}

enum class AddGenerationPrompt { kNo, kYes };

/// What one render may use at most: a template is outside data and may be hostile. Passing a limit is an error, never a
/// crash.
struct RenderLimits {
  uint64_t max_steps = 20'000'000;      // evaluated nodes, loop turns and copied 64-byte pieces
  size_t max_output_bytes = 64u << 20;  // rendered text
  size_t max_live_bytes = 256u << 20;   // values alive at one time
  int max_depth = 1000;                 // nested expressions, statements and macro calls
};

/// Thread: compile anywhere; render is const and may run on many threads at once.
class ChatTemplate {
 public:
  /// Gives local time for strftime_now.
  using Clock = std::function<std::tm()>;

  /// Failure names the line and what was wrong there. `source` is UTF-8.
  static Result<ChatTemplate> compile(std::string source);

  /// Renders `messages` (an array of objects). The template sees messages, add_generation_prompt, tools = documents =
  /// none, and `variables` (an object: bos_token, eos_token, ...), which override these. The message of a template's
  /// raise_exception is returned as it is; other failures name the line. The ordered overload keeps the order of keys,
  /// as tojson shows it.
  Result<std::string> render(const nlohmann::json& messages, AddGenerationPrompt add_generation_prompt,
                             const nlohmann::json& variables) const;
  Result<std::string> render(const nlohmann::ordered_json& messages, AddGenerationPrompt add_generation_prompt,
                             const nlohmann::ordered_json& variables) const;

  const std::string& source() const { return source_; }
  void set_clock(Clock clock) { clock_ = std::move(clock); }
  void set_limits(const RenderLimits& limits) { limits_ = limits; }

 private:
  ChatTemplate() = default;

  std::string source_;
  std::shared_ptr<const jinja::Template> template_;
  Clock clock_;
  RenderLimits limits_;
};

}  // namespace chorale::coordinator
