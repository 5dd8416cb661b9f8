#include "coordinator/http/client.h"

namespace chorale::coordinator::http {

void SseReader::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_event) {
  for (const char c : bytes) {
    if (c != '\n') {
      line_.push_back(c);
      continue;
    }
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (line_.empty()) {
      if (has_data_) on_event(data_);
      data_.clear();
      has_data_ = false;
    } else if (line_.starts_with("data:")) {
      std::string_view value = std::string_view(line_).substr(5);
      if (value.starts_with(' ')) value.remove_prefix(1);
      if (has_data_) data_.push_back('\n');
      data_ += value;
      has_data_ = true;
    }  // comments and other fields mean nothing here
    line_.clear();
  }
}

}  // namespace chorale::coordinator::http
