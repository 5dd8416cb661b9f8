// `chorale tokenize`: text to ids, or chats to text, one line at a time; for scripts, and for comparing with other
// tools.
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>

#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/api/json.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/parse_arguments.h"
#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kExamples = R"(
Reads standard input, one JSON value a line; writes one JSON value a line to standard output.

Examples: text (JSON strings) to ids (JSON lists)
  echo '"Hello world"' | chorale tokenize --model ./SmolLM2
  echo '"<|im_start|>user"' | chorale tokenize --model model.gguf --parse-special
  echo '"Hello"' | chorale tokenize --model tokenizer.json --add-special

and chats to the text that the model's template makes of them (a JSON string)
  echo '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' | chorale tokenize --model ./SmolLM2 --chat
  "variables": {"bos_token": "<s>"} on a line changes what the template sees.

Lines without text are skipped. A bad line prints {"error": ...} and the others go on. Exit codes: 0 ok, 1 a line or the model failed, 2 usage.
)";

cxxopts::Options make_options() {
  cxxopts::Options options("chorale tokenize", "Shows how a model's tokenizer and chat template read text.");
  // clang-format off
  options.add_options()
      ("model", "folder, GGUF file (with or without tensors), or tokenizer .json file", cxxopts::value<std::string>(), "PATH")
      ("parse-special", "read special tokens spelled in the text as tokens")
      ("add-special", "add the tokenizer's own special tokens (BOS, EOS)")
      ("chat", "render chats instead of encoding texts")
      ("template", "with --chat: a Jinja file instead of the model's own template", cxxopts::value<std::string>(), "FILE")
      ("h,help", "print this");
  // clang-format on
  return options;
}

/// Calls `answer` for each line of standard input that is not blank, and prints what it returns as JSON, or {"error"}.
int for_each_line(const std::function<json(const ordered_json&)>& answer) {
  int exit_code = kExitOk;
  size_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (is_blank(line)) continue;
    json result;
    try {
      const Result<ordered_json> parsed = api::parse_json(line);
      if (!parsed) fail(parsed.failure().code, "{}", parsed.failure().message);
      result = answer(*parsed);
    } catch (const Error& error) {
      result = {{"error", fmt::format("line {}: {}", number, error.what())}};
    }
    if (result.is_object()) exit_code = kExitFailure;
    std::cout << result.dump(-1, ' ', false, json::error_handler_t::replace) << '\n' << std::flush;
  }
  return exit_code;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorCode::kNotFound, "cannot read the template {}", path);
  return {std::istreambuf_iterator<char>(in), {}};
}

int encode_lines(const Tokenizer& tokenizer, AddSpecial add_special, ParseSpecial parse_special) {
  return for_each_line([&](const ordered_json& text) -> json {
    if (!text.is_string()) fail(ErrorCode::kInvalidArgument, "expected a JSON string, found {}", text.type_name());
    return tokenizer.encode(text.get_ref<const std::string&>(), add_special, parse_special);
  });
}

std::string render(const ChatTemplate& chat_template, const ordered_json& line, const Tokenizer& tokenizer) {
  if (!line.is_object() || !line.contains("messages") || !line["messages"].is_array())
    fail(ErrorCode::kInvalidArgument, "expected an object with a list 'messages'");
  ordered_json variables = ordered_json::object();
  for (const auto& [name, text] : tokenizer.special().strings) variables[name] = text;
  if (line.contains("variables") && !line["variables"].is_null()) {
    if (!line["variables"].is_object()) fail(ErrorCode::kInvalidArgument, "'variables' must be an object");
    variables.update(line["variables"]);
  }
  const ordered_json prompted = line.value("add_generation_prompt", ordered_json(nullptr));
  if (!prompted.is_null() && !prompted.is_boolean())
    fail(ErrorCode::kInvalidArgument, "'add_generation_prompt' must be true or false");
  const auto add = prompted.is_boolean() && prompted.get<bool>() ? AddGenerationPrompt::kYes : AddGenerationPrompt::kNo;
  const Result<std::string> text = chat_template.render(line["messages"], add, variables);
  if (!text) fail(text.failure().code, "{}", text.failure().message);
  return *text;
}

int render_lines(const Tokenizer& tokenizer, const std::optional<std::string>& source) {
  if (!source) fail(ErrorCode::kNotFound, "the model has no chat template; give one with --template FILE");
  const Result<ChatTemplate> chat_template = ChatTemplate::compile(*source);
  if (!chat_template) fail(chat_template.failure().code, "{}", chat_template.failure().message);
  return for_each_line([&](const ordered_json& line) -> json { return render(*chat_template, line, tokenizer); });
}

}  // namespace

int run_tokenize(int argc, char** argv) {
  cxxopts::Options options = make_options();
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") > 0) {
    std::cout << options.help() << kExamples;
    return kExitOk;
  }
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "chorale tokenize: unexpected argument '{}'; texts are read from standard input",
         arguments.unmatched().front());
  if (arguments.count("model") == 0)
    fail(ErrorCode::kInvalidArgument, "chorale tokenize: --model is missing; see --help");
  const bool chat = arguments.count("chat") > 0;
  if (!chat && arguments.count("template") > 0)
    fail(ErrorCode::kInvalidArgument, "chorale tokenize: --template needs --chat");

  const auto tokenizer = Tokenizer::from_path(arguments["model"].as<std::string>());
  if (!chat)
    return encode_lines(*tokenizer, arguments.count("add-special") > 0 ? AddSpecial::kYes : AddSpecial::kNo,
                        arguments.count("parse-special") > 0 ? ParseSpecial::kYes : ParseSpecial::kNo);
  return render_lines(*tokenizer, arguments.count("template") > 0
                                      ? std::optional(read_file(arguments["template"].as<std::string>()))
                                      : tokenizer->chat_template());
}

}  // namespace chorale::coordinator
