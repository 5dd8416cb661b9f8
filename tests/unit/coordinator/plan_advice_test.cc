// The flags that describe machines, over made-up GPUs and a made-up measurement; and that what the advisor calls
// fitting is what a world of such ranks would get.
#include "coordinator/commands/plan_advice.h"

#include <gtest/gtest.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/plan_figures.h"
#include "tests/support/figures.h"

namespace chorale::coordinator {
namespace {

using parallel::MachineFigures;
using test::round_machine;
using test::square_config;

MachineSpeed made_up_speed(int /*threads*/, parallel::Isa /*isa*/) { return {50, 500, 1000}; }
const WorkerModule kWorker{nullptr, nullptr, made_up_speed};

DeviceSurvey two_devices() { return {.num_devices = 2}; }
template <int kLinks>
Result<DeviceFacts> h200(int /*index*/) {
  return DeviceFacts{.name = "NVIDIA H200",
                     .arithmetic = "sm_90",
                     .memory = {uint64_t{138} << 30, uint64_t{140} << 30},
                     .num_nvlinks = kLinks};
}
Result<DeviceFacts> unknown_gpu(int /*index*/) {
  return DeviceFacts{.name = "NVIDIA X9", .memory = {1 << 30, 1 << 30}};
}
const DeviceEntry kTwoH200{"cuda", DeviceKind::kCuda, two_devices, nullptr, h200<18>};

MachineFigures figures(std::vector<const char*> flags, std::optional<DeviceKind> device = DeviceKind::kCpu,
                       const DeviceEntry* gpus = nullptr) {
  flags.insert(flags.begin(), "plan");
  cxxopts::Options options("chorale plan");
  add_figure_options(options);
  const auto arguments = options.parse(static_cast<int>(flags.size()), flags.data());
  if (!wants_advice(arguments)) fail(ErrorCode::kInvalidArgument, "no advice wanted");
  return read_figures(arguments, device, gpus, kWorker);
}

std::string refusal(std::vector<const char*> flags, std::optional<DeviceKind> device = DeviceKind::kCpu,
                    const DeviceEntry* gpus = nullptr) {
  try {
    figures(std::move(flags), device, gpus);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PlanFigures, ComeFromTheTableAndFromFlags) {
  const MachineFigures machine =
      figures({"--gpu", "h100-sxm", "--nodes", "2", "--gpus-per-node", "4", "--network", "200", "--network-latency",
               "7", "--gpu-memory-bytes", "60G", "--nvlink", "no"},
              std::nullopt);
  EXPECT_EQ(machine.name, "H100-SXM");
  EXPECT_EQ(machine.num_ranks(), 8);
  EXPECT_EQ(machine.memory_bytes, uint64_t{60} << 30);
  EXPECT_EQ(machine.inside.name, "PCIe 5");
  EXPECT_DOUBLE_EQ(machine.between.bytes_per_s, 25e9);
  EXPECT_DOUBLE_EQ(machine.between.latency_s, 7e-6);
  EXPECT_EQ(machine.owner, parallel::Owner::kRank);
}

TEST(PlanFigures, AreThoseOfTheGpusFoundHere) {
  const MachineFigures machine = figures({"--recommend"}, DeviceKind::kCuda, &kTwoH200);
  EXPECT_EQ(machine.name, "H200");
  EXPECT_EQ(machine.ranks_per_node, 2);
  EXPECT_EQ(machine.memory_bytes, uint64_t{138} << 30);  // what is free there, not the datasheet's
  EXPECT_EQ(machine.inside.name, "NVLink");
  const DeviceEntry unlinked{"cuda", DeviceKind::kCuda, two_devices, nullptr, h200<0>};
  EXPECT_EQ(figures({"--recommend"}, DeviceKind::kCuda, &unlinked).inside.name, "PCIe 5");
  const DeviceEntry unknown{"cuda", DeviceKind::kCuda, two_devices, nullptr, unknown_gpu};
  EXPECT_NE(refusal({"--recommend"}, DeviceKind::kCuda, &unknown).find("NVIDIA X9 has no row"), std::string::npos);
}

TEST(PlanFigures, OfCpusAreMeasuredWhereTheyAreNotGiven) {
  const MachineFigures measured = figures({"--recommend", "--ranks-per-node", "2"});
  EXPECT_EQ(measured.owner, parallel::Owner::kNode);
  EXPECT_DOUBLE_EQ(measured.memory_bytes_per_s, 50e9);
  EXPECT_DOUBLE_EQ(measured.f32_ops_per_s, 500e9);
  EXPECT_NE(measured.source.find("measured"), std::string::npos);
  const MachineFigures given = figures({"--recommend", "--memory-bandwidth", "80", "--matrix-rate", "2"});
  EXPECT_DOUBLE_EQ(given.memory_bytes_per_s, 80e9);
  EXPECT_DOUBLE_EQ(given.bf16_ops_per_s, 2e12);
  EXPECT_NE(given.source.find("given"), std::string::npos);
}

TEST(PlanFigures, RefuseWhatContradictsItself) {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{"--nodes", "2"}, "--nodes describes machines"},
      {{"--gpu", "H100-SXM"}, "--gpu and --device cpu contradict"},
      {{"--recommend", "--nvlink", "yes"}, "--nvlink needs GPUs"},
      {{"--recommend", "--nodes", "0"}, "--nodes 0: expected 1 to"},
      {{"--recommend", "--network", "-1"}, "--network -1: expected more than 0"},
      {{"--recommend", "--memory-bandwidth", "0"}, "--memory-bandwidth 0: expected more than 0"},
      {{"--recommend", "--memory-bytes", "x"}, "expected bytes"}};
  for (const auto& [flags, says] : cases)
    EXPECT_NE(refusal(flags).find(says), std::string::npos) << says << "; it says " << refusal(flags);
  EXPECT_NE(refusal({"--gpu", "H1000"}, std::nullopt).find("known are A100-40"), std::string::npos);
  EXPECT_NE(refusal({"--gpu", "L4", "--nvlink", "yes"}, std::nullopt).find("L4 has no NVLink"), std::string::npos);
  EXPECT_NE(refusal({"--gpu", "L4", "--nvlink", "maybe"}, std::nullopt).find("one of yes, no"), std::string::npos);
  EXPECT_NE(refusal({"--recommend"}, DeviceKind::kEmulator).find("emulator has no figures"), std::string::npos);
}

// For GPUs and CPUs, layouts even and uneven: the room that the advisor sees is the plan's, and what it refuses the
// plan refuses.
TEST(PlanAdvice, ALayoutOfMoreRanksThanThereAreNamesTheNodesItNeeds) {
  const MachineFigures machine = figures({"--gpu", "h100-sxm", "--gpus-per-node", "8"}, std::nullopt);
  parallel::LayoutRequest layout;
  layout.tp = 8;
  check_there_are_ranks(machine, layout);
  layout.pp = 3;
  try {
    check_there_are_ranks(machine, layout);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("are 24 ranks, but there are 8"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("give --nodes 3"), std::string::npos) << error.what();
  }
}

TEST(PlanAdvice, SeesTheRoomThatAWorldWouldHave) {
  const parallel::ModelConfig config = square_config(6);
  ClusterRequest request;
  request.model_path = "m";
  request.max_model_len = 1024;
  request.max_num_seqs = 200;
  int num_fitting = 0, num_refused = 0;
  for (const parallel::Owner owner : {parallel::Owner::kRank, parallel::Owner::kNode})
    for (const uint64_t memory : {uint64_t{500} << 20, uint64_t{700} << 20, uint64_t{2} << 30, uint64_t{20} << 30})
      for (int tp = 1; tp <= 4; ++tp)
        for (int pp = 1; tp * pp <= 8 && pp <= 6; ++pp) {
          MachineFigures machine = round_machine(2, 4);
          machine.memory_bytes = memory;
          machine.owner = owner;
          if (owner == parallel::Owner::kNode) machine.device = DeviceKind::kCpu;
          request.layout.tp = tp;
          request.layout.pp = pp;
          const auto layout = make_layout(config, request.layout);
          const auto seen = estimate(machine, config, workload_of(request, config, 0), layout);
          const auto hellos = hellos_of(machine, tp * pp);
          request.num_kv_blocks = blocks_to_name(seen, machine);
          SCOPED_TRACE(testing::Message() << "tp=" << tp << " pp=" << pp << " memory=" << memory);
          if (seen.fit == parallel::Fit::kNone) {
            ++num_refused;
            request.num_kv_blocks = 0;
            EXPECT_THROW(make_cluster_plan(request, config, hellos, 1), Error);
          } else {
            ++num_fitting;
            EXPECT_EQ(make_cluster_plan(request, config, hellos, 1).num_kv_blocks * parallel::kBlockTokens,
                      seen.kv_tokens);
          }
        }
  EXPECT_GT(num_fitting, 50);
  EXPECT_GT(num_refused, 3);
}

TEST(PlanAdvice, ShowsTheRecommendedLayoutInTableAndJson) {
  ClusterRequest request;
  request.max_model_len = 1024;
  request.max_num_seqs = 8;
  const parallel::ModelConfig config = square_config(6);
  const MachineFigures machine = round_machine(1, 4);
  const parallel::Workload workload = workload_of(request, config, 0);
  EXPECT_EQ(workload.mean_context, 512);
  EXPECT_EQ(workload_of(request, config, 1 << 20).mean_context, 1024);  // no sequence is longer
  const parallel::Advice advice = advise(machine, config, workload);
  const parallel::LayoutEstimate& best = advice.layouts[advice.recommended];
  const nlohmann::json shown = json_of(advice, machine, workload);
  EXPECT_EQ(shown["layouts"].size(), advice.layouts.size());
  EXPECT_EQ(shown["recommendation"]["tp"], best.tp);
  EXPECT_EQ(shown["recommendation"]["why"].size(), advice.why.size());
  EXPECT_NE(shown["recommendation"]["note"].get<std::string>().find("not measurements"), std::string::npos);
  EXPECT_EQ(shown["figures"]["ranks_per_node"], 4);
  const std::string text = text_of(advice, machine, workload);
  EXPECT_NE(text.find("not measurements"), std::string::npos);
  EXPECT_NE(text.find("recommended (*): --tp " + std::to_string(best.tp)), std::string::npos) << text;
  EXPECT_EQ(std::ranges::count(text.substr(0, text.find("recommended")), '*'), 1) << text;
}

}  // namespace
}  // namespace chorale::coordinator
