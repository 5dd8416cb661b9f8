// The "normalizer" of a tokenizer.json: what is done to text before it is cut into pieces. Built by the loader, applied
// by the encoder to the text between added tokens.
#pragma once

#include <memory>
#include <string>

#include "coordinator/text/json_fields.h"

namespace chorale::coordinator::text {

/// Thread: immutable, any.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Changes `text` (valid UTF-8) in place.
  virtual void apply(std::string& text) const = 0;
};

/// Throws Error{kUnsupported} naming the type, Error{kCorrupt} for wrong fields.
std::unique_ptr<const Normalizer> make_normalizer(const JsonAt& json);

}  // namespace chorale::coordinator::text
