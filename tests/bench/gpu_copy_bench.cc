// What the memory of a GPU and the way to it give: copies inside the device (bytes read and written), to it and from it
// (pinned). Kernels are measured against the first. Usage: gpu_copy_bench [--device NAME]; one JSON object a line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>

#include <fmt/format.h>

#include "comm/base/device.h"

namespace chorale {
namespace {

constexpr int kCopies = 20;
constexpr int kRounds = 5;
constexpr int kExitUsage = 2;

/// GB/s of the best round: `moved` bytes a copy.
template <typename Copy>
double best_gbps(Stream& stream, size_t moved, const Copy& copy) {
  const auto deadline = [] { return Deadline::after(std::chrono::seconds(60)); };
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {  // the first warms up
    const auto start = Deadline::Clock::now();
    for (int i = 0; i < kCopies; ++i) copy();
    stream.synchronize(deadline());
    const double seconds = std::chrono::duration<double>(Deadline::Clock::now() - start).count();
    if (round > 0) best = std::max(best, kCopies * static_cast<double>(moved) / seconds / 1e9);
  }
  return best;
}

void print(std::string_view what, size_t bytes, double gbps) {
  fmt::print("{{\"copy\": \"{}\", \"MiB\": {}, \"GB/s\": {:.1f}}}\n", what, bytes >> 20, gbps);
}

int run(DeviceKind kind) {
  const auto device = open_device(kind, 0);
  const auto stream = device->make_stream();
  for (size_t mib : {16, 128}) {
    const size_t bytes = mib << 20;
    PinnedBuffer host(*device, bytes);
    void* a = device->allocate(bytes);
    void* b = device->allocate(bytes);
    print("device to device", bytes,
          best_gbps(*stream, 2 * bytes, [&] { stream->copy(b, a, bytes, CopyKind::kDeviceToDevice); }));
    print("host to device", bytes,
          best_gbps(*stream, bytes, [&] { stream->copy(a, host.data(), bytes, CopyKind::kHostToDevice); }));
    print("device to host", bytes,
          best_gbps(*stream, bytes, [&] { stream->copy(host.data(), b, bytes, CopyKind::kDeviceToHost); }));
    device->release(a, bytes);
    device->release(b, bytes);
  }
  return 0;
}

}  // namespace
}  // namespace chorale

int main(int argc, char** argv) {
  if (argc != 1 && (argc != 3 || std::string_view(argv[1]) != "--device")) {
    fmt::print(stderr, "usage: gpu_copy_bench [--device NAME]\n");
    return chorale::kExitUsage;
  }
  try {
    return chorale::run(chorale::device_kind_from_string(argc == 3 ? argv[2] : "cuda"));
  } catch (const chorale::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
