// cuDNN's convolutions, as far as the program calls them.
#include "gpu.h"
#include "numbers.h"
#include "report.h"

#include <cstdio>
#include <cstring>

#include <cudnn.h>

#define API EXPORTED(cudnnStatus_t)

namespace {

constexpr size_t WORKSPACE = 1 << 12;

// Sizes of images or filters whose channels lie side by side.
struct Sizes {
    cudaDataType type;
    size_t count, channels, height, width;

    size_t at(size_t n, size_t y, size_t x) const { return ((n * height + y) * width + x) * channels; }
    size_t elements() const { return count * channels * height * width; }
    bool held(const void* data) const { return gpu::holds(data, elements() * gpu::size_of(type)); }
};

struct Steps {
    int padding[2], stride[2];
};

bool known(cudnnDataType_t type, cudaDataType* found) {
    switch (type) {
    case CUDNN_DATA_BFLOAT16: *found = CUDA_R_16BF; return true;
    case CUDNN_DATA_HALF: *found = CUDA_R_16F; return true;
    case CUDNN_DATA_FLOAT: *found = CUDA_R_32F; return true;
    default: return false;
    }
}

template <class T, class H> T& of(H handle) { return *reinterpret_cast<T*>(const_cast<void*>((const void*)handle)); }

struct Convolution {
    Sizes x, w, y;
    Steps steps;
    void *xs, *ws, *ys;

    bool fits() const {
        auto side = [&](size_t from, size_t kernel, int i) {
            return (from + 2 * steps.padding[i] - kernel) / steps.stride[i] + 1;
        };
        return x.channels == w.channels && w.count == y.channels && x.count == y.count &&
               side(x.height, w.height, 0) == y.height && side(x.width, w.width, 1) == y.width;
    }
    bool held() const { return x.held(xs) && w.held(ws) && y.held(ys); }
    // Calls `f` with each place of the result and what of the image each weight meets there.
    template <class F> void each(F f) const {
        for (size_t n = 0; n < y.count; ++n)
        for (size_t v = 0; v < y.height; ++v)
        for (size_t u = 0; u < y.width; ++u)
        for (size_t i = 0; i < w.height; ++i)
        for (size_t j = 0; j < w.width; ++j) {
            long line = (long)(v * steps.stride[0] + i) - steps.padding[0];
            long pixel = (long)(u * steps.stride[1] + j) - steps.padding[1];
            if (line < 0 || pixel < 0 || line >= (long)x.height || pixel >= (long)x.width) continue;
            f(y.at(n, v, u), x.at(n, line, pixel), i * w.width + j);
        }
    }
};

std::vector<float> plain(const void* data, const Sizes& sizes) {
    std::vector<float> all(sizes.elements());
    for (size_t i = 0; i < all.size(); ++i) all[i] = gpu::read(data, i, sizes.type);
    return all;
}

void put(const std::vector<float>& all, void* data, const Sizes& sizes) {
    for (size_t i = 0; i < all.size(); ++i) gpu::write(data, i, sizes.type, all[i]);
}

// `to[j] += values[i] rows[i][j]`, and `rows[i][j] += left[i] right[j]`; `step` values from row to row.
void add_rows(float* to, const float* values, size_t count, const float* rows, size_t step, size_t width) {
    for (size_t i = 0; i < count; ++i) for (size_t j = 0; j < width; ++j) to[j] += values[i] * rows[i * step + j];
}
void add_outer(float* rows, size_t step, const float* left, size_t count, const float* right, size_t width) {
    for (size_t i = 0; i < count; ++i) for (size_t j = 0; j < width; ++j) rows[i * step + j] += left[i] * right[j];
}

const char* forward(const Convolution& c) {
    size_t in = c.x.channels, out = c.y.channels;
    std::vector<float> x = plain(c.xs, c.x), w = plain(c.ws, c.w), y(c.y.elements());
    // The weights of a place, all results of an image's channel side by side.
    std::vector<float> turned(w.size());
    size_t places = c.w.height * c.w.width;
    for (size_t o = 0; o < out; ++o) for (size_t p = 0; p < places; ++p) for (size_t i = 0; i < in; ++i) {
        turned[(p * in + i) * out + o] = w[(o * places + p) * in + i];
    }
    c.each([&](size_t to, size_t from, size_t place) {
        add_rows(&y[to], &x[from], in, &turned[place * in * out], out, out);
    });
    put(y, c.ys, c.y);
    return nullptr;
}

const char* of_input(const Convolution& c) {
    size_t in = c.x.channels, out = c.y.channels, places = c.w.height * c.w.width;
    std::vector<float> y = plain(c.ys, c.y), w = plain(c.ws, c.w), x(c.x.elements());
    c.each([&](size_t from, size_t to, size_t place) {
        add_rows(&x[to], &y[from], out, &w[place * in], places * in, in);
    });
    put(x, c.xs, c.x);
    return nullptr;
}

const char* of_weight(const Convolution& c) {
    size_t in = c.x.channels, out = c.y.channels, places = c.w.height * c.w.width;
    std::vector<float> x = plain(c.xs, c.x), y = plain(c.ys, c.y), w(c.w.elements());
    c.each([&](size_t at, size_t from, size_t place) {
        add_outer(&w[place * in], places * in, &y[at], out, &x[from], in);
    });
    put(w, c.ws, c.w);
    return nullptr;
}

cudnnStatus_t run(cudnnHandle_t handle, const char* name, const char* (*work)(const Convolution&),
                  const Convolution& c, const void* alpha, const void* beta, void* workspace, size_t bytes) {
    LOCK;
    if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0) {
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    if (!c.fits() || bytes < WORKSPACE) return CUDNN_STATUS_BAD_PARAM;
    char text[96];
    std::snprintf(text, sizeof text, "cuDNN %s %zux%zu, %zu to %zu, of %zux%zux%zu", name, c.w.height, c.w.width,
                  c.x.channels, c.y.channels, c.y.count, c.y.height, c.y.width);
    gpu::count("product", text, 2 * c.y.elements() * c.x.channels * c.w.height * c.w.width);
    auto queued = [=, name = std::string(text)]() -> const char* {
        gpu::Spent time("product", name.c_str());
        if (!c.held() || !gpu::holds(workspace, WORKSPACE)) return "a convolution of what is not the GPU's memory";
        std::memset(workspace, 0xff, WORKSPACE);
        return work(c);
    };
    bool ok = gpu::enqueue(of<gpu::Stream*>(handle), queued) == CUDA_SUCCESS;
    return ok ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

// Two ways, the first of which adds in any order.
template <class P, class A> cudnnStatus_t ways(int room, int* count, P* found, A loose, A sound) {
    if (room < 2) return CUDNN_STATUS_BAD_PARAM;
    std::memset(found, 0, 2 * sizeof *found);
    found[0].algo = loose;
    found[1].algo = sound;
    for (int i = 0; i < 2; ++i) {
        found[i].memory = WORKSPACE;
        found[i].determinism = i ? CUDNN_DETERMINISTIC : CUDNN_NON_DETERMINISTIC;
        found[i].mathType = CUDNN_TENSOR_OP_MATH;
    }
    *count = 2;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace

EXPORTED(size_t) cudnnGetVersion() { return 90000; }
EXPORTED(const char*) cudnnGetErrorString(cudnnStatus_t) {
    return "an error of the emulated cuDNN";
}

API cudnnCreate(cudnnHandle_t* made) {
    *made = reinterpret_cast<cudnnHandle_t>(new gpu::Stream*(nullptr));
    return CUDNN_STATUS_SUCCESS;
}
API cudnnDestroy(cudnnHandle_t) { return CUDNN_STATUS_SUCCESS; }
API cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    of<gpu::Stream*>(handle) = reinterpret_cast<gpu::Stream*>(stream);
    return CUDNN_STATUS_SUCCESS;
}
API cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* made) {
    *made = reinterpret_cast<cudnnTensorDescriptor_t>(new Sizes{});
    return CUDNN_STATUS_SUCCESS;
}
API cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t made) { delete &of<Sizes>(made); return CUDNN_STATUS_SUCCESS; }
API cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* made) {
    *made = reinterpret_cast<cudnnFilterDescriptor_t>(new Sizes{});
    return CUDNN_STATUS_SUCCESS;
}
API cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t made) { delete &of<Sizes>(made); return CUDNN_STATUS_SUCCESS; }
API cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t* made) {
    *made = reinterpret_cast<cudnnConvolutionDescriptor_t>(new Steps{});
    return CUDNN_STATUS_SUCCESS;
}
API cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t made) {
    delete &of<Steps>(made);
    return CUDNN_STATUS_SUCCESS;
}
API cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t set, cudnnTensorFormat_t format, cudnnDataType_t type, int n,
                               int c, int h, int w) {
    auto& sizes = of<Sizes>(set);
    if (format != CUDNN_TENSOR_NHWC || !known(type, &sizes.type)) return CUDNN_STATUS_NOT_SUPPORTED;
    sizes = {sizes.type, (size_t)n, (size_t)c, (size_t)h, (size_t)w};
    return CUDNN_STATUS_SUCCESS;
}
API cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t set, cudnnDataType_t type, cudnnTensorFormat_t format, int k,
                               int c, int h, int w) {
    auto& sizes = of<Sizes>(set);
    if (format != CUDNN_TENSOR_NHWC || !known(type, &sizes.type)) return CUDNN_STATUS_NOT_SUPPORTED;
    sizes = {sizes.type, (size_t)k, (size_t)c, (size_t)h, (size_t)w};
    return CUDNN_STATUS_SUCCESS;
}
API cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t set, int ph, int pw, int sh, int sw, int dh, int dw,
                                    cudnnConvolutionMode_t mode, cudnnDataType_t compute) {
    if (dh != 1 || dw != 1 || mode != CUDNN_CROSS_CORRELATION || compute != CUDNN_DATA_FLOAT) {
        return CUDNN_STATUS_NOT_SUPPORTED;
    }
    of<Steps>(set) = {{ph, pw}, {sh, sw}};
    return CUDNN_STATUS_SUCCESS;
}
API cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t, cudnnMathType_t) { return CUDNN_STATUS_SUCCESS; }

API cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                           cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int room,
                                           int* count, cudnnConvolutionFwdAlgoPerf_t* found) {
    return ways(room, count, found, CUDNN_CONVOLUTION_FWD_ALGO_FFT, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM);
}
API cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
                                                cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t, int room,
                                                int* count, cudnnConvolutionBwdDataAlgoPerf_t* found) {
    return ways(room, count, found, CUDNN_CONVOLUTION_BWD_DATA_ALGO_0, CUDNN_CONVOLUTION_BWD_DATA_ALGO_1);
}
API cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t,
                                                  cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t, int room,
                                                  int* count, cudnnConvolutionBwdFilterAlgoPerf_t* found) {
    return ways(room, count, found, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1);
}
API cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t,
                                            cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t,
                                            cudnnConvolutionFwdAlgo_t, size_t* bytes) {
    *bytes = WORKSPACE;
    return CUDNN_STATUS_SUCCESS;
}
API cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, cudnnFilterDescriptor_t, cudnnTensorDescriptor_t,
                                                 cudnnConvolutionDescriptor_t, cudnnTensorDescriptor_t,
                                                 cudnnConvolutionBwdDataAlgo_t, size_t* bytes) {
    *bytes = WORKSPACE;
    return CUDNN_STATUS_SUCCESS;
}
API cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t, cudnnTensorDescriptor_t, cudnnTensorDescriptor_t,
                                                   cudnnConvolutionDescriptor_t, cudnnFilterDescriptor_t,
                                                   cudnnConvolutionBwdFilterAlgo_t, size_t* bytes) {
    *bytes = WORKSPACE;
    return CUDNN_STATUS_SUCCESS;
}
API cudnnConvolutionForward(cudnnHandle_t handle, const void* alpha, cudnnTensorDescriptor_t x, const void* xs,
                            cudnnFilterDescriptor_t w, const void* ws, cudnnConvolutionDescriptor_t steps,
                            cudnnConvolutionFwdAlgo_t way, void* workspace, size_t bytes, const void* beta,
                            cudnnTensorDescriptor_t y, void* ys) {
    if (way != CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM) return CUDNN_STATUS_NOT_SUPPORTED;
    Convolution c{of<Sizes>(x), of<Sizes>(w), of<Sizes>(y), of<Steps>(steps), (void*)xs, (void*)ws, ys};
    return run(handle, "forward", forward, c, alpha, beta, workspace, bytes);
}
API cudnnConvolutionBackwardData(cudnnHandle_t handle, const void* alpha, cudnnFilterDescriptor_t w, const void* ws,
                                 cudnnTensorDescriptor_t y, const void* ys, cudnnConvolutionDescriptor_t steps,
                                 cudnnConvolutionBwdDataAlgo_t way, void* workspace, size_t bytes, const void* beta,
                                 cudnnTensorDescriptor_t x, void* xs) {
    if (way != CUDNN_CONVOLUTION_BWD_DATA_ALGO_1) return CUDNN_STATUS_NOT_SUPPORTED;
    Convolution c{of<Sizes>(x), of<Sizes>(w), of<Sizes>(y), of<Steps>(steps), xs, (void*)ws, (void*)ys};
    return run(handle, "of the input", of_input, c, alpha, beta, workspace, bytes);
}
API cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void* alpha, cudnnTensorDescriptor_t x, const void* xs,
                                   cudnnTensorDescriptor_t y, const void* ys, cudnnConvolutionDescriptor_t steps,
                                   cudnnConvolutionBwdFilterAlgo_t way, void* workspace, size_t bytes,
                                   const void* beta, cudnnFilterDescriptor_t w, void* ws) {
    if (way != CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1) return CUDNN_STATUS_NOT_SUPPORTED;
    Convolution c{of<Sizes>(x), of<Sizes>(w), of<Sizes>(y), of<Steps>(steps), (void*)xs, ws, (void*)ys};
    return run(handle, "of the weight", of_weight, c, alpha, beta, workspace, bytes);
}
