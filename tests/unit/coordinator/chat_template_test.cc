#include "coordinator/text/chat_template.h"

#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/shared_data.h"

namespace chorale::coordinator {
namespace {

using Json = nlohmann::ordered_json;

ChatTemplate compiled(const std::string& source) {
  auto result = ChatTemplate::compile(source);
  if (!result) throw std::runtime_error(result.failure().message);
  return *result;
}

/// The text, or "error: " and the message.
std::string outcome(const ChatTemplate& chat, const Json& messages = Json::array(),
                    const Json& variables = Json::object()) {
  const auto text = chat.render(messages, AddGenerationPrompt::kYes, variables);
  return text ? *text : "error: " + text.failure().message;
}

/// With a small budget of steps, so that hostile templates end soon.
std::string outcome(const std::string& source) {
  ChatTemplate chat = compiled(source);
  RenderLimits limits;
  limits.max_steps = 1'000'000;
  chat.set_limits(limits);
  return outcome(chat);
}

/// Fails with a message that contains `part`.
void expect_error(const std::string& source, const std::string& part) {
  const std::string actual = outcome(source);
  EXPECT_TRUE(actual.starts_with("error: ") && actual.find(part) != std::string::npos)
      << source.substr(0, 200) << "\ngave " << actual.substr(0, 300) << "\nnot an error with " << part;
}

TEST(ChatTemplate, RendersTheChatsOfFiveFamilies) {
  SHARED_OR_SKIP(path, "goldens/tokenizers/chat_templates.json");
  std::ifstream file(path);
  const Json document = Json::parse(file);
  for (const Json& test_case : document["cases"]) {
    const ChatTemplate chat = compiled(document["templates"][test_case["template"].get<std::string>()]);
    const auto add = test_case["add_generation_prompt"] ? AddGenerationPrompt::kYes : AddGenerationPrompt::kNo;
    const auto text = chat.render(test_case["messages"], add, test_case["variables"]);
    ASSERT_TRUE(text) << test_case << text.failure().message;
    EXPECT_EQ(*text, test_case["rendered"].get<std::string>()) << test_case;
  }
  EXPECT_GE(document["cases"].size(), 10u);
}

TEST(ChatTemplate, RendersTheChatsOfTheDefaultModel) {
  SHARED_OR_SKIP(path, "goldens/smollm2-135m-instruct.json");
  SHARED_OR_SKIP(templates, "goldens/tokenizers/chat_templates.json");
  std::ifstream file(path);
  std::ifstream template_file(templates);
  const Json document = Json::parse(file);
  // The same text as tokenizer.chat_template in the model's GGUF file.
  const ChatTemplate chat = compiled(Json::parse(template_file)["templates"]["SmolLM2-135M-Instruct.jinja"]);
  int count = 0;
  for (const Json& test_case : document["cases"]) {
    if (!test_case.contains("rendered")) continue;
    EXPECT_EQ(outcome(chat, test_case["messages"]), test_case["rendered"].get<std::string>());
    ++count;
  }
  EXPECT_GE(count, 3);
}

TEST(ChatTemplate, TakesMessagesWithSortedKeysToo) {
  const nlohmann::json messages = {{{"role", "user"}, {"content", "Hi"}}};
  const auto text = compiled("{{ messages[0]|tojson }}{{ x }}").render(messages, AddGenerationPrompt::kNo, {{"x", 1}});
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, R"({"content": "Hi", "role": "user"}1)");
}

TEST(ChatTemplate, LetsVariablesOverrideWhatItSets) {
  const ChatTemplate chat = compiled("{{ add_generation_prompt }} {{ tools }} {{ documents }} {{ range }}");
  EXPECT_EQ(outcome(chat, Json::array(), {{"tools", {1}}, {"add_generation_prompt", 7}, {"range", "r"}}),
            "7 [1] None r");
}

TEST(ChatTemplate, GivesReasoningUnderEveryNameThatTemplatesRead) {
  const ChatTemplate chat = compiled("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}");
  for (const char* name : {"reasoning_content", "thinking", "reasoning"})
    EXPECT_EQ(outcome(chat, {{{"role", "assistant"}, {name, "r"}}}), "rr") << name;
}

TEST(ChatTemplate, TakesTheClockThatItIsGiven) {
  ChatTemplate chat = compiled("{{ strftime_now('%Y') }}");
  chat.set_clock([] {
    std::tm time{};
    time.tm_year = 99;
    return time;
  });
  EXPECT_EQ(outcome(chat), "1999");
}

TEST(ChatTemplate, NamesTheLineOfAnError) {
  const auto refused = ChatTemplate::compile("a\n\n{{ 1 + }}");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.failure().message, "chat template, line 3: unexpected 'end of print statement'");
  EXPECT_EQ(outcome("a\n{{ 1 }}\n{{ nope.x }}"), "error: chat template, line 3: 'nope' is undefined");
  EXPECT_EQ(outcome("\n{{ raise_exception('Just this') }}"), "error: Just this");
}

TEST(ChatTemplate, RefusesBytesThatAreNoText) {
  const auto refused = ChatTemplate::compile("a\nb\xff");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.failure().message, "chat template, line 2: not valid UTF-8");
}

TEST(ChatTemplate, RendersOnManyThreadsAtOnce) {
  const ChatTemplate chat = compiled("{% for i in range(200) %}{{ 'x' ~ messages[0].role }}{% endfor %}");
  const Json messages = {{{"role", "user"}}};
  const std::string expected = outcome(chat, messages);
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (std::string& text : texts) threads.emplace_back([&] { text = outcome(chat, messages); });
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) EXPECT_EQ(text, expected);
}

TEST(ChatTemplate, EndsIntegersThatDoNotFitWithAnError) {
  for (const char* source : {"{{ 9223372036854775807 + 1 }}", "{{ 9223372036854775807 * 2 }}", "{{ 2 ** 63 }}",
                             "{{ -9223372036854775807 - 2 }}", "{{ '9223372036854775808'|int }}", "{{ 1e300|int }}",
                             "{{ (-9223372036854775807 - 1) // -1 }}"})
    expect_error(source, "64 bits");
  EXPECT_FALSE(ChatTemplate::compile("{{ 9223372036854775808 }}"));
}

TEST(HostileTemplate, EndsWhereItLoopsTooLong) {
  expect_error("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps");
  expect_error("{% for a in range(100001) %}{% endfor %}", "Range too big");
  expect_error("{{ range(-9223372036854775807, 9223372036854775807) }}", "Range too big");
  expect_error("{{ 'a'|batch(9223372036854775807, 1)|list }}", "needs more than");
  expect_error("{{ 'a'|slice(9223372036854775807)|list|length }}", "needs more than");
}

TEST(HostileTemplate, EndsWhereItAsksForTooMuchMemory) {
  expect_error("{{ 'x' * 9000000000 }}", "bytes of values");
  expect_error("{{ [1] * 900000000 }}", "bytes of values");
  expect_error("{{ 'x'.center(900000000000) }}", "bytes of output");
  expect_error("{{ 'x'|indent(900000000000) }}", "bytes of output");
  expect_error("{{ '%900000000d' % 1 }}", "above");
  expect_error("{{ '{:900000000}'.format(1) }}", "above");
  expect_error(
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "needs more than");
  expect_error("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
               "needs more");
  expect_error(
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "needs more than");
  expect_error(
      "{% set ns = namespace(l=(1,)) %}{% for i in range(99) %}{% set ns.l = (ns.l, ns.l) %}{% endfor %}{{ {ns.l: 1} "
      "}}",
      "needs more than");
  expect_error("{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "needs more than");
  expect_error("{% for i in range(99999) %}{% set n = namespace(a='x' * 9999) %}{% endfor %}", "needs more than");
}

TEST(HostileTemplate, EndsWhereItGoesTooDeep) {
  expect_error("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested");
  expect_error(
      "{% macro m(a) %}{% call m(1) %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% call m(1) %}{% endcall "
      "%}",
      "nested");
  expect_error("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested");
  expect_error("{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% set ns.l = [ns.l] %}{% endfor %}",
               "nested more than 200");
  expect_error("{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% set ns.l = ns.l|map('upper') %}{% endfor %}",
               "nested");
  expect_error(
      "{% set ns = namespace(l=[]) %}{% for i in range(999) %}{% for x in [ns.l] %}{% set ns.l = loop %}{% endfor %}{% "
      "endfor %}",
      "nested");
  expect_error("{% set ns = namespace() %}{% set ns.ns = [ns] %}{{ ns }}", "nested");
  const auto times = [](const std::string& piece, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += piece;
    return text;
  };
  for (const std::string& source :
       {"{{ " + times("(", 5000) + "1" + times(")", 5000) + " }}", "{{ " + times("[", 5000) + times("]", 5000) + " }}",
        "{{ " + times("not ", 5000) + "1 }}", "{{ " + times("-", 5000) + "1 }}", "{{ 1" + times(" + 1", 5000) + " }}",
        "{{ a" + times(".b", 5000) + " }}", "{{ a" + times("|upper", 5000) + " }}",
        "{{ 1 if " + times("1 if 1 else ", 5000) + "1 }}", times("{% if 1 %}", 5000) + times("{% endif %}", 5000),
        "{% set " + times("(", 5000) + "a" + times(")", 5000) + " = 1 %}",
        "{{ a" + times("[a", 5000) + times("]", 5000) + " }}"})
    EXPECT_FALSE(ChatTemplate::compile(source)) << source.substr(0, 40);
}

TEST(HostileTemplate, LeavesNothingBehindWhereValuesHoldThemselves) {
  EXPECT_EQ(outcome("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}x"), "x");
  EXPECT_EQ(outcome("{% for i in [1, 2] %}{% set x = loop %}{% set y = loop.changed(loop) %}{% endfor %}x"), "x");
  EXPECT_EQ(outcome("{% macro m() %}{% macro n() %}{% endmacro %}{% endmacro %}{{ m() }}{% set k = m %}x"), "x");
  expect_error(
      "{% set ns = namespace() %}{% for i in [1] %}{% set ns.l = loop %}{% set y = loop.changed(loop) %}{{ 1 // 0 }}{% "
      "endfor %}",
      "zero");
}

TEST(HostileTemplate, KeepsItsLimitsWhereTheMessagesAreHostile) {
  Json deep = 1;
  for (int i = 0; i < 300; ++i) deep = Json::array({deep});
  EXPECT_NE(outcome(compiled("{{ messages }}"), deep).find("nested"), std::string::npos);
  EXPECT_NE(outcome(compiled("{{ messages }}"), Json(18446744073709551615u)).find("64 bits"), std::string::npos);
  EXPECT_EQ(outcome(compiled("{% for m in messages %}{{ m.role }}{% endfor %}"), Json("ab")), "");
}

}  // namespace
}  // namespace chorale::coordinator
