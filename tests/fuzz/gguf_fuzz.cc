// GgufFile::parse on any bytes: an Error or a file whose values and tensors can be read.
// needs: parallel
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/base/error.h"
#include "parallel/checkpoint/checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chorale::parallel;
  try {
    const GgufFile file = GgufFile::parse(std::as_bytes(std::span(data, size)), "input");
    (void)file.get_int("general.alignment");
    for (const StoredTensor& tensor : file.tensors()) {
      const int num_dims = tensor.shape.num_dims();
      const int64_t num_cols = num_dims == 0 ? 1 : tensor.shape[num_dims - 1];
      const int64_t num_rows = tensor.shape.num_elements() / num_cols;
      std::vector<float> row(static_cast<size_t>(num_cols));  // its bytes are in the file, so it is small
      read_f32(tensor, num_rows - 1, num_rows, num_cols / 3, num_cols, row.data(), num_cols);
    }
  } catch (const chorale::Error&) {
  }
  return 0;
}
