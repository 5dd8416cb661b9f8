#include "parallel/checkpoint/checkpoint.h"

#include <nlohmann/json.hpp>

#include "tests/support/shared_data.h"

namespace chorale::parallel {
namespace {

TEST(Checkpoint, OpensAFolder) {
  SHARED_OR_SKIP(path, "models/stories260K");
  const Checkpoint checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint.gguf(), nullptr);
  EXPECT_TRUE(checkpoint.config_json().is_object());
  EXPECT_NE(checkpoint.find("model.embed_tokens.weight"), nullptr);
}

TEST(Checkpoint, OpensAGgufFile) {
  SHARED_OR_SKIP(path, "goldens/gguf/llama-q4_k.gguf");
  const Checkpoint checkpoint = Checkpoint::open(path);
  ASSERT_NE(checkpoint.gguf(), nullptr);
  EXPECT_EQ(*checkpoint.gguf()->get_string("general.architecture"), "llama");
  const StoredTensor* embedding = checkpoint.find("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->shape.num_dims(), 2);
}

}  // namespace
}  // namespace chorale::parallel
