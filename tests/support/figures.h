// A machine of round figures and a model of round sizes, for tests of the layout advisor that are computed by hand.
#pragma once

#include "parallel/recommend/machine_figures.h"
#include "tests/support/toy_model.h"

namespace chorale::test {

/// 10 GB, 1 GB/ms and 100 TFLOP/s a rank; NVLink-like inside a node, a slow network between.
inline parallel::MachineFigures round_machine(int num_nodes, int ranks_per_node) {
  parallel::MachineFigures machine;
  machine.name = "round";
  machine.source = "made up";
  machine.num_nodes = num_nodes;
  machine.ranks_per_node = ranks_per_node;
  machine.device = DeviceKind::kCuda;
  machine.arithmetic = "sm_90";
  machine.memory_bytes = 10'000'000'000;
  machine.memory_bytes_per_s = 1e12;
  machine.bf16_ops_per_s = 1e14;
  machine.f32_ops_per_s = 1e13;
  machine.inside = {"fast link", 5e-6, 2e11};
  machine.between = {"slow network", 2e-5, 1e10};
  return machine;
}

/// 16 heads of 64, 1024 x 4096: a layer has 2^24 elements, and every tp up to 16 that is a power of two cuts evenly.
inline parallel::ModelConfig square_config(int num_layers) {
  parallel::ModelConfig config = toy_config();
  config.vocab_size = 4096;
  config.hidden_size = 1024;
  config.intermediate_size = 4096;
  config.num_layers = num_layers;
  config.num_heads = config.num_kv_heads = 16;
  config.head_dim = 64;
  return config;
}

}  // namespace chorale::test
