// Small messages that MPI has been given and their receivers need not have asked for: the sender goes on at once, as
// Communicator::send promises. MPI alone does not: Open MPI 4.1 completes a send inside a host only when the receiver
// makes an MPI call, from 256 bytes on (measured), and a receiver that waits on its control link makes none.
#pragma once

#include <deque>
#include <utility>

#include "comm/backends/mpi_wait.h"
#include "comm/base/bytes.h"
#include "comm/communicator.h"

namespace chorale::comm {

/// Thread: its communicator's.
class MpiOutbox {
 public:
  MpiOutbox() = default;
  MpiOutbox(const MpiOutbox&) = delete;
  MpiOutbox& operator=(const MpiOutbox&) = delete;
  /// What nobody received (the ids of a last step, say) may be read by MPI until it is finalised: it stays where it is.
  ~MpiOutbox() {
    if (!letters_.empty()) new std::deque<Letter>(std::move(letters_));
  }

  /// Whether a message may be posted; a larger one, or one too many, has to be waited for.
  bool takes(size_t bytes) {
    reap();
    return bytes <= kBufferedSendBytes && num_bytes_ + bytes <= kBufferedSendTotalBytes;
  }
  /// MPI's result code of starting to send a copy of `data`.
  int post(ConstByteSpan data, int destination, int tag, MPI_Comm comm) {
    Letter& letter = letters_.emplace_back(Letter{Bytes(data.begin(), data.end()), MPI_REQUEST_NULL});
    num_bytes_ += data.size();
    return MPI_Isend(letter.data.data(), static_cast<int>(data.size()), MPI_BYTE, destination, tag, comm,
                     &letter.request);
  }
  /// Lets go of what was sent.
  void reap() {
    int done = 1;
    while (!letters_.empty()) {
      // An error shows up again where somebody waits for an answer; here nobody can act on it.
      if (MPI_Test(&letters_.front().request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0) return;
      num_bytes_ -= letters_.front().data.size();
      letters_.pop_front();
    }
  }

 private:
  struct Letter {
    Bytes data;
    MPI_Request request;
  };

  std::deque<Letter> letters_;  // in the order of sending
  size_t num_bytes_ = 0;
};

}  // namespace chorale::comm
