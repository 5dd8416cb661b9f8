#include "comm/base/stuck_device.h"

#include <atomic>

namespace chorale {
namespace {
std::atomic<bool> is_stuck{false};
}  // namespace

void note_stuck_device() { is_stuck.store(true); }
bool is_device_stuck() { return is_stuck.load(); }

}  // namespace chorale
