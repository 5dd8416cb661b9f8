#include "tests/support/comm_cases.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <fmt/format.h>

namespace chorale::comm {
namespace {

constexpr size_t kLarge = 10'000;  // elements; only some of the cuts, for the time they take

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

uint32_t mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
  return static_cast<uint32_t>(x >> 32);
}

/// Values whose sums depend on the order of additions.
float leaf_value(int leaf, size_t i) {
  const uint32_t bits = mix(leaf * 1000003ull + i);
  return static_cast<float>(static_cast<int32_t>(bits)) * std::ldexp(1.0f, static_cast<int>(bits % 20) - 30);
}

float node_value(LeafRange node, size_t i) {
  if (node.size() == 1) return leaf_value(node.begin, i);
  const int middle = split_point(node);
  return node_value({node.begin, middle}, i) + node_value({middle, node.end}, i);
}

class Checksum {
 public:
  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3ull;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

void expect_bits(const std::string& what, std::span<const float> got, LeafRange root, size_t first) {
  for (size_t i = 0; i < got.size(); ++i) {
    const float wanted = node_value(root, first + i);
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(wanted))
      throw std::runtime_error(fmt::format("{}: element {} is {:.9g}, not {:.9g}", what, first + i, got[i], wanted));
  }
}

std::vector<float> local_partials(const TreeSchedule& schedule, int rank, size_t count) {
  std::vector<float> partials;
  for (int k = schedule.first_node[rank]; k < schedule.first_node[rank + 1]; ++k)
    for (size_t i = 0; i < count; ++i) partials.push_back(node_value(schedule.nodes[k], i));
  return partials;
}

/// Cuts of `leaves` for `size` ranks: even, uneven, and with an empty run.
std::vector<std::vector<LeafRange>> cuts(int leaves, int size) {
  std::vector<std::vector<LeafRange>> all{share_leaves(leaves, size)};
  std::vector<double> weights;
  for (int r = 0; r < size; ++r) weights.push_back(r == size / 2 ? 3 : 1);
  all.push_back(share_leaves(leaves, size, weights));
  std::vector<LeafRange> with_empty;
  for (int r = 0; r < size; ++r) with_empty.push_back(r == 0 ? LeafRange{0, leaves} : LeafRange{leaves, leaves});
  all.push_back(with_empty);
  return all;
}

void check_reductions(Communicator& comm, std::span<const size_t> counts, Checksum& checksum) {
  const int size = comm.size();
  const int rank = comm.rank();
  for (int leaves : {size, 2 * size + 1, 16}) {
    if (leaves < size) continue;
    int num_cuts = 0;
    for (const auto& runs : cuts(leaves, size)) {
      ++num_cuts;
      const TreeSchedule schedule = make_tree_schedule(leaves, runs);
      for (size_t count : counts) {
        if (count > kLarge && (leaves == 16 || num_cuts > 2)) continue;
        const auto what =
            fmt::format("{} rank {}/{}, {} leaves, {} elements", comm.backend(), rank, size, leaves, count);
        const LeafRange root{0, leaves};
        std::vector<float> partials = local_partials(schedule, rank, count);
        std::vector<float> out(count);
        comm.tree_all_reduce(schedule, partials, out, soon());
        expect_bits(what + ", all-reduce", out, root, 0);
        checksum.add(out.data(), out.size() * sizeof(float));

        partials = local_partials(schedule, rank, count);
        const std::vector<float> kept = partials;
        if (!partials.empty() || count == 0) {
          comm.tree_all_reduce(schedule, partials, std::span(partials).first(count), soon());
          expect_bits(what + ", in place", std::span(partials).first(count), root, 0);
        } else {
          comm.tree_all_reduce(schedule, partials, out, soon());
        }

        partials = kept;
        std::vector<size_t> begins;
        for (int r = 0; r <= size; ++r) begins.push_back(count * r * r / (size * size));
        std::vector<float> slice(begins[rank + 1] - begins[rank]);
        comm.tree_reduce_scatter(schedule, partials, begins, slice, soon());
        expect_bits(what + ", reduce-scatter", slice, root, begins[rank]);
      }
    }
  }
}

std::byte pattern(int rank, size_t i) { return static_cast<std::byte>(mix(rank * 77777ull + i)); }

void expect_pattern(const std::string& what, ConstByteSpan got, int rank) {
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != pattern(rank, i)) throw std::runtime_error(fmt::format("{}: byte {} is wrong", what, i));
}

std::vector<std::byte> filled(int rank, size_t size) {
  std::vector<std::byte> data(size);
  for (size_t i = 0; i < size; ++i) data[i] = pattern(rank, i);
  return data;
}

void check_moves(Communicator& comm, std::span<const size_t> counts, Checksum& checksum) {
  const int size = comm.size();
  const int rank = comm.rank();
  for (size_t count : counts) {
    const auto what = fmt::format("{} rank {}/{}, {} bytes", comm.backend(), rank, size, count);
    for (int root = 0; root < size; ++root) {
      auto data = rank == root ? filled(root, count) : std::vector<std::byte>(count);
      comm.broadcast(data, root, soon());
      expect_pattern(what + ", broadcast", data, root);
      checksum.add(data.data(), data.size());
    }
    std::vector<size_t> offsets{0};
    for (int r = 0; r < size; ++r) offsets.push_back(offsets.back() + (r % 3 == 1 ? 0 : count + r));
    std::vector<std::byte> all(offsets.back());
    const auto mine = filled(rank, offsets[rank + 1] - offsets[rank]);
    if (!mine.empty()) std::memcpy(all.data() + offsets[rank], mine.data(), mine.size());
    comm.all_gather(all, offsets, soon());
    for (int r = 0; r < size; ++r)
      expect_pattern(what + ", all-gather", std::span(all).subspan(offsets[r], offsets[r + 1] - offsets[r]), r);
    checksum.add(all.data(), all.size());
    comm.barrier(soon());
  }
}

/// Everybody sends to everybody before anybody receives, in two tags that are received in the other order.
void check_messages(Communicator& comm, std::span<const size_t> counts) {
  const int size = comm.size();
  const int rank = comm.rank();
  for (size_t count : counts) {
    const auto data = filled(rank, count);
    const auto extra = filled(rank + 100, 5);
    for (int step = 1; step <= size; ++step) {
      const int to = (rank + step) % size;
      comm.send(data, to, 1, soon());
      comm.send(extra, to, 2, soon());
    }
    for (int step = 1; step <= size; ++step) {
      const int from = (rank + size - step) % size;
      std::vector<std::byte> got_extra(5), got(count);
      comm.recv(got_extra, from, 2, soon());
      comm.recv(got, from, 1, soon());
      const auto what = fmt::format("{} message {} -> {}", comm.backend(), from, rank);
      expect_pattern(what, got, from);
      expect_pattern(what, got_extra, from + 100);
    }
  }
}

void check_split(Communicator& comm, std::span<const size_t> counts, Checksum& checksum) {
  std::vector<int> members;
  for (int r = comm.rank() % 2; r < comm.size(); r += 2) members.push_back(r);
  const auto part = comm.split(members, soon());
  if (members[part->rank()] != comm.rank() || part->size() != static_cast<int>(members.size()))
    throw std::runtime_error("split gave a wrong rank or size");
  Checksum ignored;  // the two halves differ in size
  check_reductions(*part, counts.first(std::min<size_t>(counts.size(), 3)), ignored);
  check_messages(*part, counts.first(std::min<size_t>(counts.size(), 3)));
  comm.barrier(soon());
  checksum.add("split", 5);
}

}  // namespace

uint64_t run_communicator_cases(Communicator& comm, CaseSize case_size) {
  const std::vector<size_t> counts = case_size == CaseSize::kQuick ? std::vector<size_t>{0, 1, 17, 3001}
                                                                   : std::vector<size_t>{0, 1, 17, 2048, 3001, 150'001};
  Checksum checksum;
  check_reductions(comm, counts, checksum);
  check_moves(comm, counts, checksum);
  check_messages(comm, counts);
  check_split(comm, counts, checksum);
  return checksum.value();
}

}  // namespace chorale::comm
