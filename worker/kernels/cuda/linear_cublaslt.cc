// linear by cuBLASLt, for 16-bit weights of one leaf in rows. For one answer: one algorithm for each shape, chosen when
// the weights are loaded: the first of the library's proposals that needs no workspace, does not split k, and whose
// rows and columns gemm_probe.h finds independent. Its order of additions is its own; the numerics class names the
// library's version. For a fast answer: the library's first proposal for each number of rows, unprobed. Also serves the
// emulator, whose memory is the host's, with the tests' stand-in for the library.
#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
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

/// Where rows of activations begin; what weights and scratch are aligned to is more.
constexpr uint32_t kAlignmentBytes = 16;

/// What the library may take for a product.
struct Allowance {
  uint64_t workspace_bytes;
  uint32_t reduction_schemes;  // a mask: how parts of k may be added up
};

/// One weight's products. [n, k] in rows is [k, n] in columns, as the library sees matrices: out^T [n, rows] =
/// (W^T)^T x^T.
class Products {
 public:
  explicit Products(const CublasLt& library)
      : library_(library),
        handle_(make_owned<lt::Handle>(library, library.create, library.destroy, "cublasLtCreate")),
        product_(make_owned<lt::MatmulDesc>(library, library.matmul_desc_create, library.matmul_desc_destroy,
                                            "cublasLtMatmulDescCreate", lt::kCompute32F, lt::kReal32F)) {
    check_cublaslt(library_,
                   library_.matmul_desc_set_attribute(product_.get(), lt::kDescTransposeA, &lt::kTransposed,
                                                      sizeof lt::kTransposed),
                   "cublasLtMatmulDescSetAttribute");
  }
  const CublasLt& library() const { return library_; }

  lt::Status multiply(const PackedWeight& weight, int64_t first_output, MatrixView x, MatrixView out, Stream& stream,
                      const lt::Algorithm& algorithm, void* workspace = nullptr, size_t workspace_bytes = 0) const {
    const float one = 1, zero = 0;
    const auto* w = static_cast<const uint16_t*>(weight.data.view().data) + first_output * weight.k;
    const auto w_layout = layout_of(weight.dtype, weight.k, out.cols, weight.k);
    const auto x_layout = layout_of(x.dtype, x.cols, x.rows, x.row_stride);
    const auto out_layout = layout_of(out.dtype, out.cols, out.rows, out.row_stride);
    return library_.matmul(handle_.get(), product_.get(), &one, w, w_layout.get(), x.data, x_layout.get(), &zero,
                           out.data, out_layout.get(), out.data, out_layout.get(), &algorithm, workspace,
                           workspace_bytes, stream.native());
  }

  /// What the library's heuristic proposes for `rows` rows, the best first.
  std::vector<lt::HeuristicResult> proposals(const PackedWeight& weight, int64_t rows, int64_t x_stride,
                                             int64_t out_stride, Allowance allowance) const {
    const auto preference =
        make_owned<lt::Preference>(library_, library_.matmul_preference_create, library_.matmul_preference_destroy,
                                   "cublasLtMatmulPreferenceCreate");
    const auto prefer = [&](int attribute, const auto& value) {
      check_cublaslt(library_,
                     library_.matmul_preference_set_attribute(preference.get(), attribute, &value, sizeof value),
                     "cublasLtMatmulPreferenceSetAttribute");
    };
    prefer(lt::kPreferenceWorkspaceBytes, allowance.workspace_bytes);
    prefer(lt::kPreferenceReductionSchemes, allowance.reduction_schemes);
    for (int attribute : lt::kPreferenceAlignments) prefer(attribute, kAlignmentBytes);
    const auto w = layout_of(weight.dtype, weight.k, weight.n, weight.k);
    const auto x = layout_of(weight.dtype, weight.k, rows, x_stride);
    const auto out = layout_of(DType::kF32, weight.n, rows, out_stride);
    std::vector<lt::HeuristicResult> results(kMostProposals);
    int num_results = 0;
    check_cublaslt(
        library_,
        library_.matmul_algo_get_heuristic(handle_.get(), product_.get(), w.get(), x.get(), out.get(), out.get(),
                                           preference.get(), kMostProposals, results.data(), &num_results),
        "cublasLtMatmulAlgoGetHeuristic");
    results.resize(static_cast<size_t>(std::min(num_results, kMostProposals)));
    std::erase_if(results, [](const lt::HeuristicResult& result) { return result.state != lt::kSuccess; });
    return results;
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

 private:
  Owned<lt::MatrixLayout> layout_of(DType dtype, int64_t columns, int64_t rows, int64_t row_stride) const {
    return make_owned<lt::MatrixLayout>(library_, library_.matrix_layout_create, library_.matrix_layout_destroy,
                                        "cublasLtMatrixLayoutCreate", type_of(dtype), static_cast<uint64_t>(columns),
                                        static_cast<uint64_t>(rows), row_stride);
  }

  const CublasLt& library_;
  Owned<lt::Handle> handle_;
  Owned<lt::MatmulDesc> product_;
};

/// One algorithm that keeps N1.
class OneAnswerGemm : public LibraryGemm {
 public:
  OneAnswerGemm(const CublasLt& library, const DeviceStream& where, const PackedWeight& weight) : products_(library) {
    std::string problem = "it proposed no algorithm without workspace and splits of k";
    for (const lt::HeuristicResult& proposal :
         products_.proposals(weight, kUsualRows, weight.k, weight.n, {0, lt::kReductionNone})) {
      algorithm_ = proposal.algorithm;
      if (products_.config<int32_t>(algorithm_, lt::kConfigSplits) > 1 ||
          products_.config<uint32_t>(algorithm_, lt::kConfigReduction) != lt::kReductionNone)
        continue;
      problem = probe_gemm(where, weight, [&](MatrixView x, int64_t first, MatrixView out) {
        const lt::Status status = products_.multiply(weight, first, x, out, *where.stream, algorithm_);
        return status == lt::kSuccess ? std::string() : std::string(library.get_status_string(status));
      });
      if (problem.empty()) return;
    }
    fail(ErrorCode::kUnsupported, "cuBLASLt {} does not give one answer for a weight of {} x {}: {}; use --gemm own",
         library.version, weight.n, weight.k, problem);
  }

  void launch(OpContext& ctx, const LinearArgs& args) const override {
    for (int64_t first = 0; first < args.x.rows; first += kMostGemmRows) {  // as many as were probed
      const int64_t last = std::min(first + kMostGemmRows, args.x.rows);
      const lt::Status status = products_.multiply(*args.weight, 0, args.x.row_range(first, last),
                                                   args.out.row_range(first, last), *ctx.stream, algorithm_);
      check_cublaslt(products_.library(), status, "cublasLtMatmul");
    }
  }

 private:
  Products products_;
  lt::Algorithm algorithm_;
};

/// --answer fast: what the library's heuristic says for each number of rows, with workspace and splits of k.
class FastGemm : public LibraryGemm {
 public:
  explicit FastGemm(const CublasLt& library) : products_(library) {}

  void launch(OpContext& ctx, const LinearArgs& args) const override {
    const Workspace::Scope scope(ctx.scratch);
    const lt::HeuristicResult& choice = choice_for(args);
    void* workspace = choice.workspace_bytes == 0 ? nullptr : ctx.scratch.take_bytes(choice.workspace_bytes);
    const lt::Status status = products_.multiply(*args.weight, 0, args.x, args.out, *ctx.stream, choice.algorithm,
                                                 workspace, choice.workspace_bytes);
    check_cublaslt(products_.library(), status, "cublasLtMatmul");
  }

 private:
  const lt::HeuristicResult& choice_for(const LinearArgs& args) const {
    constexpr Allowance kAllowance{.workspace_bytes = uint64_t{32} << 20, .reduction_schemes = lt::kReductionAny};
    const auto shape = std::tuple(args.x.rows, args.x.row_stride, args.out.row_stride);
    if (const auto found = choices_.find(shape); found != choices_.end()) return found->second;
    const auto list =
        products_.proposals(*args.weight, args.x.rows, args.x.row_stride, args.out.row_stride, kAllowance);
    if (list.empty())
      fail(ErrorCode::kUnsupported, "cuBLASLt {} has no product of {} rows with a weight of {} x {}; use --answer one",
           products_.library().version, args.x.rows, args.weight->n, args.weight->k);
    return choices_.emplace(shape, list.front()).first->second;
  }

  Products products_;
  mutable std::map<std::tuple<int64_t, int64_t, int64_t>, lt::HeuristicResult> choices_;  // one for each number of rows
};

std::shared_ptr<const LibraryGemm> fit(std::string_view gemm, parallel::Answer answer, const DeviceStream& where,
                                       const PackedWeight& weight) {
  const bool is_fast = answer == parallel::Answer::kFast;
  const Result<CublasLt>& library = find_cublaslt();
  if (!library)
    fail(ErrorCode::kUnsupported, "{}: {}", is_fast ? "--answer fast" : "--gemm cublaslt", library.failure().message);
  if (!gemm.starts_with(fmt::format("cublaslt-{}/", library->version)))
    fail(ErrorCode::kUnsupported, "this rank has cuBLASLt {}, the world multiplies with {}; use {}", library->version,
         gemm, is_fast ? "--answer one" : "--gemm own");
  if (is_fast) return std::make_shared<FastGemm>(*library);
  return std::make_shared<OneAnswerGemm>(*library, where, weight);
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
