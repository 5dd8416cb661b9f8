#include "coordinator/bench/svg.h"

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::coordinator::bench {
namespace {

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '&')
      result += "&amp;";
    else if (c == '"')
      result += "&quot;";
    else if (c < ' ' || c > '~')  // what is drawn here is ASCII
      result += '?';
    else
      result += c;
  }
  return result;
}

std::string_view to_string(Anchor anchor) {
  switch (anchor) {
    case Anchor::kStart: return "start";
    case Anchor::kMiddle: return "middle";
    case Anchor::kEnd: return "end";
  }
  return "start";
}

}  // namespace

Svg::Svg(double width, double height) : width_(width), height_(height) {
  CHECK(width > 0 && height > 0);
  rectangle({0, 0}, width, height, "#ffffff");
}

void Svg::rectangle(Point top_left, double width, double height, std::string_view color, std::string_view title) {
  const std::string tooltip = title.empty() ? "" : fmt::format("<title>{}</title>", escaped(title));
  body_ += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}">{}</rect>)", top_left.x,
                       top_left.y, width, height, escaped(color), tooltip);
  body_ += '\n';
}

void Svg::line(Point from, Point to, std::string_view color, double width) {
  body_ += fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{:.1f}"/>)",
                       from.x, from.y, to.x, to.y, escaped(color), width);
  body_ += '\n';
}

void Svg::text(Point baseline, std::string_view text, const TextStyle& style) {
  body_ += fmt::format(
      R"(<text x="{:.1f}" y="{:.1f}" font-size="{:.1f}" fill="{}" text-anchor="{}" font-weight="{}">{}</text>)",
      baseline.x, baseline.y, style.size, escaped(style.color), to_string(style.anchor),
      style.weight == Weight::kBold ? "bold" : "normal", escaped(text));
  body_ += '\n';
}

std::string Svg::finish() const {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n{2}</svg>\n",
      width_, height_, body_);
}

}  // namespace chorale::coordinator::bench
