#include "parallel/checkpoint/gguf_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <type_traits>

#include "comm/base/error.h"
#include "parallel/checkpoint/show_name.h"

namespace chorale::parallel {
namespace {

// Value types of the GGUF specification.
enum GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

constexpr size_t kMaxNameBytes = 65535;  // the specification's bound for keys; tensor names are far shorter

struct TensorType {
  uint32_t id;
  StorageType type;
};
constexpr TensorType kTensorTypes[] = {
    {0, StorageType::kF32},   {1, StorageType::kF16},   {30, StorageType::kBF16}, {8, StorageType::kQ8_0},
    {2, StorageType::kQ4_0},  {3, StorageType::kQ4_1},  {6, StorageType::kQ5_0},  {7, StorageType::kQ5_1},
    {12, StorageType::kQ4_K}, {13, StorageType::kQ5_K}, {14, StorageType::kQ6_K},
};

// ggml's name of a tensor type, for the message that refuses it; empty when there is no such type.
std::string_view ggml_name(uint32_t id) {
  constexpr std::string_view kNames[] = {"F32",     "F16",    "Q4_0",    "Q4_1",  "",       "",      "Q5_0",  "Q5_1",
                                         "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
                                         "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
                                         "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",  "",
                                         "",        "",       "TQ1_0",   "TQ2_0", "",       "",      "",      "MXFP4"};
  return id < std::size(kNames) ? kNames[id] : "";
}

Shape make_shape(const uint64_t* ne, uint32_t num_dims) {  // GGUF's order is the reverse of ours
  const auto d = [&](uint32_t i) { return static_cast<int64_t>(ne[num_dims - 1 - i]); };
  switch (num_dims) {
    case 0: return Shape{};
    case 1: return Shape{d(0)};
    case 2: return Shape{d(0), d(1)};
    case 3: return Shape{d(0), d(1), d(2)};
    default: return Shape{d(0), d(1), d(2), d(3)};
  }
}

}  // namespace

template <typename T>
T GgufReader::get(std::string_view what) {
  if (bytes_.size() - position_ < sizeof(T))
    fail(ErrorCode::kCorrupt, "{}: truncated: the file ends at byte {} inside {}", file_, bytes_.size(), what);
  T value;
  std::memcpy(&value, bytes_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return value;
}

std::string_view GgufReader::get_string(std::string_view what) {
  const auto size = get<uint64_t>(what);
  const size_t rest = bytes_.size() - position_;
  if (size > rest)
    fail(ErrorCode::kCorrupt, "{}: {} claims {} bytes of text, but the file has only {} more", file_, what, size, rest);
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + position_, size);
  position_ += size;
  return text;
}

void GgufReader::check_count(std::string_view what, uint64_t count, uint64_t min_item_bytes) const {
  const size_t rest = bytes_.size() - position_;
  if (count > rest / min_item_bytes)
    fail(ErrorCode::kCorrupt, "{}: {} claims {} items, but the file has only {} more bytes", file_, what, count, rest);
}

GgufHeader GgufReader::read_header() {
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0)
    fail(ErrorCode::kCorrupt, "{}: not a GGUF file: it does not start with \"GGUF\"", file_);
  position_ = 4;
  const auto version = get<uint32_t>("the header");
  if (version == 1)
    fail(ErrorCode::kUnsupported, "{}: GGUF version 1 is not supported, only 2 and 3; convert it again", file_);
  if ((version & 0xffffu) == 0 && version != 0)
    fail(ErrorCode::kUnsupported, "{}: big-endian GGUF files are not supported; convert it for little-endian", file_);
  if (version != 2 && version != 3)
    fail(ErrorCode::kUnsupported, "{}: GGUF version {} is not supported, only 2 and 3", file_, version);
  GgufHeader header;
  header.num_tensors = get<uint64_t>("the header");
  header.num_keys = get<uint64_t>("the header");
  check_count("the header's count of metadata keys", header.num_keys, 8 + 4 + 1);
  check_count("the header's count of tensors", header.num_tensors, 8 + 4 + 4 + 8);
  return header;
}

std::map<std::string, GgufValue, std::less<>> GgufReader::read_metadata(uint64_t num_keys) {
  std::map<std::string, GgufValue, std::less<>> metadata;
  for (uint64_t i = 0; i < num_keys; ++i) {
    const std::string_view key = get_string("a metadata key");
    if (key.empty() || key.size() > kMaxNameBytes)
      fail(ErrorCode::kCorrupt, "{}: metadata key {} has a name of {} bytes, expected 1 to {}", file_, i, key.size(),
           kMaxNameBytes);
    const auto type = get<uint32_t>("a metadata type");
    const auto [it, is_new] = metadata.try_emplace(std::string(key), get_value(key, type));
    if (!is_new) fail(ErrorCode::kCorrupt, "{}: metadata key {} appears twice", file_, show_name(key));
  }
  return metadata;
}

GgufValue GgufReader::get_value(std::string_view key, uint32_t type) {
  const std::string what = "the value of metadata key " + show_name(key);
  switch (type) {
    case kU8: return int64_t{get<uint8_t>(what)};
    case kI8: return int64_t{get<int8_t>(what)};
    case kU16: return int64_t{get<uint16_t>(what)};
    case kI16: return int64_t{get<int16_t>(what)};
    case kU32: return int64_t{get<uint32_t>(what)};
    case kI32: return int64_t{get<int32_t>(what)};
    case kI64: return get<int64_t>(what);
    case kF32: return double{get<float>(what)};
    case kF64: return get<double>(what);
    case kString: return std::string(get_string(what));
    case kArray: return get_array(key);
    case kU64: {
      const auto value = get<uint64_t>(what);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        fail(ErrorCode::kUnsupported, "{}: {} is {}, above the range of int64", file_, what, value);
      return static_cast<int64_t>(value);
    }
    case kBool: {
      const auto value = get<uint8_t>(what);
      if (value > 1) fail(ErrorCode::kCorrupt, "{}: {} is a bool of {}, expected 0 or 1", file_, what, value);
      return value == 1;
    }
    default: fail(ErrorCode::kCorrupt, "{}: {} has the unknown type {}", file_, what, type);
  }
}

template <typename T, typename Stored>
std::vector<T> GgufReader::get_numbers(std::string_view key, uint64_t count) {
  check_count("the list of metadata key " + show_name(key), count, sizeof(Stored));
  std::vector<T> values(count);
  for (uint64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, bytes_.data() + position_ + i * sizeof(Stored), sizeof(Stored));
    if constexpr (std::is_same_v<Stored, uint64_t>) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        fail(ErrorCode::kUnsupported, "{}: item {} of metadata key {} is {}, above the range of int64", file_, i,
             show_name(key), value);
    }
    if constexpr (std::is_same_v<T, bool>) {
      if (value > 1)
        fail(ErrorCode::kCorrupt, "{}: item {} of metadata key {} is not a bool", file_, i, show_name(key));
    }
    values[i] = static_cast<T>(value);
  }
  position_ += count * sizeof(Stored);
  return values;
}

GgufValue GgufReader::get_array(std::string_view key) {
  const std::string what = "the list of metadata key " + show_name(key);
  const auto type = get<uint32_t>(what);
  const auto count = get<uint64_t>(what);
  switch (type) {
    case kU8: return get_numbers<int64_t, uint8_t>(key, count);
    case kI8: return get_numbers<int64_t, int8_t>(key, count);
    case kU16: return get_numbers<int64_t, uint16_t>(key, count);
    case kI16: return get_numbers<int64_t, int16_t>(key, count);
    case kU32: return get_numbers<int64_t, uint32_t>(key, count);
    case kI32: return get_numbers<int64_t, int32_t>(key, count);
    case kU64: return get_numbers<int64_t, uint64_t>(key, count);
    case kI64: return get_numbers<int64_t, int64_t>(key, count);
    case kF32: return get_numbers<double, float>(key, count);
    case kF64: return get_numbers<double, double>(key, count);
    case kBool: return get_numbers<bool, uint8_t>(key, count);
    case kString: {
      check_count(what, count, sizeof(uint64_t));
      std::vector<std::string> texts;
      texts.reserve(count);
      for (uint64_t i = 0; i < count; ++i) texts.emplace_back(get_string(what));
      return texts;
    }
    case kArray: fail(ErrorCode::kUnsupported, "{}: {} holds lists; nested lists are not supported", file_, what);
    default: fail(ErrorCode::kCorrupt, "{}: {} has the unknown item type {}", file_, what, type);
  }
}

// One row of the table: name, dims, type, offset. `offset` and `size` are the tensor's place in the data section, in
// bytes.
StoredTensor GgufReader::get_info(uint64_t& offset, uint64_t& size) {
  StoredTensor tensor;
  const std::string_view name = get_string("a tensor name");
  if (name.empty() || name.size() > kMaxNameBytes)
    fail(ErrorCode::kCorrupt, "{}: a tensor has a name of {} bytes, expected 1 to {}", file_, name.size(),
         kMaxNameBytes);
  tensor.name = name;
  const std::string what = "tensor " + show_name(name);
  const auto num_dims = get<uint32_t>(what);
  if (num_dims > 4) fail(ErrorCode::kCorrupt, "{}: {} has {} dimensions, expected at most 4", file_, what, num_dims);
  uint64_t ne[4] = {1, 1, 1, 1};
  uint64_t num_elements = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    ne[i] = get<uint64_t>(what);
    if (ne[i] == 0) fail(ErrorCode::kCorrupt, "{}: {} has an empty dimension", file_, what);
    // 2^56 elements are far above any file, and leave room for a block's bytes.
    if (ne[i] > (uint64_t{1} << 56) / num_elements)
      fail(ErrorCode::kCorrupt, "{}: {} has an impossible number of elements (overflow)", file_, what);
    num_elements *= ne[i];
  }
  const auto type_id = get<uint32_t>(what);
  const auto* known = std::ranges::find(kTensorTypes, type_id, &TensorType::id);
  if (known == std::end(kTensorTypes)) {
    const std::string_view type_name = ggml_name(type_id);
    if (type_name.empty()) fail(ErrorCode::kCorrupt, "{}: {} has the unknown type {}", file_, what, type_id);
    fail(ErrorCode::kUnsupported,
         "{}: {} has type {}; supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K", file_,
         what, type_name);
  }
  tensor.type = known->type;
  const auto elements = static_cast<uint64_t>(block_elements(tensor.type));
  if (ne[0] % elements != 0)
    fail(ErrorCode::kCorrupt, "{}: {} has rows of {} elements, not a multiple of {}'s block of {}", file_, what, ne[0],
         to_string(tensor.type), elements);
  offset = get<uint64_t>(what);
  size = num_elements / elements * static_cast<uint64_t>(block_bytes(tensor.type));
  tensor.shape = make_shape(ne, num_dims);
  return tensor;
}

std::vector<StoredTensor> GgufReader::read_tensors(uint64_t num_tensors, uint64_t alignment) {
  struct Range {
    uint64_t offset;
    uint64_t size;
    size_t index;
  };
  check_count("the header's count of tensors", num_tensors, 8 + 4 + 4 + 8);
  std::vector<StoredTensor> tensors;
  std::vector<Range> ranges;
  tensors.reserve(num_tensors);
  ranges.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    uint64_t offset = 0;
    uint64_t size = 0;
    tensors.push_back(get_info(offset, size));
    ranges.push_back({offset, size, tensors.size() - 1});
  }
  std::set<std::string_view> names;
  for (const StoredTensor& tensor : tensors)
    if (!names.insert(tensor.name).second)
      fail(ErrorCode::kCorrupt, "{}: tensor {} appears twice", file_, show_name(tensor.name));
  if (tensors.empty()) return tensors;

  const uint64_t data_begin = (position_ + alignment - 1) / alignment * alignment;
  const uint64_t data_size = bytes_.size() - std::min<uint64_t>(data_begin, bytes_.size());
  for (const Range& range : ranges) {
    const std::string& name = tensors[range.index].name;
    if (range.offset % alignment != 0)
      fail(ErrorCode::kCorrupt, "{}: tensor {} starts at offset {}, not a multiple of the alignment {}", file_,
           show_name(name), range.offset, alignment);
    if (range.offset > data_size || range.size > data_size - range.offset)
      fail(ErrorCode::kCorrupt,
           "{}: tensor {} needs {} bytes at offset {}, but the file holds only {} bytes of tensors; it is truncated or "
           "damaged",
           file_, show_name(name), range.size, range.offset, data_size);
    tensors[range.index].bytes = bytes_.subspan(data_begin + range.offset, range.size);
  }
  std::ranges::sort(ranges, {}, &Range::offset);
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].offset < ranges[i - 1].offset + ranges[i - 1].size)
      fail(ErrorCode::kCorrupt, "{}: tensors {} and {} overlap", file_, show_name(tensors[ranges[i - 1].index].name),
           show_name(tensors[ranges[i].index].name));
  return tensors;
}

}  // namespace chorale::parallel
