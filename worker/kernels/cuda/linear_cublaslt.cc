// linear by cuBLASLt, for 16-bit weights of one leaf in rows. One algorithm for each shape, chosen when the weights are
// loaded: the first of the library's proposals that needs no workspace, does not split k, and whose rows and columns
// gemm_probe.h finds independent. Its order of additions is its own; the numerics class names the library's version.
// Also serves the emulator, whose memory is the host's, with the tests' stand-in for the library.
#include <algorithm>
#include <array>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/cuda/cublaslt_library.h"
#include "worker/kernels/cuda/gemm_probe.h"
#include "worker/ops/kernel.h"
#include "worker/ops/library_gemm.h"

namespace chorale::worker {
namespace {

namespace lt = cublaslt;

constexpr int64_t kUsualRows = 64;  // what the library is asked to propose for
constexpr int kMostProposals = 16;

int type_of(DType dtype) {
  if (dtype == DType::kF32) return lt::kReal32F;
  return dtype == DType::kBF16 ? lt::kReal16BF : lt::kReal16F;
}

/// Owner of one of the library's objects.
template <typename T>
class Owned {
 public:
  using Destroy = lt::Status (*)(T);
  Owned(T object, Destroy destroy) : object_(object), destroy_(destroy) {}
  Owned(Owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)), destroy_(other.destroy_) {}
  Owned& operator=(Owned&&) = delete;
  ~Owned() {
    if (object_ != nullptr && destroy_(object_) != lt::kSuccess) log_warn("cuBLASLt did not take an object back");
  }
  T get() const { return object_; }

 private:
  T object_;
  Destroy destroy_;
};

template <typename T, typename Create, typename... Args>
Owned<T> make_owned(const CublasLt& library, Create create, lt::Status (*destroy)(T), const char* call, Args... args) {
  T object = nullptr;
  check_cublaslt(library, create(&object, args...), call);
  return {object, destroy};
}

/// [n, k] in rows is [k, n] in columns, as the library sees matrices: out^T [n, rows] = (W^T)^T x^T.
class CublasLtGemm : public LibraryGemm {
 public:
  CublasLtGemm(const CublasLt& library, const DeviceStream& where, const PackedWeight& weight)
      : library_(library),
        handle_(make_owned<lt::Handle>(library, library.create, library.destroy, "cublasLtCreate")),
        product_(make_owned<lt::MatmulDesc>(library, library.matmul_desc_create, library.matmul_desc_destroy,
                                            "cublasLtMatmulDescCreate", lt::kCompute32F, lt::kReal32F)) {
    check_cublaslt(library_,
                   library_.matmul_desc_set_attribute(product_.get(), lt::kDescTransposeA, &lt::kTransposed,
                                                      sizeof lt::kTransposed),
                   "cublasLtMatmulDescSetAttribute");
    choose_algorithm(where, weight);
  }

  void launch(OpContext& ctx, const LinearArgs& args) const override {
    for (int64_t first = 0; first < args.x.rows; first += kMostGemmRows) {  // as many as were probed
      const int64_t last = std::min(first + kMostGemmRows, args.x.rows);
      const lt::Status status = multiply(*args.weight, 0, args.x.row_range(first, last),
                                         args.out.row_range(first, last), *ctx.stream, algorithm_);
      check_cublaslt(library_, status, "cublasLtMatmul");
    }
  }

 private:
  Owned<lt::MatrixLayout> layout_of(DType dtype, int64_t columns, int64_t rows, int64_t row_stride) const {
    return make_owned<lt::MatrixLayout>(library_, library_.matrix_layout_create, library_.matrix_layout_destroy,
                                        "cublasLtMatrixLayoutCreate", type_of(dtype), static_cast<uint64_t>(columns),
                                        static_cast<uint64_t>(rows), row_stride);
  }

  lt::Status multiply(const PackedWeight& weight, int64_t first_output, MatrixView x, MatrixView out, Stream& stream,
                      const lt::Algorithm& algorithm) const {
    const float one = 1, zero = 0;
    const auto* w = static_cast<const uint16_t*>(weight.data.view().data) + first_output * weight.k;
    const auto w_layout = layout_of(weight.dtype, weight.k, out.cols, weight.k);
    const auto x_layout = layout_of(x.dtype, x.cols, x.rows, x.row_stride);
    const auto out_layout = layout_of(out.dtype, out.cols, out.rows, out.row_stride);
    return library_.matmul(handle_.get(), product_.get(), &one, w, w_layout.get(), x.data, x_layout.get(), &zero,
                           out.data, out_layout.get(), out.data, out_layout.get(), &algorithm, nullptr, 0,
                           stream.native());
  }

  template <typename T>
  T config(const lt::Algorithm& algorithm, int attribute) const {
    T value{};
    size_t written = 0;
    check_cublaslt(library_,
                   library_.matmul_algo_config_get_attribute(&algorithm, attribute, &value, sizeof value, &written),
                   "cublasLtMatmulAlgoConfigGetAttribute");
    return value;
  }

  std::vector<lt::Algorithm> proposals(const PackedWeight& weight) const {
    const auto preference =
        make_owned<lt::Preference>(library_, library_.matmul_preference_create, library_.matmul_preference_destroy,
                                   "cublasLtMatmulPreferenceCreate");
    const uint64_t no_workspace = 0;
    const auto prefer = [&](int attribute, const auto& value) {
      check_cublaslt(library_,
                     library_.matmul_preference_set_attribute(preference.get(), attribute, &value, sizeof value),
                     "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(lt::kPreferenceWorkspaceBytes, no_workspace);
    prefer(lt::kPreferenceReductionSchemes, lt::kReductionNone);
    const auto w = layout_of(weight.dtype, weight.k, weight.n, weight.k);
    const auto x = layout_of(weight.dtype, weight.k, kUsualRows, weight.k);
    const auto out = layout_of(DType::kF32, weight.n, kUsualRows, weight.n);
    std::array<lt::HeuristicResult, kMostProposals> results;
    int num_results = 0;
    check_cublaslt(
        library_,
        library_.matmul_algo_get_heuristic(handle_.get(), product_.get(), w.get(), x.get(), out.get(), out.get(),
                                           preference.get(), kMostProposals, results.data(), &num_results),
        "cublasLtMatmulAlgoGetHeuristic");
    std::vector<lt::Algorithm> list;
    for (int i = 0; i < std::min(num_results, kMostProposals); ++i)
      if (results[i].state == lt::kSuccess && config<int32_t>(results[i].algorithm, lt::kConfigSplits) <= 1 &&
          config<uint32_t>(results[i].algorithm, lt::kConfigReduction) == lt::kReductionNone)
        list.push_back(results[i].algorithm);
    return list;
  }

  void choose_algorithm(const DeviceStream& where, const PackedWeight& weight) {
    std::string problem = "it proposed no algorithm without workspace and splits of k";
    for (const lt::Algorithm& algorithm : proposals(weight)) {
      problem = probe_gemm(where, weight, [&](MatrixView x, int64_t first, MatrixView out) {
        const lt::Status status = multiply(weight, first, x, out, *where.stream, algorithm);
        return status == lt::kSuccess ? std::string() : std::string(library_.get_status_string(status));
      });
      if (!problem.empty()) continue;
      algorithm_ = algorithm;
      return;
    }
    fail(ErrorCode::kUnsupported, "cuBLASLt {} does not give one answer for a weight of {} x {}: {}; use --gemm own",
         library_.version, weight.n, weight.k, problem);
  }

  const CublasLt& library_;
  Owned<lt::Handle> handle_;
  Owned<lt::MatmulDesc> product_;
  lt::Algorithm algorithm_;
};

std::shared_ptr<const LibraryGemm> fit(std::string_view gemm, const DeviceStream& where, const PackedWeight& weight) {
  const Result<CublasLt>& library = find_cublaslt();
  if (!library) fail(ErrorCode::kUnsupported, "--gemm cublaslt: {}", library.failure().message);
  if (!gemm.starts_with(fmt::format("cublaslt-{}/", library->version)))
    fail(ErrorCode::kUnsupported, "this rank has cuBLASLt {}, the world multiplies with {}; use --gemm own",
         library->version, gemm);
  return std::make_shared<CublasLtGemm>(*library, where, weight);
}

bool supports(const OpContext&, const LinearArgs& args) {
  return args.weight->order == WeightOrder::kRowMajor && args.weight->library != nullptr && args.bias == nullptr;
}
void launch(OpContext& ctx, const LinearArgs& args) { args.weight->library->launch(ctx, args); }

const LibraryGemmRegistry::Add kAdd({"cublaslt", fit});
const KernelTable<LinearArgs>::Add kAddCuda({"linear_library_cuda", DeviceKind::kCuda, parallel::Isa::kScalar, 0,
                                             supports, launch});
const KernelTable<LinearArgs>::Add kAddEmulator({"linear_library_emulator", DeviceKind::kEmulator,
                                                 parallel::Isa::kScalar, 0, supports, launch});

}  // namespace
}  // namespace chorale::worker
