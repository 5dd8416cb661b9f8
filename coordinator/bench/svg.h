// A small writer of SVG pictures: rectangles, lines, texts, in pixels from the top left. The plots of benches are drawn
// with it; it knows no axes. Texts are escaped; what is not printable ASCII becomes '?'.
#pragma once

#include <string>
#include <string_view>

namespace chorale::coordinator::bench {

enum class Anchor { kStart, kMiddle, kEnd };
enum class Weight { kNormal, kBold };

struct Point {
  double x = 0;
  double y = 0;
};

struct TextStyle {
  double size = 13;
  std::string_view color = "#24292f";
  Anchor anchor = Anchor::kStart;
  Weight weight = Weight::kNormal;
};

class Svg {
 public:
  /// White background. REQUIRES: width and height positive.
  Svg(double width, double height);
  /// `title` is shown by browsers when the pointer rests on it; empty: none.
  void rectangle(Point top_left, double width, double height, std::string_view color, std::string_view title = "");
  void line(Point from, Point to, std::string_view color, double width);
  void text(Point baseline, std::string_view text, const TextStyle& style);
  /// The whole file.
  std::string finish() const;

 private:
  double width_;
  double height_;
  std::string body_;
};

}  // namespace chorale::coordinator::bench
