// Whether work of a device of this process failed or does not end. To free its memory or to end a communicator would
// then wait for that work without a deadline: owners leave behind what it may still use, and the process, which is to
// say what happened, leaves. Set by streams and transports, asked by whoever frees; never unset.
#pragma once

namespace chorale {

/// Thread: any, both.
void note_stuck_device();
bool is_device_stuck();

}  // namespace chorale
