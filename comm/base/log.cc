#include "comm/base/log.h"

#include <array>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "comm/base/error.h"

namespace chorale {
namespace {
constexpr std::array<std::string_view, 6> kNames{"trace", "debug", "info", "warn", "error", "off"};
constexpr std::array<spdlog::level::level_enum, 6> kLevels{spdlog::level::trace, spdlog::level::debug,
                                                           spdlog::level::info,  spdlog::level::warn,
                                                           spdlog::level::err,   spdlog::level::off};
spdlog::logger& logger() {
  static auto instance = [] {
    auto made = spdlog::stderr_color_mt("chorale");
    made->set_pattern("%H:%M:%S.%e %^%l%$ %v");
    made->set_level(spdlog::level::warn);
    return made;
  }();
  return *instance;
}
}  // namespace

LogLevel log_level_from_string(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<LogLevel>(i);
  fail(ErrorCode::kInvalidArgument, "unknown log level '{}'; one of {}", name, fmt::join(kNames, ", "));
}

void init_log(LogLevel level, std::string_view who) {
  logger().set_pattern(fmt::format("%H:%M:%S.%e %^%l%$ [{}] %v", who));
  logger().set_level(kLevels[static_cast<size_t>(level)]);
}

void log_line(LogLevel level, const std::string& message) {
  logger().log(kLevels[static_cast<size_t>(level)], message);
}

}  // namespace chorale
