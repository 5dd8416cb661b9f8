// The "decoder" of a tokenizer: token strings back to text. Decoding is a chain of stages that works token by token, so
// that a stream and a whole list give the same text. Used by Tokenizer::decode and StreamDecoder only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/text/json_fields.h"

namespace chorale::coordinator::text {

/// Which ends of a token a part of it holds.
enum class TokenPart { kWhole, kBegin, kInside, kEnd };
inline bool begins(TokenPart part) { return part == TokenPart::kWhole || part == TokenPart::kBegin; }
inline bool ends(TokenPart part) { return part == TokenPart::kWhole || part == TokenPart::kEnd; }

/// One step. What a stage cannot decide yet it holds; finish() lets it go.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void push(std::string_view text, TokenPart part) = 0;
  virtual void finish() { next_->finish(); }
  /// The text so far belongs to somebody else: what is held goes on to the output, which drops it.
  virtual void cut() { next_->cut(); }
  void set_next(DecodeStage* next) { next_ = next; }

 protected:
  DecodeStage* next_ = nullptr;
};

/// How to make a chain. Thread: immutable after loading, any.
class Decoder {
 public:
  using MakeStage = std::function<std::unique_ptr<DecodeStage>()>;

  /// Without a decoder, tokens are joined with blanks.
  Decoder();
  /// Throws Error{kUnsupported} naming the type, Error{kCorrupt} for wrong fields.
  explicit Decoder(const JsonAt& json);
  /// Tokens that are bytes already (GGUF). A leading blank is dropped from the whole text with kYes.
  enum class DropLeadingBlank { kNo, kYes };
  static Decoder of_bytes(DropLeadingBlank drop);

  /// The bytes a token stands for inside a text; they need not be whole UTF-8.
  std::string bytes_inside(std::string_view token) const;

 private:
  friend class DecodeChain;
  void load(const JsonAt& json);
  std::vector<MakeStage> stages_;
  bool byte_level_ = false;
  bool byte_fallback_ = false;
};

/// One text being decoded. Thread: one at a time.
class DecodeChain {
 public:
  explicit DecodeChain(const Decoder& decoder);
  ~DecodeChain();
  void push(std::string_view token);
  void finish();
  /// Forgets the text so far, but not that there was some.
  void cut();
  /// Text that has come out since the last take().
  std::string take();

 private:
  class Output;
  std::vector<std::unique_ptr<DecodeStage>> stages_;
  std::unique_ptr<Output> output_;
  DecodeStage* first_ = nullptr;
};

}  // namespace chorale::coordinator::text
