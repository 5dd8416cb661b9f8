#include "coordinator/jobs/choice.h"

#include <gtest/gtest.h>

namespace chorale::coordinator {
namespace {

constexpr int32_t kEos = 999;

/// Token i spells pieces[i]; an incomplete character comes out as "?" at the end.
class SpelledText : public TextStream {
 public:
  explicit SpelledText(std::vector<std::string> pieces, std::string rest = "")
      : pieces_(std::move(pieces)), rest_(std::move(rest)) {}
  std::string push(int32_t id) override { return id == kEos ? "" : pieces_.at(static_cast<size_t>(id)); }
  std::string finish() override { return rest_; }

 private:
  std::vector<std::string> pieces_;
  std::string rest_;
};

struct Answer {
  std::string text;
  int num_tokens = 0;
  std::optional<FinishReason> finish;
  std::optional<std::string> stop_reason;
  std::vector<std::string> parts;
};

Answer answer(const JobRequest& request, const std::vector<std::string>& pieces, std::vector<int32_t> ids = {},
              std::string rest = "") {
  const std::vector<int32_t> eos = {kEos};
  Choice choice(request, 0, eos, std::make_unique<SpelledText>(pieces, std::move(rest)));
  if (ids.empty())
    for (size_t i = 0; i < pieces.size(); ++i) ids.push_back(static_cast<int32_t>(i));
  Answer result;
  for (int32_t id : ids) {
    TokenEvent event = choice.accept({1, result.num_tokens, {id, -1.0F}, {}});
    ++result.num_tokens;
    result.text += event.text;
    result.parts.push_back(event.text);
    result.finish = event.finish;
    result.stop_reason = event.stop_reason;
    EXPECT_EQ(choice.is_finished(), event.finish.has_value());
    if (event.finish) break;
  }
  return result;
}

JobRequest request_with(std::vector<std::string> stop) {
  JobRequest request;
  request.max_tokens = 100;
  request.stop = std::move(stop);
  return request;
}

TEST(Choice, FindsAStopStringAcrossTokenBorders) {
  const Answer a = answer(request_with({"\n\nHuman"}), {"Hi", "\n", "\nHu", "man", ": more"});
  EXPECT_EQ(a.text, "Hi");
  EXPECT_EQ(a.num_tokens, 4);
  EXPECT_EQ(a.finish, FinishReason::kStop);
  EXPECT_EQ(a.stop_reason, "\n\nHuman");
}

TEST(Choice, HoldsTextBackOnlyWhileItMayBecomeAStopString) {
  const Answer a = answer(request_with({"abcd"}), {"xab", "c", "e", "ab"});
  EXPECT_EQ(a.parts, (std::vector<std::string>{"x", "", "abce", ""}));
}

TEST(Choice, GivesHeldTextBackWhenItEndsOtherwise) {
  JobRequest request = request_with({"abcd"});
  request.max_tokens = 2;
  const Answer length = answer(request, {"xa", "bc"});
  EXPECT_EQ(length.text, "xabc");
  EXPECT_EQ(length.finish, FinishReason::kLength);
  const Answer eos = answer(request_with({"abcd"}), {"xa"}, {0, kEos});
  EXPECT_EQ(eos.text, "xa");
  EXPECT_EQ(eos.finish, FinishReason::kStop);
  EXPECT_EQ(eos.num_tokens, 2);
  EXPECT_FALSE(eos.stop_reason);
}

TEST(Choice, AnswersAlikeHoweverTheTextIsCut) {
  const std::string text =
      "aababcabcab\xc3\xa9"
      "abd, the end";
  const JobRequest request = request_with({"abcabd", "bcab\xc3\xa9", "the e"});
  std::vector<std::string> whole = {text};
  const Answer expected = answer(request, whole);
  EXPECT_EQ(expected.text, "aababca");
  for (size_t a = 1; a < text.size(); ++a) {
    for (size_t b = a; b < text.size(); ++b) {
      const auto inside = [&](size_t i) { return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80; };
      if (inside(a) || inside(b)) continue;
      const Answer cut = answer(request, {text.substr(0, a), text.substr(a, b - a), text.substr(b)});
      EXPECT_EQ(cut.text, expected.text) << a << " " << b;
      EXPECT_EQ(cut.stop_reason, expected.stop_reason);
    }
  }
}

TEST(Choice, KeepsTheStopStringWhereAsked) {
  JobRequest request = request_with({"stop"});
  request.stop_text = StopText::kInclude;
  EXPECT_EQ(answer(request, {"now st", "op it"}).text, "now stop");
}

TEST(Choice, LeavesOutTheStopTokensTextButNamesIt) {
  JobRequest request = request_with({});
  request.stop_token_ids = {1};
  const Answer a = answer(request, {"a", "b", "c"});
  EXPECT_EQ(a.text, "a");
  EXPECT_EQ(a.num_tokens, 2);
  EXPECT_EQ(a.stop_reason, "1");
  request.stop_text = StopText::kInclude;
  EXPECT_EQ(answer(request, {"a", "b", "c"}).text, "ab");
}

TEST(Choice, GoesOnAfterEosWhereAsked) {
  JobRequest request = request_with({});
  request.ignore_eos = IgnoreEos::kYes;
  request.max_tokens = 3;
  const Answer a = answer(request, {"a", "b"}, {0, kEos, 1});
  EXPECT_EQ(a.text, "ab");
  EXPECT_EQ(a.finish, FinishReason::kLength);
}

TEST(Choice, AStopOnTheLastTokenIsAStop) {
  JobRequest request = request_with({"b"});
  request.max_tokens = 2;
  EXPECT_EQ(answer(request, {"a", "b"}).finish, FinishReason::kStop);
  const Answer eos = answer(request, {"a"}, {0, kEos});
  EXPECT_EQ(eos.finish, FinishReason::kStop);
}

TEST(Choice, DoesNotMatchStopStringsInTheFirstMinTokens) {
  JobRequest request = request_with({"b"});
  request.sampling.min_tokens = 2;
  const Answer a = answer(request, {"a", "b", "c", "b"});
  EXPECT_EQ(a.text, "abc");
  EXPECT_EQ(a.num_tokens, 4);
}

TEST(Choice, EndsAnIncompleteCharacterAtTheEnd) {
  JobRequest request = request_with({});
  request.max_tokens = 1;
  EXPECT_EQ(answer(request, {"a"}, {}, "\xef\xbf\xbd").text, "a\xef\xbf\xbd");
}

TEST(Choice, BansEosAndStopTokensUntilMinTokens) {
  JobRequest request = request_with({});
  const std::vector<int32_t> eos = {7, 2};
  request.stop_token_ids = {5, 7};
  EXPECT_TRUE(banned_until_min_tokens(request, eos).empty());
  request.sampling.min_tokens = 1;
  EXPECT_EQ(banned_until_min_tokens(request, eos), (std::vector<int32_t>{2, 5, 7}));
}

}  // namespace
}  // namespace chorale::coordinator
