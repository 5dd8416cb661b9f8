// The byte-level alphabet of GPT-2 (Radford et al., 2019): each of the 256 bytes is written as one printable character,
// so that a vocabulary of strings covers all bytes. Used by the ByteLevel normalizer, pre-tokenizer and decoder and by
// GGUF vocabularies.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chorale::coordinator::text {

/// Appends each byte's character. At most 2 * bytes.size() bytes are added.
void append_byte_level(std::string& out, std::string_view bytes);
/// Appends the bytes that `token` stands for; a token with a character outside the alphabet stands for itself, whole.
/// REQUIRES: token is valid UTF-8.
void append_byte_level_decoded(std::string& out, std::string_view token);

/// The byte that "<0x0A>" stands for, which is how SentencePiece spells bytes.
std::optional<char> byte_of_token(std::string_view token);

}  // namespace chorale::coordinator::text
