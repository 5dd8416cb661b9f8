// What Stream::native() of the device "emulator" points to: how code that knows only this handle gives a stream work,
// as code for a GPU does with a cudaStream_t. Used by the launch of emulated kernels and by stand-ins for NVIDIA's
// libraries, which are libraries of their own and may be C: so this header is plain C.
#pragma once

#include <stddef.h>

/* Does the work, on the stream's thread, in the order of its other work: once, or once a launch of the graph that
 * recorded it. Returns 0, or writes into `problem` what failed and returns another number. */
typedef int (*ChoraleOperation)(void* context, char* problem, size_t problem_bytes);

typedef struct ChoraleEmulatorStream {
  /* Returns at once. `release` (may be NULL) is called with `context` when the work will not be done again. */
  void (*enqueue)(struct ChoraleEmulatorStream* self, ChoraleOperation operation, void* context,
                  void (*release)(void* context));
  /* 1 while the stream's work is recorded instead of done. */
  int (*is_capturing)(struct ChoraleEmulatorStream* self);
} ChoraleEmulatorStream;
