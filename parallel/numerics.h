// The numerics class of a world (architecture.md N10): everything besides the model that decides which bits an answer
// has. The coordinator chooses it once from what all ranks support and every rank computes in it; it is printed and
// stored with each job.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "comm/base/bytes.h"
#include "comm/base/dtype.h"

namespace chorale::parallel {

/// Instruction sets a CPU kernel may use, weakest first. All give the same bits: one chain per output, fused
/// multiply-adds everywhere, and vdpbf16ps (kAvx512Bf16) equals two of them with denormals flushed, which every compute
/// thread does (worker/thread_pool.h). Still part of the class, because that equality was measured on one CPU family
/// only (docs/results/cpu-kernels.md).
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Bf16 };
std::string_view to_string(Isa isa);
/// Throws Error{kInvalidArgument} that lists the valid names.
Isa isa_from_string(std::string_view name);

/// The best instruction set of this CPU for compute type `dtype`. From CPUID and a table of CPU models, never from a
/// timing: for bf16 weights vdpbf16ps is used only on models where it beats widening to float32.
Isa best_isa(DType dtype);
/// True if this CPU can execute `isa`.
bool supports(Isa isa);
/// "AMD EPYC 9B14 (family 25 model 17)" for logs and results.
std::string cpu_model_name();

/// How far promise 1 goes. kFast (GPUs only): a library's heuristic multiplies, whatever its order of additions, and
/// ranks add up in any order: an answer may depend on the layout, the batch and the number of rows.
enum class Answer : uint8_t { kOne, kFast };
std::string_view to_string(Answer answer);
/// Throws Error{kInvalidArgument} that lists the valid names.
Answer answer_from_string(std::string_view name);

struct NumericsClass {
  DType compute = DType::kF32;  // f32, bf16 or, on GPUs, f16: GEMM inputs
  DType cache = DType::kF32;    // K and V
  /// Device::arithmetic of every rank: "cpu", "sm_90", "emulator". What the tensor cores of a GPU model do inside one
  /// instruction is its own; `isa` counts on CPUs only.
  std::string device = "cpu";
  Isa isa = Isa::kScalar;
  int attention_leaves = 1;  // L_a
  int mlp_leaves = 1;        // L_m
  /// What multiplies with column-parallel weights on a GPU: "own", or "cublaslt-13.1.0/NVIDIA_H200/tp=2": a library's
  /// order of additions is its own for each version, GPU model and cut (docs/adr/0007).
  std::string gemm = "own";
  Answer answer = Answer::kOne;
  std::string build_id;

  /// "bf16/cache=bf16/avx512_bf16/La=9/Lm=16/build=..."; on a GPU "sm_90/gemm=own" in the place of the instruction set,
  /// or "sm_90/answer=fast/gemm=cublaslt-...".
  std::string to_string() const;
  void encode(ByteWriter& out) const;
  static NumericsClass decode(ByteReader& in);
};

}  // namespace chorale::parallel
