// Tokenizer::from_json on any bytes: an Error or a tokenizer that encodes and decodes.
// needs: coordinator
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "coordinator/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using chorale::coordinator::AddSpecial;
  using chorale::coordinator::ParseSpecial;
  using chorale::coordinator::SkipSpecial;
  using chorale::coordinator::StreamDecoder;
  using chorale::coordinator::Tokenizer;
  static const bool quiet = (chorale::init_log(chorale::LogLevel::kOff, "fuzz"), true);
  (void)quiet;
  try {
    const auto tokenizer = Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "input");
    constexpr std::string_view kText =
        " Hello  world, it's 2024!\n\tЁлка \xe2\x96\x81 <s> 好 \xf0\x9f\x98\x80 \xff aaaaaaaaaaaaaaaaaaaa";
    const auto ids = tokenizer->encode(kText, AddSpecial::kYes, ParseSpecial::kYes);
    (void)tokenizer->decode(ids, SkipSpecial::kYes);
    StreamDecoder stream(tokenizer, SkipSpecial::kNo, ids);
    for (const int32_t id : ids) {
      (void)stream.push(id);
      (void)tokenizer->token_bytes(id);
    }
    (void)stream.finish();
  } catch (const chorale::Error&) {
  }
  return 0;
}
