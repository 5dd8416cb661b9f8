// The Communicator over MPI: works between any two ranks, needs nothing but the library. MPI moves bytes; all additions
// are done here in tree_sum, because the order of additions inside MPI's own reductions is nobody's promise.

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>
#include <deque>

#include "comm/backends/checks.h"
#include "comm/backends/factories.h"
#include "comm/backends/mpi_outbox.h"
#include "comm/backends/mpi_wait.h"
#include "comm/base/bytes.h"
#include "comm/base/watchdog.h"
#include "comm/tree_sum.h"
#include "comm/world.h"

namespace chorale::comm {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 30;     // MPI counts are ints
constexpr size_t kOneShotBytes = size_t{16} << 10;  // all partials together; above, slices are reduced and gathered
constexpr unsigned kPollsBeforeDraining = 64;
constexpr int kCollectiveTag = 0;

/// One half of the exchange of a collective.
struct Part {
  std::byte* data;
  size_t size;
  int peer;
};

/// Whether the sums of ranks meet pairwise, neighbours first: then the tree is recursive doubling.
bool is_doubling(const TreeSchedule& schedule, int size) {
  if (!std::has_single_bit(static_cast<unsigned>(size)) || schedule.nodes.size() != static_cast<size_t>(size))
    return false;
  for (int r = 0; r < size; ++r)
    if (schedule.first_node[r] != r) return false;
  return std::ranges::all_of(schedule.additions, [](const TreeAdd& add) {
    const int distance = add.right - add.left;
    return std::has_single_bit(static_cast<unsigned>(distance)) && add.left % (2 * distance) == 0;
  });
}

class MpiCommunicator final : public Communicator {
 public:
  /// Takes both: one for messages, one for collectives, so that the two never match each other.
  MpiCommunicator(MPI_Comm messages, MPI_Comm collectives) : messages_(messages), collectives_(collectives) {
    MPI_Comm_set_errhandler(messages_, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(collectives_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(messages_, &rank_);
    MPI_Comm_size(messages_, &size_);
  }

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized != 0 || failed_) return;  // after a failure requests are under way and the process is about to leave
    outbox_.reap();
    MPI_Comm_free(&messages_);
    MPI_Comm_free(&collectives_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string backend() const override { return "mpi"; }

  void send(ConstByteSpan data, int destination, int tag, Deadline deadline) override {
    check_peer(*this, destination, tag);
    if (outbox_.takes(data.size())) return check_mpi(outbox_.post(data, destination, tag, messages_), "MPI_Isend");
    for_pieces(data.size(), [&](size_t begin, size_t size) {
      MPI_Request request;
      check_mpi(MPI_Isend(data.data() + begin, static_cast<int>(size), MPI_BYTE, destination, tag, messages_, &request),
                "MPI_Isend");
      // The peer may be blocked in a large send to us: take it in, or neither would ever go on.
      wait({&request, 1}, deadline, "a peer to receive a message", [&](unsigned polls) {
        if (polls >= kPollsBeforeDraining || destination == rank_) drain();
      });
    });
  }

  void recv(ByteSpan data, int source, int tag, Deadline deadline) override {
    check_peer(*this, source, tag);
    for_pieces(data.size(),
               [&](size_t begin, size_t size) { recv_piece(data.subspan(begin, size), source, tag, deadline); });
  }

  void barrier(Deadline deadline) override {
    MPI_Request request;
    check_mpi(MPI_Ibarrier(collectives_, &request), "MPI_Ibarrier");
    wait({&request, 1}, deadline, "a barrier");
  }

  void broadcast(ByteSpan data, int root, Deadline deadline) override {
    if (data.empty()) return;
    for_pieces(data.size(), [&](size_t begin, size_t size) {
      MPI_Request request;
      check_mpi(MPI_Ibcast(data.data() + begin, static_cast<int>(size), MPI_BYTE, root, collectives_, &request),
                "MPI_Ibcast");
      wait({&request, 1}, deadline, "a broadcast");
    });
  }

  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) override {
    check_offsets(offsets, size_, all.size());
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      const int from = (rank_ + size_ - step) % size_;
      sends_.push_back({all.data() + offsets[rank_], offsets[rank_ + 1] - offsets[rank_], to});
      recvs_.push_back({all.data() + offsets[from], offsets[from + 1] - offsets[from], from});
    }
    exchange(deadline, "an all-gather");
  }

  void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline deadline) override {
    const size_t count = out.size();
    check_partials(schedule, *this, partials.size(), count);
    const bool small = schedule.nodes.size() * out.size_bytes() <= kOneShotBytes;
    if (is_doubling(schedule, size_) && (small || size_ == 2)) return reduce_by_doubling(partials, out, deadline);
    if (small) return reduce_whole(schedule, partials, out, deadline);
    std::vector<size_t> begins;
    for (int r = 0; r <= size_; ++r) begins.push_back(count * r / size_);
    reduce_slice(schedule, partials, begins, out.subspan(begins[rank_], begins[rank_ + 1] - begins[rank_]), deadline);
    for (size_t& begin : begins) begin *= sizeof(float);
    all_gather(std::as_writable_bytes(out), begins, deadline);
  }

  void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override {
    check_offsets(counts_begin, size_, counts_begin.back());
    check_partials(schedule, *this, partials.size(), counts_begin.back());
    CHECK_EQ(out.size(), counts_begin[rank_ + 1] - counts_begin[rank_]);
    reduce_slice(schedule, partials, counts_begin, out, deadline);
  }

  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline deadline) override {
    check_members(members, *this);
    if (members.size() == 1) return make_single();
    const Watchdog watchdog("the split of a communicator", deadline);
    MPI_Group all = MPI_GROUP_NULL;
    MPI_Group chosen = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(collectives_, &all), "MPI_Comm_group");
    check_mpi(MPI_Group_incl(all, static_cast<int>(members.size()), members.data(), &chosen), "MPI_Group_incl");
    MPI_Comm parts[2] = {MPI_COMM_NULL, MPI_COMM_NULL};
    for (int i = 0; i < 2; ++i)
      check_mpi(MPI_Comm_create_group(collectives_, chosen, kFirstInternalTag + i, &parts[i]), "MPI_Comm_create_group");
    MPI_Group_free(&chosen);
    MPI_Group_free(&all);
    return std::make_unique<MpiCommunicator>(parts[0], parts[1]);
  }

 private:
  /// A message that was taken in while its recv was not called yet.
  struct Arrival {
    int source = 0;
    int tag = 0;
    Bytes data;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  template <typename Piece>
  static void for_pieces(size_t total, Piece piece) {
    size_t begin = 0;
    do {
      const size_t size = std::min(kPieceBytes, total - begin);
      piece(begin, size);
      begin += size;
    } while (begin < total);
  }

  template <typename Meanwhile>
  void wait(std::span<MPI_Request> requests, Deadline deadline, const char* what, Meanwhile meanwhile) {
    failed_ = true;
    wait_mpi(requests, deadline, what, meanwhile);
    failed_ = false;
  }
  void wait(std::span<MPI_Request> requests, Deadline deadline, const char* what) {
    wait(requests, deadline, what, [](unsigned) {});
  }

  void drain() {
    int found = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    check_mpi(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, messages_, &found, &message, &status), "MPI_Improbe");
    if (found == 0) return;
    int size = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &size), "MPI_Get_count");
    Arrival& arrival = arrivals_.emplace_back();
    arrival.source = status.MPI_SOURCE;
    arrival.tag = status.MPI_TAG;
    arrival.data.resize(size);
    check_mpi(MPI_Imrecv(arrival.data.data(), size, MPI_BYTE, &message, &arrival.request), "MPI_Imrecv");
  }

  void recv_piece(ByteSpan data, int source, int tag, Deadline deadline) {
    const auto found =
        std::ranges::find_if(arrivals_, [&](const Arrival& a) { return a.source == source && a.tag == tag; });
    if (found != arrivals_.end()) {
      wait({&found->request, 1}, deadline, "a message");
      check_message_size(found->data.size(), data.size(), source, tag);
      if (!data.empty()) std::memcpy(data.data(), found->data.data(), data.size());
      arrivals_.erase(found);
      return;
    }
    MPI_Request request;
    check_mpi(MPI_Irecv(data.data(), static_cast<int>(data.size()), MPI_BYTE, source, tag, messages_, &request),
              "MPI_Irecv");
    failed_ = true;
    for (unsigned polls = 0;; ++polls) {
      int done = 0;
      MPI_Status status;
      const int rc = MPI_Test(&request, &done, &status);
      int error_class = MPI_SUCCESS;
      if (rc != MPI_SUCCESS) MPI_Error_class(rc, &error_class);
      if (error_class == MPI_ERR_TRUNCATE) check_message_size(data.size() + 1, data.size(), source, tag);
      check_mpi(rc, "MPI_Test");
      if (done != 0) {
        int size = 0;
        MPI_Get_count(&status, MPI_BYTE, &size);
        check_message_size(size, data.size(), source, tag);
        failed_ = false;
        return;
      }
      if (polls % 16 == 15 && deadline.expired())
        fail(ErrorCode::kDeadlineExceeded, "the deadline passed while waiting for a message of rank {}", source);
      // The sender may be blocked in an earlier message with another tag.
      if (polls >= kPollsBeforeDraining) drain();
      sched_yield();
    }
  }

  /// Runs what is listed in sends_ and recvs_, and empties both. Between two ranks, parts match in the order of their
  /// lists.
  void exchange(Deadline deadline, const char* what) {
    requests_.clear();
    for (const Part& part : recvs_) {
      if (part.size == 0) continue;
      for_pieces(part.size, [&](size_t begin, size_t size) {
        check_mpi(MPI_Irecv(part.data + begin, static_cast<int>(size), MPI_BYTE, part.peer, kCollectiveTag,
                            collectives_, &requests_.emplace_back()),
                  "MPI_Irecv");
      });
    }
    for (const Part& part : sends_) {
      if (part.size == 0) continue;
      for_pieces(part.size, [&](size_t begin, size_t size) {
        check_mpi(MPI_Isend(part.data + begin, static_cast<int>(size), MPI_BYTE, part.peer, kCollectiveTag,
                            collectives_, &requests_.emplace_back()),
                  "MPI_Isend");
      });
    }
    sends_.clear();
    recvs_.clear();
    if (!requests_.empty()) wait(requests_, deadline, what);
  }

  /// Rank r has node r: in round d, r and r ^ d swap sums and both add the lower one to the left.
  void reduce_by_doubling(std::span<float> partials, std::span<float> out, Deadline deadline) {
    const size_t bytes = out.size_bytes();
    if (bytes == 0) return;
    scratch_.resize(std::max(scratch_.size(), out.size()));
    float* mine = partials.data();
    for (int distance = 1; distance < size_; distance *= 2) {
      const int peer = rank_ ^ distance;
      sends_.push_back({reinterpret_cast<std::byte*>(mine), bytes, peer});
      recvs_.push_back({reinterpret_cast<std::byte*>(scratch_.data()), bytes, peer});
      exchange(deadline, "an all-reduce");
      const bool lower = rank_ < peer;
      add_vectors(lower ? mine : scratch_.data(), lower ? scratch_.data() : mine, out.size(), out.data());
      mine = out.data();
    }
  }

  /// Everybody gets all partials and adds them.
  void reduce_whole(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out, Deadline deadline) {
    const size_t count = out.size();
    scratch_.resize(std::max(scratch_.size(), schedule.nodes.size() * count));
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      const size_t first = schedule.first_node[peer];
      const size_t num_nodes = schedule.first_node[peer + 1] - first;
      sends_.push_back({reinterpret_cast<std::byte*>(partials.data()), partials.size_bytes(), peer});
      recvs_.push_back(
          {reinterpret_cast<std::byte*>(scratch_.data() + first * count), num_nodes * count * sizeof(float), peer});
    }
    exchange(deadline, "an all-reduce");
    add_nodes(schedule, partials, count, 0, count, out);
  }

  /// Everybody gets its slice of all partials and adds that.
  void reduce_slice(const TreeSchedule& schedule, std::span<float> partials, std::span<const size_t> begins,
                    std::span<float> out, Deadline deadline) {
    const size_t count = begins.back();
    const size_t my_size = begins[rank_ + 1] - begins[rank_];
    scratch_.resize(std::max(scratch_.size(), schedule.nodes.size() * my_size));
    const int my_nodes = schedule.first_node[rank_ + 1] - schedule.first_node[rank_];
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      for (int k = 0; k < my_nodes; ++k)
        sends_.push_back({reinterpret_cast<std::byte*>(partials.data() + k * count + begins[to]),
                          (begins[to + 1] - begins[to]) * sizeof(float), to});
      const int from = (rank_ + size_ - step) % size_;
      for (int node = schedule.first_node[from]; node < schedule.first_node[from + 1]; ++node)
        recvs_.push_back(
            {reinterpret_cast<std::byte*>(scratch_.data() + node * my_size), my_size * sizeof(float), from});
    }
    exchange(deadline, "a reduction");
    add_nodes(schedule, partials, count, begins[rank_], my_size, out);
  }

  /// The tree over `size` elements: the others' in scratch_ [num_nodes, size], our own in partials [local_nodes, count]
  /// from `begin`.
  void add_nodes(const TreeSchedule& schedule, std::span<float> partials, size_t count, size_t begin, size_t size,
                 std::span<float> out) {
    nodes_.resize(schedule.nodes.size());
    const int my_first = schedule.first_node[rank_];
    const int my_last = schedule.first_node[rank_ + 1];
    for (int node = 0; node < static_cast<int>(nodes_.size()); ++node)
      nodes_[node] = node >= my_first && node < my_last ? partials.data() + (node - my_first) * count + begin
                                                        : scratch_.data() + node * size;
    tree_sum(schedule, nodes_, size, out.data());
  }

  MPI_Comm messages_;
  MPI_Comm collectives_;
  int rank_ = 0;
  int size_ = 0;
  bool failed_ = false;  // a wait ended by an exception
  std::deque<Arrival> arrivals_;
  MpiOutbox outbox_;
  // Scratch of the collectives, kept so that a step allocates nothing.
  std::vector<Part> sends_;
  std::vector<Part> recvs_;
  std::vector<MPI_Request> requests_;
  std::vector<float> scratch_;
  std::vector<const float*> nodes_;
};

const Registry<WorldBackend>::Add kRegistered({
    .name = "mpi",
    .priority = 0,
    .fits = [](const WorldMap&) { return true; },
    .make = [](std::unique_ptr<Communicator> mpi_world, const WorldMap&, const WorldOptions&) { return mpi_world; },
});

}  // namespace

void check_mpi(int rc, const char* call) {
  if (rc == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int size = 0;
  MPI_Error_string(rc, text, &size);
  fail(ErrorCode::kPeerLost, "{} failed: {}", call, text);
}

std::unique_ptr<Communicator> make_mpi_world() {
  MPI_Comm parts[2] = {MPI_COMM_NULL, MPI_COMM_NULL};
  for (MPI_Comm& part : parts) check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &part), "MPI_Comm_dup");
  return std::make_unique<MpiCommunicator>(parts[0], parts[1]);
}

}  // namespace chorale::comm
