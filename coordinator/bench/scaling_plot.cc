#include "coordinator/bench/scaling_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "coordinator/bench/svg.h"

// Three panels above each other, one group of bars a layout, one bar a test:
//
//   title, subtitle, legend
//   | speed-up      |_ |_  ideal: a dark line across each group
//   | efficiency    |_ |_
//   | stage time    |_ |_  stacked: compute, communication, bubble
//       1x1  2x1  ...

namespace chorale::coordinator::bench {
namespace {

// Okabe and Ito's palette: told apart by people who see few colours, and in print.
constexpr std::array<std::string_view, 6> kTestColors{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"};
constexpr std::array<bool, 6> kTestIsDark{true, false, true, false, false, true};
constexpr std::string_view kComputeColor = "#b8c4ce";
constexpr std::string_view kCommColor = "#d55e00";
constexpr std::string_view kBubbleColor = "#f0e442";
constexpr std::string_view kGridColor = "#d8dee4";
constexpr std::string_view kAxisColor = "#57606a";
constexpr std::string_view kIdealColor = "#24292f";

constexpr double kLeft = 76;
constexpr double kRight = 28;
constexpr double kHead = 126;
constexpr double kPanelHeight = 170;
constexpr double kPanelGap = 62;
constexpr double kFoot = 56;
constexpr double kBarWidth = 36;
constexpr double kBarGap = 8;
constexpr double kGroupGap = 36;
constexpr double kLeastWidth = 640;

/// Groups of bars: the layouts in order, in each the tests in order; a layout that lacks a test has a gap there.
struct Groups {
  std::vector<ScalingPoint> points;
  std::vector<std::string> tests;
  std::vector<std::vector<const ScalingRow*>> rows;  // [point][test]
};

Groups group(std::span<const ScalingRow> rows) {
  Groups groups;
  for (const ScalingRow& row : rows) {
    if (std::ranges::find(groups.points, row.result.point) == groups.points.end())
      groups.points.push_back(row.result.point);
    if (std::ranges::find(groups.tests, row.result.test) == groups.tests.end()) groups.tests.push_back(row.result.test);
  }
  groups.rows.assign(groups.points.size(), std::vector<const ScalingRow*>(groups.tests.size(), nullptr));
  for (const ScalingRow& row : rows) {
    const auto point = std::ranges::find(groups.points, row.result.point) - groups.points.begin();
    const auto test = std::ranges::find(groups.tests, row.result.test) - groups.tests.begin();
    groups.rows[static_cast<size_t>(point)][static_cast<size_t>(test)] = &row;
  }
  return groups;
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that covers `range` in at most five steps.
double tick_step(double range) {
  const double rough = range / 5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

class Plot {
 public:
  Plot(std::span<const ScalingRow> rows, const std::string& subtitle)
      : groups_(group(rows)),
        group_width_(static_cast<double>(groups_.tests.size()) * (kBarWidth + kBarGap) - kBarGap),
        width_(std::max(kLeastWidth,
                        kLeft + kRight + static_cast<double>(groups_.points.size()) * (group_width_ + kGroupGap))),
        svg_(width_, kHead + 3 * kPanelHeight + 2 * kPanelGap + kFoot) {
    svg_.text({kLeft, 32}, "Scaling over layouts (tp x pp)", {.size = 20, .weight = Weight::kBold});
    svg_.text({kLeft, 54}, subtitle, {.size = 13, .color = kAxisColor});
    draw_test_legend();
    draw_speed_up(rows);
    draw_efficiency(rows);
    draw_stage_time();
  }
  std::string finish() const { return svg_.finish(); }

 private:
  double panel_bottom(int panel) const { return kHead + panel * (kPanelHeight + kPanelGap) + kPanelHeight; }
  double bar_left(size_t point, size_t test) const {
    const double spread = (width_ - kLeft - kRight) / static_cast<double>(groups_.points.size());
    return kLeft + spread * (static_cast<double>(point) + 0.5) - group_width_ / 2 +
           static_cast<double>(test) * (kBarWidth + kBarGap);
  }

  double legend_entry(double x, double y, std::string_view color, const std::string& label) {
    svg_.rectangle({x, y - 10}, 12, 12, color);
    svg_.text({x + 18, y}, label, {.size = 13});
    constexpr double kLetterWidth = 7.5;
    return x + 18 + kLetterWidth * static_cast<double>(label.size()) + 18;
  }

  void draw_test_legend() {
    double x = kLeft;
    for (size_t test = 0; test < groups_.tests.size(); ++test)
      x = legend_entry(x, 78, kTestColors[test % kTestColors.size()], groups_.tests[test]);
    svg_.line({x, 74}, {x + 16, 74}, kIdealColor, 2);
    svg_.text({x + 22, 78}, "ideal: as many times faster as there are threads", {.size = 13});
  }

  /// Title, grid, labels of both axes; returns the pixels of one unit.
  double draw_axes(int panel, const std::string& title, double highest,
                   const std::function<std::string(double)>& label) {
    const double bottom = panel_bottom(panel);
    const double step = tick_step(highest);
    const double top_value = step * std::ceil(highest / step - 1e-9);
    const double unit = kPanelHeight / top_value;
    svg_.text({kLeft, bottom - kPanelHeight - 10}, title, {.size = 14, .weight = Weight::kBold});
    for (double value = 0; value <= top_value * (1 + 1e-9); value += step) {
      const double y = bottom - value * unit;
      svg_.line({kLeft, y}, {width_ - kRight, y}, kGridColor, 1);
      svg_.text({kLeft - 8, y + 4}, label(value), {.size = 12, .color = kAxisColor, .anchor = Anchor::kEnd});
    }
    svg_.line({kLeft, bottom}, {width_ - kRight, bottom}, kAxisColor, 1.5);
    for (size_t point = 0; point < groups_.points.size(); ++point)
      svg_.text({bar_left(point, 0) + group_width_ / 2, bottom + 18}, groups_.points[point].name(),
                {.size = 13, .anchor = Anchor::kMiddle});
    return unit;
  }

  void draw_bars(int panel, double unit, const std::function<double(const ScalingRow&)>& value,
                 const std::function<std::string(double)>& label) {
    for (size_t point = 0; point < groups_.points.size(); ++point)
      for (size_t test = 0; test < groups_.tests.size(); ++test) {
        const ScalingRow* row = groups_.rows[point][test];
        if (row == nullptr) continue;
        const double height = value(*row) * unit;
        const double top = panel_bottom(panel) - height;
        svg_.rectangle({bar_left(point, test), top}, kBarWidth, height, kTestColors[test % kTestColors.size()],
                       fmt::format("{} {}: {:.2f} tok/s", groups_.points[point].name(), groups_.tests[test],
                                   row->result.tokens_per_second));
        draw_value({bar_left(point, test) + kBarWidth / 2, top}, height, label(value(*row)), test);
      }
  }

  /// Inside a bar that has room for it, where no line crosses it.
  void draw_value(Point top, double height, const std::string& label, size_t test) {
    constexpr double kRoomForText = 18;
    const size_t color = test % kTestColors.size();
    const bool is_inside = height >= kRoomForText;
    const std::string_view text_color = is_inside && kTestIsDark[color] ? "#ffffff" : kIdealColor;
    svg_.text({top.x, is_inside ? top.y + 13 : top.y - 4}, label,
              {.size = 11, .color = text_color, .anchor = Anchor::kMiddle});
  }

  void draw_speed_up(std::span<const ScalingRow> rows) {
    double highest = 0;
    for (const ScalingRow& row : rows) highest = std::max({highest, row.speed_up, row.resources});
    const auto label = [](double value) { return fmt::format("{:.2f}", value); };
    constexpr double kRoomForLabels = 1.1;
    const double unit = draw_axes(0, "Speed-up over the first layout", highest * kRoomForLabels, label);
    draw_bars(
        0, unit, [](const ScalingRow& row) { return row.speed_up; }, label);
    for (size_t point = 0; point < groups_.points.size(); ++point)
      for (const ScalingRow* row : groups_.rows[point]) {
        if (row == nullptr) continue;
        const double y = panel_bottom(0) - row->resources * unit;
        svg_.line({bar_left(point, 0) - 6, y}, {bar_left(point, 0) + group_width_ + 6, y}, kIdealColor, 2);
        break;  // threads are the same for every test of a layout
      }
  }

  void draw_efficiency(std::span<const ScalingRow> rows) {
    double highest = 1;
    for (const ScalingRow& row : rows) highest = std::max(highest, row.efficiency);
    const auto label = [](double value) { return fmt::format("{:.0f} %", 100 * value); };
    constexpr double kRoomForLabels = 1.1;
    const double unit = draw_axes(1, "Efficiency: speed-up over threads", highest * kRoomForLabels, label);
    draw_bars(
        1, unit, [](const ScalingRow& row) { return row.efficiency; }, label);
  }

  void draw_stage_time() {
    const auto label = [](double value) { return fmt::format("{:.0f} %", 100 * value); };
    const double unit = draw_axes(2, "Where the stages' time went", 1, label);
    double x = width_ - kRight - 350;
    const double y = panel_bottom(2) - kPanelHeight - 10;
    x = legend_entry(x, y, kComputeColor, "compute");
    x = legend_entry(x, y, kCommColor, "communication");
    legend_entry(x, y, kBubbleColor, "idle (bubble)");
    for (size_t point = 0; point < groups_.points.size(); ++point)
      for (size_t test = 0; test < groups_.tests.size(); ++test)
        if (const ScalingRow* row = groups_.rows[point][test]) draw_stack(*row, bar_left(point, test), unit);
    for (size_t point = 0; point < groups_.points.size(); ++point)
      for (size_t test = 0; test < groups_.tests.size(); ++test)
        svg_.rectangle({bar_left(point, test), panel_bottom(2) + 26}, kBarWidth, 4,
                       kTestColors[test % kTestColors.size()]);
  }

  void draw_stack(const ScalingRow& row, double left, double unit) {
    const double bubble = std::clamp(row.result.bubble, 0.0, 1.0);
    const double comm = (1 - bubble) * std::clamp(row.result.comm_share, 0.0, 1.0);
    const std::array<std::pair<double, std::string_view>, 3> parts{
        {{1 - bubble - comm, kComputeColor}, {comm, kCommColor}, {bubble, kBubbleColor}}};
    double bottom = panel_bottom(2);
    for (const auto& [share, color] : parts) {
      const double height = share * unit;
      bottom -= height;
      svg_.rectangle({left, bottom}, kBarWidth, height, color, fmt::format("{:.1f} %", 100 * share));
      constexpr double kRoomForText = 14;
      const std::string_view text_color = color == kCommColor ? "#ffffff" : "#24292f";
      if (height >= kRoomForText)
        svg_.text({left + kBarWidth / 2, bottom + height / 2 + 4}, fmt::format("{:.0f}", 100 * share),
                  {.size = 11, .color = text_color, .anchor = Anchor::kMiddle});
    }
  }

  Groups groups_;
  double group_width_;
  double width_;
  Svg svg_;
};

}  // namespace

std::string plot_scaling(std::span<const ScalingRow> rows, const std::string& subtitle) {
  CHECK(!rows.empty());
  return Plot(rows, subtitle).finish();
}

}  // namespace chorale::coordinator::bench
