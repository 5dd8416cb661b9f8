// Logging for people: one line an event, to standard error, never to standard output (which belongs to results).
#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

namespace chorale {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError, kOff };
/// Throws Error{kInvalidArgument} that lists the valid names.
LogLevel log_level_from_string(std::string_view name);

/// Call once at start. `who` stands in every line ("coordinator", "rank 2").
void init_log(LogLevel level, std::string_view who);
void log_line(LogLevel level, const std::string& message);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace chorale
