#include "parallel/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "parallel/checkpoint/mapped_file.h"
#include "parallel/checkpoint/show_name.h"

namespace chorale::parallel {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own bound
constexpr int kMaxNesting = 16;                    // the format needs 3
constexpr size_t kMaxDims = 32;
constexpr uint64_t kMaxElements = uint64_t{1} << 56;  // leaves room for bits per element

struct DTypeBits {
  std::string_view name;
  uint64_t bits;
};
constexpr DTypeBits kDTypes[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"F64", 64},    {"I64", 64}, {"I32", 32}, {"I16", 16},
    {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},   {"BOOL", 8}, {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},   {"C64", 64},
};

// What the header says of one tensor, before it is checked.
struct RawEntry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

// Takes the header apart while it is parsed, so that a hostile one never becomes a tree of JSON values.
//   depth 1: {"name": depth 2: {"dtype": "F32", "shape": depth 3: [..], "data_offsets": [..]}, "__metadata__": {...}}
class HeaderSax : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderSax(const std::string& file) : file_(file) {}
  std::vector<RawEntry> take() { return std::move(entries_); }

  bool start_object(size_t) override {
    enter("an object");
    if (depth_ > 2 && !in_metadata_) bad("an object where none belongs");
    return true;
  }
  bool end_object() override {
    if (depth_ == 2) in_metadata_ = false;
    --depth_;
    field_.clear();
    return true;
  }
  bool start_array(size_t) override {
    enter("a list");
    if (in_metadata_) return true;
    if (depth_ != 3 || (field_ != "shape" && field_ != "data_offsets")) bad("a list where none belongs");
    auto& list = field_ == "shape" ? entries_.back().shape : entries_.back().offsets;
    list.emplace();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (in_metadata_) return true;
    if (depth_ == 1) {
      in_metadata_ = name == "__metadata__";
      if (!in_metadata_) entries_.emplace_back().name = name;
      return true;
    }
    field_ = name;
    RawEntry& entry = entries_.back();
    if (field_ != "dtype" && field_ != "shape" && field_ != "data_offsets")
      bad("the unknown field " + show_name(field_));
    const bool is_twice = field_ == "dtype"   ? entry.dtype.has_value()
                          : field_ == "shape" ? entry.shape.has_value()
                                              : entry.offsets.has_value();
    if (is_twice) bad("the field " + show_name(field_) + " twice");
    return true;
  }
  bool string(string_t& text) override {
    if (in_metadata_ && depth_ >= 2) return true;
    if (depth_ != 2 || field_ != "dtype") bad("a text where none belongs");
    entries_.back().dtype = text;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (in_metadata_ && depth_ >= 2) return true;
    if (depth_ != 3) bad("a number where none belongs");
    auto& list = field_ == "shape" ? *entries_.back().shape : *entries_.back().offsets;
    if (list.size() >= kMaxDims) bad(fmt::format("more than {} numbers in {}", kMaxDims, show_name(field_)));
    list.push_back(value);
    return true;
  }
  bool number_integer(number_integer_t value) override { return other(fmt::format("the number {}", value)); }
  bool number_float(number_float_t, const string_t& text) override { return other("the number " + show_name(text)); }
  bool null() override { return other("null"); }
  bool boolean(bool value) override { return other(value ? "true" : "false"); }
  bool binary(binary_t&) override { return other("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(ErrorCode::kCorrupt, "{}: the safetensors header is not valid JSON at byte {}", file_, position);
  }

 private:
  void enter(std::string_view what) {
    if (++depth_ > kMaxNesting)
      fail(ErrorCode::kCorrupt, "{}: the safetensors header nests deeper than {}", file_, kMaxNesting);
    if (depth_ == 1 && what != "an object")
      fail(ErrorCode::kCorrupt, "{}: the safetensors header is {}, expected an object", file_, what);
    if (depth_ == 2 && what != "an object") bad("a list, expected an object");
  }
  bool other(const std::string& what) {
    if (in_metadata_ && depth_ >= 2) return true;
    bad(what + " where none belongs");
  }
  [[noreturn]] void bad(const std::string& what) const {
    if (in_metadata_) fail(ErrorCode::kCorrupt, "{}: __metadata__ has {}", file_, what);
    if (entries_.empty()) fail(ErrorCode::kCorrupt, "{}: the safetensors header has {}", file_, what);
    fail(ErrorCode::kCorrupt, "{}: tensor {} has {}", file_, show_name(entries_.back().name), what);
  }

  const std::string& file_;
  std::vector<RawEntry> entries_;
  std::string field_;
  int depth_ = 0;
  bool in_metadata_ = false;
};

struct Range {
  uint64_t begin;
  uint64_t end;
  size_t index;
};

// Checks one tensor by itself; `data_size` is the size of the section behind the header.
SafetensorsEntry check_entry(RawEntry& raw, uint64_t data_size, const std::string& file) {
  const std::string what = file + ": tensor " + show_name(raw.name);
  if (!raw.dtype || !raw.shape || !raw.offsets)
    fail(ErrorCode::kCorrupt, "{} lacks {}", what, !raw.dtype ? "dtype" : !raw.shape ? "shape" : "data_offsets");
  const auto* dtype = std::ranges::find(kDTypes, *raw.dtype, &DTypeBits::name);
  if (dtype == std::end(kDTypes)) fail(ErrorCode::kCorrupt, "{} has the unknown dtype {}", what, show_name(*raw.dtype));
  if (raw.offsets->size() != 2)
    fail(ErrorCode::kCorrupt, "{} has {} data_offsets, expected 2", what, raw.offsets->size());
  const uint64_t begin = (*raw.offsets)[0];
  const uint64_t end = (*raw.offsets)[1];
  if (begin > end) fail(ErrorCode::kCorrupt, "{} ends at {} before it starts at {}", what, end, begin);
  if (end > data_size)
    fail(ErrorCode::kCorrupt, "{} ends at byte {} of the data, but the file has {}; it is truncated or damaged", what,
         end, data_size);
  SafetensorsEntry entry;
  uint64_t num_elements = 1;
  bool is_empty = false;
  for (const uint64_t dim : *raw.shape) {
    is_empty |= dim == 0;
    const uint64_t factor = std::max<uint64_t>(dim, 1);
    if (factor > kMaxElements / num_elements)
      fail(ErrorCode::kCorrupt, "{} has an impossible number of elements (overflow)", what);
    num_elements *= factor;
    entry.shape.push_back(static_cast<int64_t>(dim));
  }
  const uint64_t bits = is_empty ? 0 : num_elements * dtype->bits;
  if (bits % 8 != 0 || bits / 8 != end - begin)
    fail(ErrorCode::kCorrupt, "{} has {} bytes, but its shape and dtype {} need {}", what, end - begin, dtype->name,
         bits / 8);
  entry.name = std::move(raw.name);
  entry.dtype = dtype->name;
  return entry;
}

// The format wants the data covered exactly: no overlap, no hole, nothing behind the last tensor.
void check_cover(std::vector<Range> ranges, const std::vector<SafetensorsEntry>& entries, uint64_t data_size,
                 const std::string& file) {
  std::ranges::sort(
      ranges, [](const Range& a, const Range& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t covered = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const Range& range = ranges[i];
    const std::string name = show_name(entries[range.index].name);
    if (range.begin < covered)
      fail(ErrorCode::kCorrupt, "{}: tensors {} and {} overlap", file, show_name(entries[ranges[i - 1].index].name),
           name);
    if (range.begin > covered)
      fail(ErrorCode::kCorrupt, "{}: {} bytes before tensor {} belong to no tensor", file, range.begin - covered, name);
    covered = range.end;
  }
  if (covered != data_size)
    fail(ErrorCode::kCorrupt, "{}: {} bytes behind the last tensor belong to no tensor", file, data_size - covered);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto file = std::make_shared<const MappedFile>(MappedFile::open(path));
  SafetensorsFile result = parse(file->bytes(), path.string());
  result.file_ = std::move(file);
  return result;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, const std::string& name) {
  uint64_t header_size = 0;
  if (bytes.size() < sizeof(header_size))
    fail(ErrorCode::kCorrupt, "{}: not a safetensors file: {} bytes, expected at least 8", name, bytes.size());
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const uint64_t rest = bytes.size() - sizeof(header_size);
  if (header_size > kMaxHeaderBytes)
    fail(ErrorCode::kCorrupt, "{}: not a safetensors file: its header claims {} bytes, the limit is {}", name,
         header_size, kMaxHeaderBytes);
  if (header_size > rest)
    fail(ErrorCode::kCorrupt, "{}: truncated: the header claims {} bytes, but only {} follow", name, header_size, rest);
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_size), header_size);
  if (!header.starts_with('{'))
    fail(ErrorCode::kCorrupt, "{}: not a safetensors file: the header does not start with '{{'", name);
  HeaderSax sax(name);
  nlohmann::json::sax_parse(header, &sax);
  std::vector<RawEntry> raw_entries = sax.take();

  const auto data = bytes.subspan(sizeof(header_size) + header_size);
  SafetensorsFile result;
  std::vector<Range> ranges;
  for (RawEntry& raw : raw_entries) {
    result.entries_.push_back(check_entry(raw, data.size(), name));
    const uint64_t begin = (*raw.offsets)[0];
    const uint64_t end = (*raw.offsets)[1];
    result.entries_.back().bytes = data.subspan(begin, end - begin);
    ranges.push_back({begin, end, result.entries_.size() - 1});
  }
  check_cover(std::move(ranges), result.entries_, data.size(), name);
  std::ranges::sort(result.entries_, {}, &SafetensorsEntry::name);
  const auto twice = std::ranges::adjacent_find(result.entries_, {}, &SafetensorsEntry::name);
  if (twice != result.entries_.end())
    fail(ErrorCode::kCorrupt, "{}: tensor {} appears twice", name, show_name(twice->name));
  return result;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it =
      std::ranges::lower_bound(entries_, name, {}, [](const SafetensorsEntry& e) { return std::string_view(e.name); });
  return it != entries_.end() && it->name == name ? &*it : nullptr;
}

std::optional<StorageType> storage_type_of_safetensors(std::string_view dtype) {
  if (dtype == "F32") return StorageType::kF32;
  if (dtype == "F16") return StorageType::kF16;
  if (dtype == "BF16") return StorageType::kBF16;
  return std::nullopt;
}

}  // namespace chorale::parallel
