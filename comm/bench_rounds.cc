#include "comm/bench_rounds.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "comm/base/error.h"

namespace chorale::comm {
namespace {

using Clock = Deadline::Clock;

constexpr int kNumLeaves = 16;
constexpr size_t kPeriod = 4093;  // values repeat after so many: a prime, so that no slice or tile looks like another

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int share_out_leaves(int num_ranks) { return std::max(kNumLeaves, num_ranks); }

/// Of either sign and very different size, so that nearly every order of additions rounds in a way of its own.
float scattered(uint32_t node, uint32_t place) {
  uint32_t h = node * 0x9e3779b1u ^ (place + 1) * 0x85ebca6bu;
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  h ^= h >> 16;
  constexpr int kExponents = 12;
  const float mantissa = 1.0f + static_cast<float>(h & 0xffffu) / 65536.0f;
  const float value = std::ldexp(mantissa, static_cast<int>((h >> 16) % kExponents));
  return (h >> 31) != 0 ? -value : value;
}

/// Repeats `one` until `count` values are full.
void tile(std::span<float> values, const std::vector<float>& one) {
  for (size_t i = 0; i < values.size(); i += one.size())
    std::copy_n(one.begin(), std::min(one.size(), values.size() - i), values.begin() + static_cast<ptrdiff_t>(i));
}

}  // namespace

std::vector<double> run_rounds(Communicator& comm, const CommBenchOptions& options, size_t bytes,
                               const BenchRound& round) {
  constexpr int kRound = 20;
  constexpr double kWarmupShare = 0.25;
  const int wanted = bytes <= (64u << 10)
                         ? options.iterations
                         : std::max<int>(kRound, static_cast<int>(options.iterations * (64.0 * 1024) / bytes));
  std::vector<double> times;
  double each = 0;  // seconds of one operation and its share of what surrounds it
  const auto repeat = [&](int num_wanted, double most_seconds) {
    const auto begin = Clock::now();
    int num_done = 0;
    for (;;) {
      const double left = most_seconds - seconds_since(begin);
      int count = num_done < num_wanted && (left > 0 || num_done == 0) ? kRound : 0;
      // The first round finds out what an operation takes; later ones end with the time.
      if (each == 0)
        count = std::min(count, 1);
      else if (count > 0)
        count = std::clamp(static_cast<int>(std::min<double>(kRound, left / each)), 1, kRound);
      comm.broadcast(std::as_writable_bytes(std::span(&count, 1)), 0, soon());
      if (count == 0) return;
      comm.barrier(soon());
      const auto start = Clock::now();
      const std::vector<double> taken = round(count);
      each = seconds_since(start) / count;
      num_done += count;
      times.insert(times.end(), taken.begin(), taken.end());
    }
  };
  repeat(std::max(options.warmup, 1), options.seconds_per_size * kWarmupShare);
  times.clear();
  repeat(wanted, options.seconds_per_size);
  return times;
}

CommBenchRow summarise(std::vector<double> times, CommBenchRow row, double bus_factor) {
  CHECK(!times.empty());
  std::ranges::sort(times);
  const auto at = [&](double quantile) {
    return times[static_cast<size_t>(quantile * static_cast<double>(times.size() - 1) + 0.5)];
  };
  row.num_samples = static_cast<int>(times.size());
  row.p50_us = at(0.50);
  row.p99_us = at(0.99);
  row.mean_us = std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
  row.algbw_gbps = static_cast<double>(row.bytes) / row.mean_us * 1e-3;
  row.busbw_gbps = row.algbw_gbps * bus_factor;
  return row;
}

double all_reduce_bus_factor(int num_ranks) { return 2.0 * (num_ranks - 1) / num_ranks; }

BenchSum::BenchSum(int num_ranks, size_t num_values)
    : num_ranks_(num_ranks),
      num_values_(num_values),
      schedule_(make_tree_schedule(share_out_leaves(num_ranks), share_leaves(share_out_leaves(num_ranks), num_ranks))) {
}

std::vector<float> BenchSum::node(int index) const {
  std::vector<float> values(std::min(kPeriod, num_values_));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = scattered(static_cast<uint32_t>(index), static_cast<uint32_t>(i));
  return values;
}

std::vector<float> BenchSum::partials(int rank) const {
  const int first = schedule_.first_node[static_cast<size_t>(rank)];
  const int last = schedule_.first_node[static_cast<size_t>(rank) + 1];
  std::vector<float> all(static_cast<size_t>(last - first) * num_values_);
  for (int k = first; k < last; ++k)
    tile(std::span(all).subspan(static_cast<size_t>(k - first) * num_values_, num_values_), node(k));
  return all;
}

std::vector<float> BenchSum::values(int rank) const {
  std::vector<float> all(num_values_);
  tile(all, node(rank));
  return all;
}

void BenchSum::check_root(std::span<const float> got, std::string_view what) const {
  CHECK_EQ(got.size(), num_values_);
  std::vector<std::vector<float>> sums;
  for (int k = 0; k < static_cast<int>(schedule_.nodes.size()); ++k) sums.push_back(node(k));
  for (const TreeAdd& add : schedule_.additions)
    for (size_t i = 0; i < sums.front().size(); ++i)
      sums[static_cast<size_t>(add.left)][i] += sums[static_cast<size_t>(add.right)][i];
  const std::vector<float>& root = sums.front();
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] != root[i % root.size()])
      fail(ErrorCode::kCorrupt, "{} gave {:.9g} at {} of {}, the tree's order gives {:.9g}", what, got[i], i,
           got.size(), root[i % root.size()]);
}

void BenchSum::check_any_order(std::span<const float> got, int times, std::string_view what) const {
  CHECK_EQ(got.size(), num_values_);
  std::vector<double> sum(std::min(kPeriod, num_values_)), size(sum.size());
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const std::vector<float> values = node(rank);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += static_cast<double>(values[i]);
      size[i] += std::abs(static_cast<double>(values[i]));
    }
  }
  const double growth = std::pow(num_ranks_, times - 1);  // each later one adds up equal sums
  const double rounding = num_ranks_ * times * static_cast<double>(std::numeric_limits<float>::epsilon());
  for (size_t i = 0; i < got.size(); ++i) {
    const size_t place = i % sum.size();
    const double wanted = sum[place] * growth;
    if (!(std::abs(static_cast<double>(got[i]) - wanted) <= size[place] * growth * rounding))
      fail(ErrorCode::kCorrupt, "{} gave {:.9g} at {} of {} instead of {:.9g}", what, got[i], i, got.size(), wanted);
  }
}

std::string to_table(const std::vector<CommBenchRow>& rows) {
  std::string text = fmt::format("{:<18} {:<14} {:>5} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "test", "backend",
                                 "ranks", "bytes", "p50 us", "p99 us", "mean us", "algbw GB/s", "busbw GB/s");
  for (const CommBenchRow& row : rows)
    text += fmt::format("{:<18} {:<14} {:>5} {:>10} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f} {:>10.2f}\n", row.test,
                        row.backend, row.ranks, row.bytes, row.p50_us, row.p99_us, row.mean_us, row.algbw_gbps,
                        row.busbw_gbps);
  return text;
}

}  // namespace chorale::comm
