// linear by a library in cuBLASLt's shape: fitted to a weight after a probe, refused where its bits depend on the batch
// or on the outputs beside them. The libraries are stand-ins that the build makes (tests/support/fake_cublaslt.c). The
// program looks for the library once, so each case runs in a process of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "comm/base/env.h"
#include "comm/cuda/cublaslt_library.h"
#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/library_gemm.h"

namespace chorale::worker {
namespace {

const std::string kFolder = CHORALE_FAKE_LIBRARIES;
constexpr int64_t kOutputs = 80, kInputs = 96;

class EmulatedLibrary {
 public:
  PackedWeight make(WeightOrder order) {
    std::vector<float> rows(kOutputs * kInputs);
    for (size_t i = 0; i < rows.size(); ++i)
      rows[i] = static_cast<float>(static_cast<int>(i * 7919 % 2003) - 1001) / 977;
    PackedWeight host = make_packed_weight(DType::kBF16, kOutputs, kInputs, {}, 0, order);
    pack_rows(host, 0, kOutputs, rows.data());
    PackedWeight weight = to_device(host, *device_, *stream_);
    stream_->synchronize(Deadline::after(std::chrono::seconds(10)));
    return weight;
  }
  PackedWeight fitted(std::string_view gemm, parallel::Answer answer = parallel::Answer::kOne) {
    PackedWeight weight = make(WeightOrder::kRowMajor);
    weight.library = fit_library_gemm(gemm, answer, {device_.get(), stream_.get()}, weight);
    return weight;
  }
  std::vector<float> product(const PackedWeight& weight, int64_t num_rows) {
    Tensor x(*device_, DType::kBF16, {num_rows, kInputs}), out(*device_, DType::kF32, {num_rows, kOutputs});
    for (int64_t i = 0; i < num_rows * kInputs; ++i)  // the emulator's memory is the host's
      x.as<BFloat16>()[i] = to_bf16(static_cast<float>(i * 104729 % 1999 - 999) / 991);
    const Workspace::Scope scope(scratch_);
    scratch_.take<int32_t>(3);  // as a step has, whose library must find aligned workspace all the same
    linear(ctx_, {.x = x, .weight = &weight, .out = out});
    stream_->synchronize(Deadline::after(std::chrono::seconds(10)));
    return {out.as<float>(), out.as<float>() + num_rows * kOutputs};
  }

 private:
  std::unique_ptr<Device> device_ = open_device(DeviceKind::kEmulator, 0);
  std::unique_ptr<Stream> stream_ = device_->make_stream();
  ThreadPool pool_{{.num_threads = 1, .spin_us = 0}};
  Workspace scratch_{device_.get(), size_t{1} << 20};
  OpContext ctx_{DeviceKind::kEmulator, parallel::Isa::kScalar, pool_, scratch_, stream_.get()};
};

/// Runs `body` in a process that finds the stand-in `name` and expects the text that it prints.
template <typename Body>
void in_process_with(const std::string& name, const std::string& expected, const Body& body) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("CHORALE_CUBLASLT_PATH", (kFolder + "/libfake_" + name + ".so").c_str(), 1);
        set_compute_thread_fp_state();
        std::string text;
        try {
          text = body();
        } catch (const Error& error) {
          text = error.what();
        }
        fputs(text.c_str(), stderr);
        _exit(0);
      },
      testing::ExitedWithCode(0), testing::HasSubstr(expected));
}

TEST(CublasLtGemmDeathTest, MultipliesAsManyRowsAsThereAre) {
  in_process_with("right", "same", [] {
    EmulatedLibrary library;
    const PackedWeight weight = library.fitted("cublaslt-13.1.0/emulator/tp=1");
    const PackedWeight own = library.make(WeightOrder::kFragments);
    for (int64_t rows : {1, 3, 512, 700}) {
      const std::vector<float> got = library.product(weight, rows), expected = library.product(own, rows);
      for (size_t i = 0; i < got.size(); ++i)
        if (std::abs(got[i] - expected[i]) > 96 * 0x1p-22F * 96)
          return fmt::format("{} rows: {} at {}, expected about {}", rows, got[i], i, expected[i]);
    }
    return std::string("same");
  });
}

TEST(CublasLtGemmDeathTest, ProbeRefusesBitsThatDependOnTheBatch) {
  in_process_with("rows", "row 0 of 1 x 80 outputs has other bits than the same row of 512 x 80; use --gemm own",
                  [] { return EmulatedLibrary().fitted("cublaslt-13.1.0/emulator/tp=1"), std::string("fitted"); });
}

TEST(CublasLtGemmDeathTest, ProbeRefusesBitsThatDependOnTheOutputsBeside) {
  in_process_with("outputs", "x 16 outputs has other bits than the same row of 512 x 80; use --gemm own",
                  [] { return EmulatedLibrary().fitted("cublaslt-13.1.0/emulator/tp=1"), std::string("fitted"); });
}

/// The stand-in's first proposal splits k and needs workspace: other bits than one answer's, near the same values.
TEST(CublasLtGemmDeathTest, AFastAnswerTakesTheFirstProposal) {
  in_process_with("rows", "other bits, near", [] {
    EmulatedLibrary library;
    const PackedWeight weight = library.fitted("cublaslt-13.1.0/emulator/tp=1", parallel::Answer::kFast);
    const PackedWeight own = library.make(WeightOrder::kFragments);
    bool same = true;
    for (int64_t rows : {1, 3, 700, 3}) {
      const std::vector<float> got = library.product(weight, rows), expected = library.product(own, rows);
      same = same && got == expected;
      for (size_t i = 0; i < got.size(); ++i)
        if (std::abs(got[i] - expected[i]) > 96 * 0x1p-22F * 96)
          return fmt::format("{} rows: {} at {}, expected about {}", rows, got[i], i, expected[i]);
    }
    return std::string(same ? "the same bits" : "other bits, near");
  });
  in_process_with("missing", "--answer fast: ", [] {
    return EmulatedLibrary().fitted("cublaslt-13.1.0/x/tp=1", parallel::Answer::kFast), std::string("fitted");
  });
}

TEST(CublasLtGemmDeathTest, OtherVersionsAndMissingLibrariesAreRefused) {
  in_process_with("right", "this rank has cuBLASLt 13.1.0, the world multiplies with cublaslt-12.8.5/x/tp=1",
                  [] { return EmulatedLibrary().fitted("cublaslt-12.8.5/x/tp=1"), std::string("fitted"); });
  in_process_with("missing", "it has no cublasLtMatmul",
                  [] { return EmulatedLibrary().fitted("cublaslt-13.1.0/x/tp=1"), std::string("fitted"); });
  in_process_with("old", "[]", [] { return "[" + cublaslt_version(DeviceKind::kEmulator) + "]"; });
  in_process_with("old", "it is version 11.6.5", [] { return cublaslt_problem(DeviceKind::kEmulator); });
  in_process_with("right", "[]", [] { return "[" + cublaslt_problem(DeviceKind::kEmulator) + "]"; });
  in_process_with("right", "[13.1.0]", [] { return "[" + cublaslt_version(DeviceKind::kEmulator) + "]"; });
}

TEST(LibraryGemm, UnknownNamesAreRefusedWithTheKnownOnes) {
  const PackedWeight weight = make_packed_weight(DType::kBF16, 16, 16, {}, 0, WeightOrder::kRowMajor);
  try {
    fit_library_gemm("oneblas-1/x", parallel::Answer::kOne, {}, weight);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("cublaslt"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace chorale::worker
