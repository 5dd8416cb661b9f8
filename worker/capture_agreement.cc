#include "worker/capture_agreement.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace chorale::worker {
namespace {
using Note = std::array<char, 400>;  // text, ended by 0
}

std::vector<std::string> share_failures(comm::Communicator& world, const std::string& own, Deadline deadline) {
  const auto num_ranks = static_cast<size_t>(world.size());
  std::vector<Note> notes(num_ranks, Note{});
  std::copy_n(own.begin(), std::min(own.size(), Note().size() - 1), notes[static_cast<size_t>(world.rank())].begin());
  std::vector<size_t> offsets;
  for (size_t rank = 0; rank <= num_ranks; ++rank) offsets.push_back(rank * sizeof(Note));
  world.all_gather(std::as_writable_bytes(std::span(notes)), offsets, deadline);
  std::vector<std::string> failures;
  for (const Note& note : notes) failures.emplace_back(note.data());
  return failures;
}

std::string describe_failures(const std::vector<std::string>& failures) {
  const auto is_failure = [](const std::string& failure) { return !failure.empty(); };
  const auto first = std::ranges::find_if(failures, is_failure);
  if (first == failures.end()) return {};
  const auto others = std::count_if(first + 1, failures.end(), is_failure);
  return fmt::format(
      "decode steps run without CUDA graphs, slower and with the same bits: rank {}{} could not capture them: {} "
      "(--no-cuda-graphs does not try)",
      first - failures.begin(), others == 0 ? "" : fmt::format(" and {} more", others), *first);
}

}  // namespace chorale::worker
