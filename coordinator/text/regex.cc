#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/text/regex.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include <pcre2.h>

#include "comm/base/error.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

constexpr size_t kMaxPatternBytes = 16u << 10;
constexpr size_t kStartsPerCall = 64;  // start positions one call may try before the clock is read
constexpr auto kMaxTime = std::chrono::seconds(2);
constexpr uint32_t kMaxSteps = 4'000'000;  // backtracks from one start position; a long run of blanks needs its length
constexpr uint32_t kHeapKib = 256u << 10;

/// What a thread needs to match, kept between calls.
struct MatchScratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32u << 10, 8u << 20, nullptr);

  MatchScratch() {
    if (data == nullptr || context == nullptr) fail(ErrorCode::kResourceExhausted, "no memory for pattern matching");
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_heap_limit(context, kHeapKib);
  }
  ~MatchScratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return "PCRE2 error " + std::to_string(code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  std::string source;
  ~Compiled() { pcre2_code_free(code); }

  [[noreturn]] void give_up(std::string_view text) const {
    fail(ErrorCode::kResourceExhausted,
         "the tokenizer's pattern '{:.80}' takes too long on a text of {} bytes; the pattern backtracks without end",
         source, text.size());
  }

  /// The first match that starts at `from` or later.
  std::optional<std::pair<size_t, size_t>> search(std::string_view text, size_t from, MatchScratch& scratch,
                                                  std::chrono::steady_clock::time_point deadline) const {
    for (size_t start = from; start <= text.size();) {
      const size_t last_start = start + kStartsPerCall;
      pcre2_set_offset_limit(scratch.context, last_start);
      int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start, PCRE2_NO_UTF_CHECK,
                           scratch.data, scratch.context);
      if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its frames on the heap
        rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch.data, scratch.context);
      if (rc >= 0) {
        const PCRE2_SIZE* span = pcre2_get_ovector_pointer(scratch.data);
        return std::pair{std::max(std::min(span[0], span[1]), from), std::max(span[1], from)};  // \K may lie
      }
      const bool exhausted =
          rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT;
      if (exhausted || (rc == PCRE2_ERROR_NOMATCH && std::chrono::steady_clock::now() > deadline)) give_up(text);
      if (rc != PCRE2_ERROR_NOMATCH) fail(ErrorCode::kSystem, "pattern '{:.80}': {}", source, pcre2_message(rc));
      start = last_start + 1;
      while (start < text.size() && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) ++start;
    }
    return std::nullopt;
  }
};

Regex::Regex(std::string_view pattern) : compiled_(std::make_unique<Compiled>()) {
  if (pattern.size() > kMaxPatternBytes)
    fail(ErrorCode::kUnsupported, "a pattern has {} bytes; at most {} are supported", pattern.size(), kMaxPatternBytes);
  compiled_->source = pattern;
  const std::string translated = translate_pattern(pattern);
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (context == nullptr) fail(ErrorCode::kResourceExhausted, "no memory for a pattern");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE place = 0;
  // Ruby's ^ and $ mean lines always.
  compiled_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT, &code,
                    &place, context.get());
  if (compiled_->code == nullptr)
    fail(ErrorCode::kCorrupt, "pattern '{:.200}' does not compile: {} at byte {}", pattern, pcre2_message(code), place);
  pcre2_jit_compile(compiled_->code, PCRE2_JIT_COMPLETE);  // without it matching is only slower
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

void Regex::find_all(std::string_view text, std::vector<Span>& out) const {
  if (text.empty()) {
    out.push_back({0, 0, false});
    return;
  }
  thread_local MatchScratch scratch;
  pcre2_set_match_limit(scratch.context,
                        static_cast<uint32_t>(std::min<size_t>(kMaxSteps + 8 * text.size(), 1u << 30)));
  const auto deadline = std::chrono::steady_clock::now() + kMaxTime;
  size_t from = 0;
  size_t covered = 0;
  bool after_match = false;
  size_t num_matches = 0;
  while (const auto match = compiled_->search(text, from, scratch, deadline)) {
    if (++num_matches % kStartsPerCall == 0 && std::chrono::steady_clock::now() > deadline) compiled_->give_up(text);
    const auto [begin, end] = *match;
    if (begin == end && after_match && end == covered) {  // an empty match right behind another one does not count
      if (from >= text.size()) break;
      from += utf8_length(text[from]);
      continue;
    }
    if (begin > covered) out.push_back({covered, begin, false});
    out.push_back({begin, end, true});
    covered = from = end;
    after_match = true;
  }
  if (covered < text.size()) out.push_back({covered, text.size(), false});
}

}  // namespace chorale::coordinator::text
