// A program for mpirun with two ranks, the two stages of a world: the leader of the last stage publishes the ids of as
// many large steps as may be in flight while stage 0 is idle, that is outside MPI, as it is when it waits for its next
// plan on the control link. The leader must get through, because the coordinator sends no plan before the leader has
// answered. The argument names the backend. Exit code 0, or 1 with one line.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/world.h"
#include "tests/support/temporary_folder.h"
#include "worker/sampled_tokens.h"

namespace chorale::worker {
namespace {

constexpr int kIdsPerStep = 8192;
constexpr uint64_t kNumSteps = 3;  // pp + 1

[[noreturn]] void fail_test(const std::string& message) {
  std::fprintf(stderr, "sampled_tokens_test: %s\n", message.c_str());
  _exit(1);
}

Deadline soon() { return Deadline::after(std::chrono::seconds(60)); }

int32_t id_of(uint64_t step, int i) { return static_cast<int32_t>(step) * 100000 + i; }

/// A step in which every sequence has one row; from_step 0: of the plan, else sampled by that step.
parallel::StepPlan decode_plan(uint64_t step, uint64_t from_step) {
  parallel::StepPlan plan;
  plan.step = step;
  for (int i = 0; i < kIdsPerStep; ++i) {
    parallel::SequenceChunk chunk;
    chunk.sequence_id = static_cast<uint64_t>(i) + 1;
    chunk.first_position = static_cast<int32_t>(step) - 1;
    chunk.num_tokens = 1;
    if (from_step == 0) chunk.tokens = {7};
    chunk.from_step = from_step;
    chunk.sample = parallel::Sample::kYes;
    chunk.new_blocks = {i};  // no plan before it ran here
    plan.chunks.push_back(chunk);
  }
  return plan;
}

SequenceTable table_of(const parallel::StepPlan& first) {
  parallel::StepPlan starts = first;
  for (const parallel::SequenceChunk& chunk : first.chunks) {
    parallel::SequenceStart start;
    start.sequence_id = chunk.sequence_id;
    starts.starts.push_back(start);
  }
  SequenceTable table;
  table.begin_step(starts);
  return table;
}

/// Ring of a bell outside MPI: a named pipe.
void ring(const std::string& pipe) {
  const int fd = open(pipe.c_str(), O_WRONLY | O_NONBLOCK);
  if (fd < 0 || write(fd, "x", 1) != 1) fail_test("cannot write to " + pipe);
  close(fd);
}

void lead(SampledTokens& sampled, SequenceTable& table, const std::string& pipe) {
  for (uint64_t step = 1; step <= kNumSteps; ++step) {
    std::vector<parallel::SampledToken> tokens;
    for (int i = 0; i < kIdsPerStep; ++i)
      tokens.push_back({static_cast<uint64_t>(i) + 1, static_cast<int32_t>(step), {id_of(step, i), 0.0f}, {}});
    sampled.publish(step, tokens, table, soon());
  }
  ring(pipe);
}

void follow(SampledTokens& sampled, SequenceTable& table, int bell) {
  for (uint64_t step = 1; step <= kNumSteps; ++step) sampled.expect(decode_plan(step, 0));
  pollfd waiting{bell, POLLIN, 0};
  constexpr int kPatienceMs = 10000;
  if (poll(&waiting, 1, kPatienceMs) != 1) fail_test("the leader waits for stage 0, which is idle");
  const parallel::StepPlan next = decode_plan(kNumSteps + 1, kNumSteps);
  sampled.collect(next, table, soon());
  table.make_batch(next);
  const std::vector<int32_t> ids = table.input_ids(next, int64_t{1} << 30);
  for (int i = 0; i < kIdsPerStep; ++i)
    if (ids[static_cast<size_t>(i)] != id_of(kNumSteps, i)) fail_test(fmt::format("row {} has another id", i));
}

void run(const comm::MpiSession& session, const std::string& backend) {
  comm::WorldOptions options;
  options.epoch = 991;
  options.backend = backend;
  const auto world = comm::make_world(session, options);
  parallel::Layout layout;
  layout.pp = 2;
  SampledTokens sampled(layout, session.rank(), *world);
  SequenceTable table = table_of(decode_plan(1, 0));
  const chorale::test::TemporaryFolder folder;
  std::string pipe;
  if (session.rank() == 0) {
    pipe = folder.path() / "bell";
    if (mkfifo(pipe.c_str(), 0600) != 0) fail_test("cannot make " + pipe);
  }
  const int bell = session.rank() == 0 ? open(pipe.c_str(), O_RDWR | O_NONBLOCK) : -1;
  pipe = session.broadcast_text(pipe, soon());
  world->barrier(soon());
  if (session.rank() == 0)
    follow(sampled, table, bell);
  else
    lead(sampled, table, pipe);
  world->barrier(soon());
}

}  // namespace
}  // namespace chorale::worker

int main(int argc, char** argv) {
  chorale::init_log(chorale::LogLevel::kError, "test");
  try {
    const auto session = chorale::comm::MpiSession::start();
    chorale::worker::run(*session, argc > 1 ? argv[1] : "mpi");
  } catch (const std::exception& error) {
    chorale::worker::fail_test(error.what());
  }
  return 0;
}
