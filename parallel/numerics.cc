#include "parallel/numerics.h"

#include <array>
#include <cstring>

#include <fmt/format.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

constexpr std::array<std::string_view, 4> kIsaNames{"scalar", "avx2", "avx512", "avx512_bf16"};

struct CpuModel {
  std::string vendor;
  std::string brand;
  unsigned family = 0;
  unsigned model = 0;
};

CpuModel read_cpu_model() {
  CpuModel cpu;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) != 0) {
    std::array<unsigned, 3> words{b, d, c};
    cpu.vendor.assign(reinterpret_cast<const char*>(words.data()), 12);
  }
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) {  // Intel SDM volume 2, CPUID leaf 1: extended family and model
    const unsigned family = (a >> 8) & 0xf;
    cpu.family = family == 0xf ? family + ((a >> 20) & 0xff) : family;
    cpu.model = ((a >> 4) & 0xf) | (family == 0xf || family == 6 ? ((a >> 12) & 0xf0) : 0);
  }
  for (unsigned leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    std::array<unsigned, 4> words{};
    if (__get_cpuid(leaf, &words[0], &words[1], &words[2], &words[3]) == 0) break;
    cpu.brand.append(reinterpret_cast<const char*>(words.data()), 16);
  }
  cpu.brand = cpu.brand.c_str();  // ends at the first NUL
  while (!cpu.brand.empty() && cpu.brand.back() == ' ') cpu.brand.pop_back();
#endif
  return cpu;
}

const CpuModel& cpu_model() {
  static const CpuModel cpu = read_cpu_model();
  return cpu;
}

/// Models on which vdpbf16ps beats widening bf16 to float32 and FMA (docs/results/cpu-kernels.md): full rate on AMD Zen
/// 4 and Zen 5, a quarter of the FMA rate on Intel's Sapphire Rapids.
bool has_fast_bf16_dot(const CpuModel& cpu) {
  if (cpu.vendor != "AuthenticAMD") return false;
  const bool zen4 =
      cpu.family == 0x19 && ((cpu.model >= 0x10 && cpu.model <= 0x1f) || (cpu.model >= 0x60 && cpu.model <= 0x7f) ||
                             (cpu.model >= 0xa0 && cpu.model <= 0xaf));
  return zen4 || cpu.family == 0x1a;
}

}  // namespace

std::string_view to_string(Isa isa) { return kIsaNames[static_cast<size_t>(isa)]; }

Isa isa_from_string(std::string_view name) {
  for (size_t i = 0; i < kIsaNames.size(); ++i)
    if (kIsaNames[i] == name) return static_cast<Isa>(i);
  fail(ErrorCode::kInvalidArgument, "unknown instruction set '{}'; one of {}", name, fmt::join(kIsaNames, ", "));
}

bool supports(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case Isa::kScalar: return true;
    case Isa::kAvx2: return avx2;
    case Isa::kAvx512: return avx512;
    case Isa::kAvx512Bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::kScalar;
#endif
}

Isa best_isa(DType dtype) {
  if (dtype == DType::kBF16 && supports(Isa::kAvx512Bf16) && has_fast_bf16_dot(cpu_model())) return Isa::kAvx512Bf16;
  if (supports(Isa::kAvx512)) return Isa::kAvx512;
  if (supports(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kScalar;
}

std::string cpu_model_name() {
  const CpuModel& cpu = cpu_model();
  return fmt::format("{} (family {} model {})", cpu.brand.empty() ? "unknown CPU" : cpu.brand, cpu.family, cpu.model);
}

std::string_view to_string(Answer answer) { return answer == Answer::kOne ? "one" : "fast"; }

Answer answer_from_string(std::string_view name) {
  for (Answer answer : {Answer::kOne, Answer::kFast})
    if (to_string(answer) == name) return answer;
  fail(ErrorCode::kInvalidArgument, "--answer {}: one of one, fast", name);
}

std::string NumericsClass::to_string() const {
  const std::string arithmetic =
      device == "cpu" ? std::string(parallel::to_string(isa))
                      : fmt::format("{}/{}gemm={}", device, answer == Answer::kFast ? "answer=fast/" : "", gemm);
  return fmt::format("{}/cache={}/{}/La={}/Lm={}/build={}", chorale::to_string(compute), chorale::to_string(cache),
                     arithmetic, attention_leaves, mlp_leaves, build_id);
}

void NumericsClass::encode(ByteWriter& out) const {
  out.put(compute);
  out.put(cache);
  out.put(device);
  out.put(isa);
  out.put(attention_leaves);
  out.put(mlp_leaves);
  out.put(gemm);
  out.put(answer);
  out.put(build_id);
}

NumericsClass NumericsClass::decode(ByteReader& in) {
  NumericsClass numerics;
  in.get(numerics.compute);
  in.get(numerics.cache);
  numerics.device = in.get_string();
  in.get(numerics.isa);
  in.get(numerics.attention_leaves);
  in.get(numerics.mlp_leaves);
  numerics.gemm = in.get_string();
  in.get(numerics.answer);
  numerics.build_id = in.get_string();
  if (numerics.isa > Isa::kAvx512Bf16) fail(ErrorCode::kCorrupt, "numerics class names an unknown instruction set");
  if (numerics.answer > Answer::kFast) fail(ErrorCode::kCorrupt, "numerics class names an unknown kind of answer");
  for (DType type : {numerics.compute, numerics.cache})
    if (type != DType::kF32 && type != DType::kBF16 && type != DType::kF16)
      fail(ErrorCode::kCorrupt, "numerics class names an unknown dtype");
  return numerics;
}

}  // namespace chorale::parallel
