// cuBLAS, cuBLASLt and cuRAND, as far as the program calls them.
#include "gpu.h"
#include "numbers.h"
#include "report.h"

#include <cstdio>
#include <cstring>

#include <cublasLt.h>
#include <cublas_v2.h>
#include <curand.h>

namespace {

constexpr size_t WORKSPACE = 1 << 16;

struct Handle {
    gpu::Stream* stream = nullptr;
    cublasMath_t math = CUBLAS_DEFAULT_MATH;
};

struct Layout {
    cudaDataType type;
    uint64_t rows, columns;
    int64_t ld;
};

struct Description {
    cublasComputeType_t compute;
    cudaDataType scale;
    int32_t transposed[2] = {};
    int32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void* bias = nullptr;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t alignments[4] = {256, 256, 256, 256};
    uint32_t schemes = ~0u;
};

// What an algorithm was found for, which is all there is to one.
struct Algorithm {
    uint64_t magic;
    uint32_t alignments[4];
    uint64_t rows, columns, inner, workspace, bias;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));
constexpr uint64_t MAGIC = 0x70697869;

// `c = alpha op(a) op(b) + beta c + bias` for column by column matrices, once its turn comes.
struct Product {
    gpu::Matrix a, b;
    void* c;
    cudaDataType type;
    size_t ldc;
    float alpha, beta;
    const void* bias;

    const char* run() const {
        size_t m = a.rows, n = b.columns, k = a.columns;
        size_t last = (n - 1) * ldc + m;
        if (!gpu::holds(c, last * gpu::size_of(type))) return "a product's result is not memory of the GPU";
        for (const gpu::Matrix* each : {&a, &b}) {
            size_t rows = each->transposed ? each->columns : each->rows;
            size_t columns = each->transposed ? each->rows : each->columns;
            if (!gpu::holds(each->data, ((columns - 1) * each->ld + rows) * gpu::size_of(each->type))) {
                return "a product's factor is not memory of the GPU";
            }
        }
        if (bias && !gpu::holds(bias, m * gpu::size_of(type))) return "a product's bias is not memory of the GPU";
        std::vector<float> left = a.by_rows(), right = b.by_columns(), sums(m * n);
        gpu::product(left.data(), right.data(), sums.data(), m, n, k);
        for (size_t i = 0; i < m; ++i) {
            float added = bias ? gpu::read(bias, i, type) : 0;
            for (size_t j = 0; j < n; ++j) {
                float old = beta == 0 ? 0 : beta * gpu::read(c, j * ldc + i, type);
                gpu::write(c, j * ldc + i, type, alpha * sums[i * n + j] + old + added);
            }
        }
        return nullptr;
    }
};

std::string counted(const char* kind, size_t m, size_t n, size_t k, cudaDataType type) {
    char name[96];
    const char* of = type == CUDA_R_16BF ? "bf16" : type == CUDA_R_16F ? "f16" : "f32";
    std::snprintf(name, sizeof name, "%s %s %zu x %zu x %zu", kind, of, m, n, k);
    gpu::count("product", name, 2 * m * n * k);
    return name;
}

cublasStatus_t status(CUresult result) {
    return result == CUDA_SUCCESS ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

Handle& of(cublasHandle_t handle) { return *reinterpret_cast<Handle*>(handle); }

}  // namespace

// cuBLAS.

EXPORTED(cublasStatus_t) cublasCreate_v2(cublasHandle_t* made) {
    if (gpu::lost()) return CUBLAS_STATUS_NOT_INITIALIZED;
    *made = reinterpret_cast<cublasHandle_t>(new Handle);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasDestroy_v2(cublasHandle_t handle) { delete &of(handle); return CUBLAS_STATUS_SUCCESS; }
EXPORTED(cublasStatus_t) cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    of(handle).stream = reinterpret_cast<gpu::Stream*>(stream);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    of(handle).math = mode;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(const char*) cublasGetStatusString(cublasStatus_t) { return "an error of the emulated cuBLAS"; }
EXPORTED(const char*) cublasGetStatusName(cublasStatus_t) { return "CUBLAS_STATUS"; }

EXPORTED(cublasStatus_t) cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
    const void* alpha, const void* a, cudaDataType atype, int lda, long long stridea, const void* b,
    cudaDataType btype, int ldb, long long strideb, const void* beta, void* c, cudaDataType ctype, int ldc,
    long long stridec, int batches, cublasComputeType_t compute, cublasGemmAlgo_t) {
    LOCK;
    bool ta = transa != CUBLAS_OP_N, tb = transb != CUBLAS_OP_N;
    bool sizes = m > 0 && n > 0 && k > 0 && batches > 0 && lda >= (ta ? k : m) && ldb >= (tb ? n : k) && ldc >= m;
    if (!sizes) return CUBLAS_STATUS_INVALID_VALUE;
    bool f32 = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_16BF;
    if (atype != btype || !f32 || !gpu::size_of(atype) || !gpu::size_of(ctype)) return CUBLAS_STATUS_NOT_SUPPORTED;
    std::string name = counted("cuBLAS", (size_t)m * batches, n, k, atype);
    float scale = *static_cast<const float*>(alpha), kept = *static_cast<const float*>(beta);
    for (int batch = 0; batch < batches; ++batch) {
        auto at = [&](const void* start, long long stride, cudaDataType type) {
            return static_cast<const char*>(start) + batch * stride * (long long)gpu::size_of(type);
        };
        Product product{
            {at(a, stridea, atype), atype, (size_t)m, (size_t)k, (size_t)lda, ta},
            {at(b, strideb, btype), btype, (size_t)k, (size_t)n, (size_t)ldb, tb},
            const_cast<char*>(at(c, stridec, ctype)), ctype, (size_t)ldc, scale, kept, nullptr,
        };
        auto work = [=] {
            gpu::Spent time("product", name.c_str());
            return product.run();
        };
        if (CUresult error = gpu::enqueue(of(handle).stream, work)) return status(error);
    }
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasGemmEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
    const void* alpha, const void* a, cudaDataType atype, int lda, const void* b, cudaDataType btype, int ldb,
    const void* beta, void* c, cudaDataType ctype, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t way) {
    return cublasGemmStridedBatchedEx(handle, transa, transb, m, n, k, alpha, a, atype, lda, 0, b, btype, ldb, 0,
                                      beta, c, ctype, ldc, 0, 1, compute, way);
}

// cuBLASLt.

EXPORTED(cublasStatus_t) cublasLtCreate(cublasLtHandle_t* made) {
    *made = reinterpret_cast<cublasLtHandle_t>(new Handle);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtDestroy(cublasLtHandle_t handle) {
    delete reinterpret_cast<Handle*>(handle);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, uint64_t rows,
                                               uint64_t columns, int64_t ld) {
    *made = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, columns, ld});
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete reinterpret_cast<Layout*>(layout);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                             cudaDataType scale) {
    *made = reinterpret_cast<cublasLtMatmulDesc_t>(new Description{compute, scale});
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    delete reinterpret_cast<Description*>(description);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t set, cublasLtMatmulDescAttributes_t what,
                                                   const void* value, size_t bytes) {
    auto& d = *reinterpret_cast<Description*>(set);
    void* to;
    size_t expected = 4;
    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA: to = &d.transposed[0]; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: to = &d.transposed[1]; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: to = &d.epilogue; break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: to = &d.bias; expected = 8; break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (bytes != expected) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
    *made = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete reinterpret_cast<Preference*>(preference);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t set,
                                                         cublasLtMatmulPreferenceAttributes_t what,
                                                         const void* value, size_t bytes) {
    auto& p = *reinterpret_cast<Preference*>(set);
    void* to;
    size_t expected = 4;
    switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: to = &p.workspace; expected = 8; break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: to = &p.schemes; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: to = &p.alignments[0]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: to = &p.alignments[1]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: to = &p.alignments[2]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: to = &p.alignments[3]; break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (bytes != expected) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t described,
                                                   cublasLtMatrixLayout_t of_a, cublasLtMatrixLayout_t,
                                                   cublasLtMatrixLayout_t, cublasLtMatrixLayout_t of_d,
                                                   cublasLtMatmulPreference_t preferred, int,
                                                   cublasLtMatmulHeuristicResult_t* results, int* found) {
    const auto& d = *reinterpret_cast<Description*>(described);
    const auto& p = *reinterpret_cast<Preference*>(preferred);
    const auto& a = *reinterpret_cast<Layout*>(of_a);
    const auto& result = *reinterpret_cast<Layout*>(of_d);
    Algorithm algorithm{MAGIC, {}, result.rows, result.columns, d.transposed[0] ? a.rows : a.columns,
                        p.workspace < WORKSPACE ? 0 : WORKSPACE, d.bias != nullptr};
    std::memcpy(algorithm.alignments, p.alignments, sizeof p.alignments);
    std::memset(results, 0, sizeof *results);
    std::memcpy(&results->algo, &algorithm, sizeof algorithm);
    results->workspaceSize = algorithm.workspace;
    results->state = CUBLAS_STATUS_SUCCESS;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}
EXPORTED(cublasStatus_t) cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t described, const void* alpha,
                                   const void* a, cublasLtMatrixLayout_t of_a, const void* b,
                                   cublasLtMatrixLayout_t of_b, const void* beta, const void* c,
                                   cublasLtMatrixLayout_t, void* d, cublasLtMatrixLayout_t of_d,
                                   const cublasLtMatmulAlgo_t* way, void* workspace, size_t bytes,
                                   cudaStream_t stream) {
    LOCK;
    const auto& description = *reinterpret_cast<Description*>(described);
    const auto &la = *reinterpret_cast<Layout*>(of_a), &lb = *reinterpret_cast<Layout*>(of_b);
    const auto& ld = *reinterpret_cast<Layout*>(of_d);
    bool ta = description.transposed[0], tb = description.transposed[1];
    size_t m = ta ? la.columns : la.rows, k = ta ? la.rows : la.columns;
    size_t n = tb ? lb.rows : lb.columns, inner = tb ? lb.columns : lb.rows;
    Algorithm algorithm;
    std::memcpy(&algorithm, way, sizeof algorithm);
    bool bias = description.epilogue == CUBLASLT_EPILOGUE_BIAS;
    bool fits = k == inner && ld.rows == m && ld.columns == n && algorithm.magic == MAGIC && c == d &&
                algorithm.rows == m && algorithm.columns == n && algorithm.inner == k &&
                algorithm.bias == (uint64_t)bias && bytes >= algorithm.workspace;
    const void* addresses[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i) fits &= (uintptr_t)addresses[i] % algorithm.alignments[i] == 0;
    if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
    std::string name = counted("cuBLASLt", m, n, k, la.type);
    Product product{
        {a, la.type, m, k, (size_t)la.ld, ta},
        {b, lb.type, k, n, (size_t)lb.ld, tb},
        d, ld.type, (size_t)ld.ld,
        *static_cast<const float*>(alpha), *static_cast<const float*>(beta),
        bias ? description.bias : nullptr,
    };
    auto work = [=]() -> const char* {
        gpu::Spent time("product", name.c_str());
        if (algorithm.workspace) {
            if (!gpu::holds(workspace, algorithm.workspace)) return "a product's workspace is too small";
            std::memset(workspace, 0xff, algorithm.workspace);
        }
        return product.run();
    };
    return status(gpu::enqueue(reinterpret_cast<gpu::Stream*>(stream), work));
}
EXPORTED(const char*) cublasLtGetStatusString(cublasStatus_t) { return "an error of the emulated cuBLASLt"; }
EXPORTED(const char*) cublasLtGetStatusName(cublasStatus_t) { return "CUBLAS_STATUS"; }

// cuRAND: generators are made with a device, and never asked for a number.

EXPORTED(curandStatus_t) curandCreateGenerator(curandGenerator_t* made, curandRngType_t) {
    *made = reinterpret_cast<curandGenerator_t>(new char);
    return CURAND_STATUS_SUCCESS;
}
EXPORTED(curandStatus_t) curandDestroyGenerator(curandGenerator_t made) {
    delete reinterpret_cast<char*>(made);
    return CURAND_STATUS_SUCCESS;
}
EXPORTED(curandStatus_t) curandSetStream(curandGenerator_t, cudaStream_t) { return CURAND_STATUS_SUCCESS; }
EXPORTED(curandStatus_t) curandSetPseudoRandomGeneratorSeed(curandGenerator_t, unsigned long long) {
    return CURAND_STATUS_SUCCESS;
}
