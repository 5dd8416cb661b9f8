#include "coordinator/text/gguf_pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <string>

#include "comm/base/error.h"

namespace chorale::coordinator::text {
namespace {

// Contractions in either case, written out: a case-insensitive group would also match U+017F.
#define CONTRACTIONS "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
// Mixed-case words: upper-case-like letters, then lower-case-like ones (letters that are not ASCII count as both).
#define MIXED_WORD_1 R"([^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+)"
#define MIXED_WORD_2 R"([^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*)"

constexpr std::string_view kGpt2Piece = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::array kGpt2 = {kGpt2Piece};
constexpr std::array<std::string_view, 2> kSmolLm = {R"(\p{N})", kGpt2Piece};
constexpr std::array<std::string_view, 1> kLlama3 = {
    "(?:" CONTRACTIONS R"()|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 1> kQwen2 = {
    "(?:" CONTRACTIONS R"()|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 1> kQwen35 = {
    "(?:" CONTRACTIONS
    R"()|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 1> kTekken = {
    MIXED_WORD_1 "|" MIXED_WORD_2 R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 1> kGpt4o = {
    MIXED_WORD_1 "(?:" CONTRACTIONS ")?|" MIXED_WORD_2 "(?:" CONTRACTIONS
                 R"()?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
constexpr std::array<std::string_view, 3> kFalcon = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Piece, "[0-9][0-9][0-9]"};
constexpr std::array<std::string_view, 4> kDefault = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Piece, R"(\p{N}+)",
                                                      "[0-9][0-9][0-9]"};

#undef CONTRACTIONS
#undef MIXED_WORD_1
#undef MIXED_WORD_2

struct Named {
  std::string_view name;
  GgufPreTokenizer value;
};

const auto kNames = std::to_array<Named>({
    {"default", {kDefault}},
    {"gpt-2", {kGpt2}},
    {"phi-2", {kGpt2}},
    {"mpt", {kGpt2}},
    {"olmo", {kGpt2}},
    {"jais", {kGpt2}},
    {"gigachat", {kGpt2}},
    {"trillion", {kGpt2}},
    {"exaone4", {kGpt2}},
    {"mellum", {kGpt2}},
    {"a.x-4.0", {kGpt2}},
    {"smollm", {kSmolLm}},
    {"starcoder", {kSmolLm}},
    {"refact", {kSmolLm}},
    {"command-r", {kSmolLm}},
    {"codeshell", {kSmolLm}},
    {"exaone", {kSmolLm}},
    {"minerva-7b", {kSmolLm}},
    {"llama-bpe", {kLlama3, true, true}},
    {"llama3", {kLlama3, true, true}},
    {"llama-v3", {kLlama3, true, true}},
    {"falcon3", {kLlama3, true, true}},
    {"falcon-h1", {kLlama3, true, true}},
    {"pixtral", {kLlama3, true, true}},
    {"lfm2", {kLlama3, true, true}},
    {"dbrx", {kLlama3}},
    {"smaug-bpe", {kLlama3}},
    {"qwen2", {kQwen2}},
    {"deepseek-r1-qwen", {kQwen2}},
    {"megrez", {kQwen2}},
    {"stablelm2", {kQwen2}},
    {"hunyuan", {kQwen2}},
    {"grok-2", {kQwen2}},
    {"qwen35", {kQwen35}},
    {"tekken", {kTekken, true, true}},
    {"gpt-4o", {kGpt4o}},
    {"llama4", {kGpt4o}},
    {"falcon", {kFalcon}},
});

}  // namespace

GgufPreTokenizer gguf_pre_tokenizer(std::string_view name) {
  std::string known;
  for (const Named& named : kNames) {
    if (named.name == name) return named.value;
    known.append(known.empty() ? "" : ", ").append(named.name);
  }
  fail(ErrorCode::kUnsupported, "tokenizer.ggml.pre: pre-tokenizer '{}' is not supported; supported are {}", name,
       known);
}

}  // namespace chorale::coordinator::text
