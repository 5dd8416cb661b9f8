// ChatTemplate on any bytes: a Failure, or a template that renders two fixed messages or fails to, within small limits.
// needs: coordinator
#include <cstddef>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "coordinator/text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using chorale::coordinator::ChatTemplate;
  static const auto messages = nlohmann::ordered_json::parse(R"([
    {"role": "system", "content": " Be brief. ", "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, null]}}}]},
    {"role": "user", "content": "H\u00e9llo <b> \ud83d\ude00\n"}
  ])");
  static const auto variables = nlohmann::ordered_json::parse(R"({"bos_token": "<s>", "eos_token": "</s>"})");
  auto compiled = ChatTemplate::compile(std::string(reinterpret_cast<const char*>(data), size));
  if (!compiled) return 0;
  chorale::coordinator::RenderLimits limits;
  limits.max_steps = 500'000;
  limits.max_output_bytes = 1u << 20;
  limits.max_live_bytes = 16u << 20;
  compiled->set_limits(limits);
  (void)compiled->render(messages, chorale::coordinator::AddGenerationPrompt::kYes, variables);
  return 0;
}
