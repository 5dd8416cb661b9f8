// Small tokenizers of many kinds against the answers of the Hugging Face library (scripts/make_tokenizer_goldens.py),
// and hostile ones.
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "coordinator/text/tokenizer.h"
#include "tests/support/shared_data.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

std::string stream(const std::shared_ptr<const Tokenizer>& tokenizer, const Ids& ids, SkipSpecial skip) {
  StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

TEST(TokenizerCases, AnswerLikeTheReferenceLibrary) {
  std::ifstream in(test::source_folder() / "tests" / "goldens" / "tokenizer_cases.json");
  ASSERT_TRUE(in);
  const json goldens = json::parse(in);
  for (const json& golden : goldens["cases"]) {
    const auto name = golden["name"].get<std::string>();
    const auto tokenizer = Tokenizer::from_json(golden["tokenizer"].dump(), name);
    for (const json& expected : golden["texts"]) {
      const auto text = expected["text"].get<std::string>();
      SCOPED_TRACE(name + ": " + text);
      const auto ids = expected["ids"].get<Ids>();
      EXPECT_EQ(tokenizer->encode(text, AddSpecial::kNo, ParseSpecial::kYes), ids);
      EXPECT_EQ(tokenizer->encode(text, AddSpecial::kYes, ParseSpecial::kYes), expected["special_ids"].get<Ids>());
      EXPECT_EQ(tokenizer->encode(text, AddSpecial::kNo, ParseSpecial::kNo), expected["plain_ids"].get<Ids>());
      for (const SkipSpecial skip : {SkipSpecial::kNo, SkipSpecial::kYes}) {
        EXPECT_EQ(stream(tokenizer, ids, skip), tokenizer->decode(ids, skip));
        const char* key = skip == SkipSpecial::kYes ? "decoded_skipped" : "decoded";
        if (expected.contains(key)) {
          EXPECT_EQ(tokenizer->decode(ids, skip), expected[key].get<std::string>());
        }
      }
    }
  }
}

json added(int id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

json small() {
  return {{"added_tokens", json::array({added(5, "<s>")})},
          {"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"<0xF0>", 3}, {"<0x9F>", 4}}},
            {"merges", {"a b"}}}}};
}

struct Hostile {
  const char* name;
  const char* pointer;  // what is replaced
  const char* value;    // with this JSON
  const char* message;  // part of the error
};

/// Each change to a good file ends with one error that names what is wrong.
TEST(TokenizerJson, RefusesHostileFilesWithAClearError) {
  const Hostile cases[] = {
      {"model missing", "/model", "null", "expected an object"},
      {"model a list", "/model", "[]", "expected an object"},
      {"unigram", "/model/type", "\"Unigram\"", "tokenizer model 'Unigram' is not supported"},
      {"word piece", "/model/type", "\"WordPiece\"", "tokenizer model 'WordPiece' is not supported"},
      {"vocabulary a list", "/model/vocab", "[1]", "model.vocab: expected an object"},
      {"id a string", "/model/vocab/a", "\"0\"", "the id of 'a' is string"},
      {"id negative", "/model/vocab/a", "-1", "outside 0"},
      {"id huge", "/model/vocab/a", "4000000000", "outside 0"},
      {"id beyond int64", "/model/vocab/a", "18446744073709551615", "too large"},
      {"id twice", "/model/vocab/a", "1", "have the same id 1"},
      {"merges a number", "/model/merges", "3", "model.merges: expected a list"},
      {"merge of three", "/model/merges", "[\"a b c\"]", "model.merges[0]"},
      {"merge of one", "/model/merges", "[[\"a\"]]", "expected a pair of tokens"},
      {"merge a number", "/model/merges", "[[1, 2]]", "expected a string, found number"},
      {"merge of unknown", "/model/merges", "[\"a z\"]", "'z', which is not in the vocabulary"},
      {"merge into unknown", "/model/merges", "[\"b a\"]", "'ba', which is not in the vocabulary"},
      {"dropout", "/model/dropout", "0.1", "dropout"},
      {"unk a number", "/model/unk_token", "7", "expected a string"},
      {"fuse_unk a string", "/model/fuse_unk", "\"yes\"", "expected true or false"},
      {"added a string", "/added_tokens", "\"x\"", "expected a list"},
      {"added incomplete", "/added_tokens", "[{\"id\": 5}]", "'content' is missing"},
      {"added without flags", "/added_tokens", "[{\"id\": 5, \"content\": \"x\"}]", "'special' is missing"},
      {"normalizer unknown", "/normalizer", "{\"type\": \"Precompiled\"}", "normalizer 'Precompiled' is not supported"},
      {"normalizer typeless", "/normalizer", "{}", "'type' is missing"},
      {"pre-tokenizer unknown", "/pre_tokenizer", "{\"type\": \"UnicodeScripts\"}",
       "pre-tokenizer 'UnicodeScripts' is not"},
      {"behavior unknown", "/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "x"})",
       "behavior"},
      {"pattern broken", "/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a(b"}, "behavior": "Isolated"})",
       "group"},
      {"pattern intersects", "/pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"})", "intersection"},
      {"pattern explodes", "/pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "(((a{1,999}){1,999}){1,999}){1,999}"}, "behavior": "Isolated"})",
       "compile"},
      {"decoder unknown", "/decoder", "{\"type\": \"CTC\"}", "decoder 'CTC' is not supported"},
      {"strip negative", "/decoder", R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})", "between 0"},
      {"post-processor unknown", "/post_processor", "{\"type\": \"X\"}", "post-processor 'X' is not supported"},
      {"template id outside", "/post_processor", R"({"type": "BertProcessing", "sep": ["x", 99], "cls": ["x", 0]})",
       "outside"},
  };
  for (const Hostile& hostile : cases) {
    SCOPED_TRACE(hostile.name);
    json file = small();
    file[json::json_pointer(hostile.pointer)] = json::parse(hostile.value);
    try {
      Tokenizer::from_json(file.dump(), "t.json");
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(hostile.message), std::string::npos) << error.what();
    }
  }
}

TEST(TokenizerJson, RefusesBytesThatAreNoJson) {
  for (const std::string& bytes : {std::string(), std::string("{"), std::string("\xff\xfe"), std::string(100'000, '['),
                                   "{\"model\":" + std::string(65, '[') + std::string(65, ']') + "}"})
    EXPECT_THROW(Tokenizer::from_json(bytes, "t.json"), Error) << bytes.substr(0, 20);
}

TEST(TokenizerJson, RefusesTwoAddedTokensWithOneId) {
  json file = small();
  file["added_tokens"].push_back(added(5, "</s>"));
  EXPECT_THROW(Tokenizer::from_json(file.dump(), "t.json"), Error);
}

TEST(TokenizerJson, EndsACatastrophicPatternWithAnError) {
  json file = small();
  file["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a+)+$"}}}, {"behavior", "Isolated"}};
  const auto tokenizer = Tokenizer::from_json(file.dump(), "t.json");
  try {
    tokenizer->encode(std::string(50'000, 'a') + "b", AddSpecial::kNo, ParseSpecial::kNo);
    ADD_FAILURE() << "ended without an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("takes too long"), std::string::npos);
  }
}

TEST(TokenizerJson, EncodesAMillionEqualLettersInLinearithmicTime) {
  const auto tokenizer = Tokenizer::from_json(small().dump(), "t.json");
  std::string text;
  for (int i = 0; i < 500'000; ++i) text += "ab";
  EXPECT_EQ(tokenizer->encode(text, AddSpecial::kNo, ParseSpecial::kNo),
            Ids(500'000, 2));  // a quadratic way takes minutes
}

TEST(TokenizerJson, ReadsInvalidUtf8AsReplacementCharacters) {
  json file = small();
  file["model"]["vocab"]["\xef\xbf\xbd"] = 6;
  const auto tokenizer = Tokenizer::from_json(file.dump(), "t.json");
  EXPECT_EQ(tokenizer->encode("a\xff"
                              "b\xe2\x82",
                              AddSpecial::kNo, ParseSpecial::kNo),
            (Ids{0, 6, 1, 6}));
}

TEST(TokenizerJson, CountsSpecialTokensOutsideTheVocabularyAsAbsent) {
  const auto tokenizer = Tokenizer::from_json(small().dump(), "t.json");
  EXPECT_FALSE(tokenizer->special().eos_id);
  EXPECT_EQ(tokenizer->vocab_size(), 6);
  EXPECT_EQ(tokenizer->find("<s>"), 5);
  EXPECT_EQ(tokenizer->token_text(99), "");
  EXPECT_EQ(tokenizer->token_text(-1), "");
  EXPECT_TRUE(tokenizer->is_special(5));
  EXPECT_EQ(tokenizer->decode(Ids{-1, 99, 0}, SkipSpecial::kNo), "a");
}

TEST(StreamDecoder, HoldsAnIncompleteCharacterAndReplacesItAtTheEnd) {
  json file = small();
  file["decoder"] = {{"type", "ByteLevel"}};
  file["model"]["vocab"] = {{"Ġhi", 0}, {"ð", 1}, {"Ł", 2}, {"ĺ", 3}, {"Ģ", 4}};
  file["model"]["merges"] = json::array();
  const auto tokenizer = Tokenizer::from_json(file.dump(), "t.json");
  StreamDecoder stream(tokenizer, SkipSpecial::kYes);
  EXPECT_EQ(stream.push(0), " hi");
  for (const int32_t id : {1, 2, 3}) EXPECT_EQ(stream.push(id), "");
  EXPECT_EQ(stream.push(4), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.push(1), "");
  EXPECT_EQ(stream.push(0), "\xef\xbf\xbd hi");
  EXPECT_EQ(stream.push(1), "");
  EXPECT_EQ(stream.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(tokenizer->token_bytes(1), "\xf0");
}

TEST(StreamDecoder, KeepsTheLeadingBlankBehindAPrompt) {
  json file = small();
  file["decoder"] =
      json::parse(R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  file["model"]["vocab"] = {{"▁hi", 0}, {"<0x0A>", 1}, {"<0xF0>", 2}};
  file["model"]["merges"] = json::array();
  file["added_tokens"] = json::array({added(3, "<s>")});
  const auto tokenizer = Tokenizer::from_json(file.dump(), "t.json");
  EXPECT_EQ(stream(tokenizer, {0, 0, 1, 0}, SkipSpecial::kYes), "hi hi\n hi");
  for (const Ids& prompt : {Ids{3, 0}, Ids{3, 0, 1}, Ids{0, 3}}) {
    StreamDecoder decoder(tokenizer, SkipSpecial::kYes, prompt);
    EXPECT_EQ(decoder.push(0), " hi");
  }
  StreamDecoder decoder(tokenizer, SkipSpecial::kYes, Ids{3});
  EXPECT_EQ(decoder.push(0), "hi");
  EXPECT_EQ(stream(tokenizer, {2, 1}, SkipSpecial::kYes), "\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(tokenizer->token_bytes(0), " hi");
  EXPECT_EQ(tokenizer->token_bytes(2), "\xf0");
}

}  // namespace
}  // namespace chorale::coordinator
