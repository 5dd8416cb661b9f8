// What ranks on devices exchange activations over: the choice from what they say of themselves.
#include "parallel/device_comm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "parallel/cluster_plan.h"

namespace chorale::parallel {
namespace {

using testing::HasSubstr;

std::vector<WorkerHello> gpus(int count) {
  std::vector<WorkerHello> hellos;
  for (int rank = 0; rank < count; ++rank)
    hellos.push_back({.rank = rank,
                      .num_ranks = count,
                      .host = "node" + std::to_string(rank / 2),
                      .device = "cuda",
                      .device_identity = "gpu " + std::to_string(rank % 2),
                      .device_bus_id = fmt::format("0000:0{}:00.0", rank % 2),
                      .nccl_version = "2.28.9"});
  return hellos;
}

std::string refusal(const std::vector<WorkerHello>& hellos) {
  try {
    choose_device_comm(DeviceComm::kNccl, hellos);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    return error.what();
  }
  return "taken";
}

TEST(DeviceCommChoice, TakesNcclWhereEveryRankHasItAndAGpuOfItsOwn) {
  const DeviceCommChoice choice = choose_device_comm(std::nullopt, gpus(4));
  EXPECT_EQ(choice.comm, DeviceComm::kNccl);
  EXPECT_EQ(choice.why_not_nccl, "");
  EXPECT_EQ(choose_device_comm(DeviceComm::kMpi, gpus(4)).comm, DeviceComm::kMpi);
  EXPECT_EQ(choose_device_comm(std::nullopt, gpus(1)).comm, DeviceComm::kMpi) << "one rank exchanges nothing";
}

TEST(DeviceCommChoice, SaysWhyNot) {
  auto hellos = gpus(4);
  hellos[3].nccl_version = "2.20.5";
  const DeviceCommChoice differs = choose_device_comm(std::nullopt, hellos);
  EXPECT_EQ(differs.comm, DeviceComm::kMpi);
  EXPECT_EQ(
      differs.why_not_nccl,
      "activations travel over MPI, by way of the host: rank 3 on node1 has NCCL 2.20.5, rank 0 on node0 has 2.28.9");
  EXPECT_THAT(refusal(hellos), HasSubstr("--comm nccl: rank 3 on node1 has NCCL 2.20.5"));

  hellos[3].nccl_version = "";
  hellos[3].nccl_problem = "/opt/libnccl.so.2: it is version 2.10.3";
  EXPECT_EQ(
      choose_device_comm(std::nullopt, hellos).why_not_nccl,
      "activations travel over MPI, by way of the host: rank 3 on node1: /opt/libnccl.so.2: it is version 2.10.3");
  EXPECT_EQ(refusal(hellos),
            "--comm nccl: rank 3 on node1: /opt/libnccl.so.2: it is version 2.10.3 (--comm mpi does without it)");

  hellos = gpus(4);
  hellos[1].device_identity = hellos[0].device_identity;
  EXPECT_THAT(choose_device_comm(std::nullopt, hellos).why_not_nccl, HasSubstr("ranks 0 and 1 on node0 share a GPU"));
  EXPECT_EQ(choose_device_comm(DeviceComm::kNccl, hellos).comm, DeviceComm::kNccl) << "newer versions allow it";
}

TEST(DeviceCommChoice, OneRankHasNobodyToTalkTo) {
  auto hellos = gpus(1);
  hellos[0].nccl_version = "";  // not looked for
  EXPECT_EQ(choose_device_comm(DeviceComm::kNccl, hellos).comm, DeviceComm::kMpi);
  EXPECT_EQ(choose_device_comm(std::nullopt, hellos).why_not_nccl, "");
}

TEST(DeviceCommChoice, TellsPartsOfOneGpuByItsAddress) {
  auto hellos = gpus(4);  // two on each node; those of different nodes have the same addresses
  hellos[1].device_bus_id = hellos[0].device_bus_id;
  const DeviceCommChoice parts = choose_device_comm(std::nullopt, hellos);
  EXPECT_EQ(parts.comm, DeviceComm::kMpi);
  EXPECT_EQ(parts.why_not_nccl,
            "activations travel over MPI, by way of the host: ranks 0 and 1 on node0 have parts (MIG) of one GPU, "
            "0000:00:00.0, which NCCL takes for one");
  EXPECT_EQ(choose_device_comm(DeviceComm::kNccl, hellos).comm, DeviceComm::kNccl) << "newer versions allow it";
  for (WorkerHello& hello : hellos) hello.device_identity = hello.device_bus_id = "";
  EXPECT_EQ(choose_device_comm(std::nullopt, hellos).comm, DeviceComm::kNccl) << "a device that is nowhere";
}

TEST(DeviceCommChoice, IsSilentWhereNobodyExpectsNccl) {
  auto hellos = gpus(2);
  for (WorkerHello& hello : hellos) hello.device = "cpu", hello.device_identity = hello.nccl_version = "";
  EXPECT_EQ(choose_device_comm(std::nullopt, hellos).why_not_nccl, "");
  EXPECT_THAT(refusal(hellos), HasSubstr("computes on the CPU"));
  for (WorkerHello& hello : hellos) hello.device = "emulator";
  EXPECT_EQ(choose_device_comm(std::nullopt, hellos).why_not_nccl, "");
  for (WorkerHello& hello : hellos) hello.nccl_version = "2.28.9";
  EXPECT_EQ(choose_device_comm(std::nullopt, hellos).comm, DeviceComm::kNccl);
}

TEST(DeviceCommNames, AreReadBack) {
  EXPECT_EQ(device_comm_from_string("auto"), std::nullopt);
  EXPECT_EQ(device_comm_from_string("nccl"), DeviceComm::kNccl);
  EXPECT_EQ(device_comm_from_string("mpi"), DeviceComm::kMpi);
  EXPECT_THROW(device_comm_from_string("gloo"), Error);
}

}  // namespace
}  // namespace chorale::parallel
