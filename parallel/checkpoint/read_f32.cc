#include <algorithm>

#include "comm/base/error.h"
#include "parallel/checkpoint/checkpoint.h"
#include "parallel/checkpoint/dequantize.h"
#include "parallel/checkpoint/mapped_file.h"

namespace chorale::parallel {
namespace {

constexpr int kMaxBlockElements = 256;

// Columns [begin, end) of one row, whose blocks start at `row`:
//   | block first: tail | whole blocks ... | block last: head |
// Both ragged ends go through a buffer, the middle straight into `out`.
void read_row(StorageType type, const std::byte* row, int64_t begin, int64_t end, float* out) {
  const int64_t elements = block_elements(type);
  const int64_t bytes = block_bytes(type);
  float buffer[kMaxBlockElements];
  while (begin < end) {
    const int64_t block = begin / elements;
    const int64_t offset = begin % elements;
    const int64_t num_whole = (end - begin) / elements;
    int64_t count;
    if (offset == 0 && num_whole > 0) {
      count = num_whole * elements;
      dequantize(type, row + block * bytes, num_whole, out);
    } else {
      count = std::min(elements - offset, end - begin);
      dequantize(type, row + block * bytes, 1, buffer);
      std::copy_n(buffer + offset, count, out);
    }
    begin += count;
    out += count;
  }
}

}  // namespace

uint64_t read_f32(const StoredTensor& tensor, int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end,
                  float* out, int64_t out_stride) {
  const int num_dims = tensor.shape.num_dims();
  const int64_t num_cols = num_dims == 0 ? 1 : tensor.shape[num_dims - 1];
  int64_t num_rows = 1;
  for (int i = 0; i + 1 < num_dims; ++i) num_rows *= tensor.shape[i];
  CHECK(0 <= row_begin && row_begin <= row_end && row_end <= num_rows);
  CHECK(0 <= col_begin && col_begin <= col_end && col_end <= num_cols);
  if (row_begin == row_end || col_begin == col_end) return 0;
  CHECK(row_end - row_begin == 1 || out_stride >= col_end - col_begin);
  if (tensor.file != nullptr) tensor.file->check_not_truncated();

  const int64_t elements = block_elements(tensor.type);
  const int64_t row_bytes = num_cols / elements * block_bytes(tensor.type);
  for (int64_t row = row_begin; row < row_end; ++row)
    read_row(tensor.type, tensor.bytes.data() + row * row_bytes, col_begin, col_end,
             out + (row - row_begin) * out_stride);
  const int64_t blocks_per_row = (col_end + elements - 1) / elements - col_begin / elements;
  return static_cast<uint64_t>((row_end - row_begin) * blocks_per_row * block_bytes(tensor.type));
}

}  // namespace chorale::parallel
