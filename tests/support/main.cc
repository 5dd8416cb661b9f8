#include <gtest/gtest.h>

#include "comm/base/log.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  chorale::init_log(chorale::LogLevel::kError, "test");
  return RUN_ALL_TESTS();
}
