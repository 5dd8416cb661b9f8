// Writes small model folders with pseudo-random weights, for tests that need shapes which no golden has, or files that
// are wrong on purpose.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

namespace chorale::worker::test {

/// A Llama folder, stored as float32, removed with the object.
class SyntheticModel {
 public:
  struct Sizes {
    int vocab = 2500, hidden = 48, intermediate = 160, layers = 2, heads = 6, kv_heads = 3, head_dim = 8;
  };
  using Tensors = std::map<std::string, std::vector<int64_t>>;

  explicit SyntheticModel(const Sizes& sizes, const std::function<void(Tensors&)>& spoil = nullptr) {
    const nlohmann::json config = {{"model_type", "llama"},
                                   {"vocab_size", sizes.vocab},
                                   {"hidden_size", sizes.hidden},
                                   {"intermediate_size", sizes.intermediate},
                                   {"num_hidden_layers", sizes.layers},
                                   {"num_attention_heads", sizes.heads},
                                   {"num_key_value_heads", sizes.kv_heads},
                                   {"head_dim", sizes.head_dim},
                                   {"max_position_embeddings", 512},
                                   {"rms_norm_eps", 1e-5}};
    folder_.write("config.json", config.dump());
    Tensors tensors = shapes(sizes);
    if (spoil) spoil(tensors);
    write(tensors);
  }
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  static Tensors shapes(const Sizes& s) {
    const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
    Tensors tensors{{"model.embed_tokens.weight", {s.vocab, s.hidden}},
                    {"model.norm.weight", {s.hidden}},
                    {"lm_head.weight", {s.vocab, s.hidden}}};
    for (int layer = 0; layer < s.layers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      tensors[prefix + "input_layernorm.weight"] = {s.hidden};
      tensors[prefix + "post_attention_layernorm.weight"] = {s.hidden};
      tensors[prefix + "self_attn.q_proj.weight"] = {q, s.hidden};
      tensors[prefix + "self_attn.k_proj.weight"] = {kv, s.hidden};
      tensors[prefix + "self_attn.v_proj.weight"] = {kv, s.hidden};
      tensors[prefix + "self_attn.o_proj.weight"] = {s.hidden, q};
      tensors[prefix + "mlp.gate_proj.weight"] = {s.intermediate, s.hidden};
      tensors[prefix + "mlp.up_proj.weight"] = {s.intermediate, s.hidden};
      tensors[prefix + "mlp.down_proj.weight"] = {s.hidden, s.intermediate};
    }
    return tensors;
  }

  void write(const Tensors& tensors) const {
    nlohmann::json header;
    std::string data;
    uint32_t state = 12345;
    for (const auto& [name, shape] : tensors) {
      int64_t count = 1;
      for (int64_t dim : shape) count *= dim;
      const size_t begin = data.size();
      for (int64_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        const float value =
            (static_cast<float>(state >> 8) / 16777216.0f - 0.5f) * 0.6f + (shape.size() == 1 ? 1.0f : 0.0f);
        data.append(reinterpret_cast<const char*>(&value), sizeof value);
      }
      header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
    }
    const std::string text = header.dump();
    const uint64_t size = text.size();
    std::ofstream file(path() / "model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof size) << text << data;
  }

  const chorale::test::TemporaryFolder folder_;
};

}  // namespace chorale::worker::test
