// SafetensorsFile::parse on any bytes: an Error or a file whose tensors lie inside it.
// needs: parallel
#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/base/error.h"
#include "parallel/checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chorale::parallel;
  try {
    const SafetensorsFile file = SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "input");
    for (const SafetensorsEntry& entry : file.entries()) {
      CHECK(file.find(entry.name) == &entry);
      unsigned sum = 0;
      for (const std::byte byte : entry.bytes) sum += static_cast<unsigned>(byte);
      volatile unsigned keep = sum;  // reads every byte, so that a sanitizer sees a span outside of the file
      (void)keep;
    }
  } catch (const chorale::Error&) {
  }
  return 0;
}
