#include "coordinator/http/request_target.h"

#include <algorithm>
#include <cctype>
#include <string_view>

#include <fmt/format.h>

namespace chorale::coordinator::http {
namespace {

bool starts_with_ignoring_case(std::string_view text, std::string_view lower) {
  return text.size() >= lower.size() && std::equal(lower.begin(), lower.end(), text.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

/// RFC 3986: names, addresses ("[::1]"), percent signs, and the colon before the port.
bool may_stand_in_host(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) ||
         std::string_view("-._~%!$&'()*+,;=:[]").find(c) != std::string_view::npos;
}

}  // namespace

std::string origin_form(const std::string& target) {
  size_t authority = 0;
  for (const std::string_view scheme : {"http://", "https://"})
    if (starts_with_ignoring_case(target, scheme)) authority = scheme.size();
  if (authority == 0) return target;
  const size_t end = target.find_first_of("/?#", authority);
  if (end == std::string::npos) return "/";
  std::string path = target.substr(end);
  if (path.front() != '/') path.insert(path.begin(), '/');
  return path;
}

std::optional<std::string> host_objection(const std::vector<std::string>& hosts, HttpVersion version) {
  if (hosts.empty()) {
    if (version == HttpVersion::k10) return std::nullopt;
    return "the request has no Host header, which HTTP/1.1 requires";
  }
  if (hosts.size() > 1) return fmt::format("the request has {} Host headers, expected is one", hosts.size());
  if (!std::all_of(hosts.front().begin(), hosts.front().end(), may_stand_in_host))
    return "the Host header is not HOST or HOST:PORT";
  return std::nullopt;
}

}  // namespace chorale::coordinator::http
