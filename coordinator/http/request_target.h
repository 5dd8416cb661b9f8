// The two parts of a request's head that say what it is for: the target and the Host field (RFC 9112, 3.2). Sessions
// call it; it knows no socket and no route.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chorale::coordinator::http {

enum class HttpVersion : uint8_t { k10, k11 };

/// Path and query: of "/path?query" as it is, of "http://host:port/path?query" (what clients send to a proxy, which a
/// server must take too, RFC 9112 3.2.2) without scheme and authority. Anything else stays as it is.
std::string origin_form(const std::string& target);

/// Why a request with these Host fields is refused, or nothing: HTTP/1.1 needs exactly one, and what stands in it must
/// be able to be a host and a port (RFC 9112 3.2).
std::optional<std::string> host_objection(const std::vector<std::string>& hosts, HttpVersion version);

}  // namespace chorale::coordinator::http
