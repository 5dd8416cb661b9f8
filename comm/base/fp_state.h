// The floating point state of a thread that computes. Set by every thread that a rank computes on, the emulator's
// streams included; nothing else of a thread is set here.
#pragma once

namespace chorale {

/// Round to nearest even, denormals flushed to zero and read as zero, exceptions masked. Every thread that computes has
/// this state (N4): vdpbf16ps always works so, and then gives exactly the bits of two float32 FMAs, so that all
/// instruction sets agree.
void set_compute_thread_fp_state();

}  // namespace chorale
