// Layer normalisation of rows, after an addition or not.
#include "portable.cuh"

// Four neighbours.
INLINE float4 load4(const float* x) { return *reinterpret_cast<const float4*>(x); }
template <class T> INLINE float4 load4(const T* x) {
    uint2 words = *reinterpret_cast<const uint2*>(x);
    float2 low = unpack2<T>(words.x), high = unpack2<T>(words.y);
    return make_float4(low.x, low.y, high.x, high.y);
}
INLINE void store4(float* y, float4 v) { *reinterpret_cast<float4*>(y) = v; }
template <class T> INLINE void store4(T* y, float4 v) {
    *reinterpret_cast<uint2*>(y) = make_uint2(pack2<T>(v.x, v.y), pack2<T>(v.z, v.w));
}

// A row to a warp, which keeps it in registers; `width` is a multiple of 4 and at most 128 CHUNKS. With ADD
// the row is stream + x, which is also written to `sum`.
template <int CHUNKS, bool ADD, class In, class Out>
INLINE void short_rows(const float* stream, const In* x, const float* weight, const float* bias, float* sum,
                       Out* y, i64 rows, int width, float eps) {
    int lane = threadIdx.x % 32;
    i64 row = (i64)blockIdx.x * 4 + threadIdx.x / 32;
    if (row >= rows) return;
    float4 v[CHUNKS];
    float total = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        int at = 128 * i + 4 * lane;
        v[i] = make_float4(0, 0, 0, 0);
        if (at < width) {
            v[i] = load4(x + row * width + at);
            if (ADD) {
                float4 s = load4(stream + row * width + at);
                v[i] = make_float4(s.x + v[i].x, s.y + v[i].y, s.z + v[i].z, s.w + v[i].w);
                store4(sum + row * width + at, v[i]);
            }
        }
        total += (v[i].x + v[i].y) + (v[i].z + v[i].w);
    }
    float mean = warp_sum(total) / width;
    float squares = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        if (128 * i + 4 * lane < width) {
            float a = v[i].x - mean, b = v[i].y - mean, c = v[i].z - mean, d = v[i].w - mean;
            squares += (a * a + b * b) + (c * c + d * d);
        }
    }
    float factor = 1.0f / sqrtf(warp_sum(squares) / width + eps);
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        int at = 128 * i + 4 * lane;
        if (at < width) {
            float4 w = load4(weight + at), b = load4(bias + at);
            store4(y + row * width + at,
                   make_float4((v[i].x - mean) * factor * w.x + b.x, (v[i].y - mean) * factor * w.y + b.y,
                               (v[i].z - mean) * factor * w.z + b.z, (v[i].w - mean) * factor * w.w + b.w));
        }
    }
}

// A row to a block, of any width and alignment; read three times.
template <bool ADD, class In, class Out>
INLINE void any_rows(const float* stream, const In* x, const float* weight, const float* bias, float* sum,
                     Out* y, i64 row, int width, float eps) {
    __shared__ float parts[4];
    auto value = [&](int i) {
        float v = to_f32(x[row * width + i]);
        return ADD ? stream[row * width + i] + v : v;
    };
    auto block_sum = [&](float part) {
        part = warp_sum(part);
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = part;
        __syncthreads();
        float all = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        __syncthreads();
        return all;
    };
    float total = 0;
    for (int i = threadIdx.x; i < width; i += 128) total += value(i);
    float mean = block_sum(total) / width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += 128) squares += (value(i) - mean) * (value(i) - mean);
    float factor = 1.0f / sqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += 128) {
        float v = value(i);
        if (ADD) sum[row * width + i] = v;
        y[row * width + i] = from_f32<Out>((v - mean) * factor * weight[i] + bias[i]);
    }
}

// Grid: a block of 128 threads to 4 rows (short) or to one (any).
#define NORM(name, In, Out)                                                                                  \
    KERNEL(128, layer_norm_1024_##name, const In* x, const float* weight, const float* bias, Out* y, i64 rows, \
           int width, float eps) {                                                                           \
        short_rows<8, false>(nullptr, x, weight, bias, nullptr, y, rows, width, eps);                        \
    }                                                                                                        \
    KERNEL(128, layer_norm_2048_##name, const In* x, const float* weight, const float* bias, Out* y, i64 rows, \
           int width, float eps) {                                                                           \
        short_rows<16, false>(nullptr, x, weight, bias, nullptr, y, rows, width, eps);                       \
    }                                                                                                        \
    KERNEL(128, layer_norm_any_##name, const In* x, const float* weight, const float* bias, Out* y, i64 rows, \
           int width, float eps) {                                                                           \
        any_rows<false>(nullptr, x, weight, bias, nullptr, y, (i64)blockIdx.x, width, eps);                  \
    }

NORM(f32_f32, float, float)
NORM(f32_bf16, float, bf16)
NORM(f32_f16, float, f16)
NORM(bf16_f32, bf16, float)
NORM(bf16_bf16, bf16, bf16)
NORM(f16_f32, f16, float)
NORM(f16_f16, f16, f16)

// sum = stream + x, and its normalisation.
#define ADD_NORM(name, In, Out)                                                                              \
    KERNEL(128, add_layer_norm_1024_##name, const float* stream, const In* x, const float* weight,           \
           const float* bias, float* sum, Out* y, i64 rows, int width, float eps) {                          \
        short_rows<8, true>(stream, x, weight, bias, sum, y, rows, width, eps);                              \
    }                                                                                                        \
    KERNEL(128, add_layer_norm_2048_##name, const float* stream, const In* x, const float* weight,           \
           const float* bias, float* sum, Out* y, i64 rows, int width, float eps) {                          \
        short_rows<16, true>(stream, x, weight, bias, sum, y, rows, width, eps);                             \
    }                                                                                                        \
    KERNEL(128, add_layer_norm_any_##name, const float* stream, const In* x, const float* weight,            \
           const float* bias, float* sum, Out* y, i64 rows, int width, float eps) {                          \
        any_rows<true>(stream, x, weight, bias, sum, y, (i64)blockIdx.x, width, eps);                        \
    }

ADD_NORM(f32, float, float)
ADD_NORM(bf16, bf16, bf16)
ADD_NORM(f16, f16, f16)
