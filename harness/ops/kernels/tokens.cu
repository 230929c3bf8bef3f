// What transformer blocks do element by element.
#include "portable.cuh"

// 16 bytes of values: four of f32, eight of the 16-bit types.
template <class T> struct Pack {
    static constexpr int COUNT = 8;
    float v[8];
    INLINE void load(const T* x) {
        uint4 words = *reinterpret_cast<const uint4*>(x);
        unsigned w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float2 two = unpack2<T>(w[i]);
            v[2 * i] = two.x;
            v[2 * i + 1] = two.y;
        }
    }
    INLINE void store(T* y) const {
        *reinterpret_cast<uint4*>(y) = make_uint4(pack2<T>(v[0], v[1]), pack2<T>(v[2], v[3]), pack2<T>(v[4], v[5]),
                                                  pack2<T>(v[6], v[7]));
    }
};
template <> struct Pack<float> {
    static constexpr int COUNT = 4;
    float v[4];
    INLINE void load(const float* x) {
        float4 f = *reinterpret_cast<const float4*>(x);
        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    }
    INLINE void store(float* y) const { *reinterpret_cast<float4*>(y) = make_float4(v[0], v[1], v[2], v[3]); }
};

template <class... P> INLINE bool aligned(const P*... p) {
    return ((reinterpret_cast<unsigned long long>(p) | ...) & 15) == 0;
}

struct Gelu {
    INLINE float operator()(float x) const { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
};
struct QuickGelu {
    INLINE float operator()(float x) const { return x / (1.0f + expf(-1.702f * x)); }
};
struct GeluTanh {
    INLINE float operator()(float x) const {
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * x * (1.0f + 0.044715f * x * x)));
    }
};
INLINE float silu(float x) { return x / (1.0f + expf(-x)); }

// y = f(x) of `count` values; y may be x. Grid: a thread to 16 bytes of x.
template <class T, class F> INLINE void activate(const T* x, T* y, i64 count, F f) {
    constexpr int N = Pack<T>::COUNT;
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (at + N <= count && aligned(x, y)) {
        Pack<T> p;
        p.load(x + at);
#pragma unroll
        for (int i = 0; i < N; ++i) p.v[i] = f(p.v[i]);
        p.store(y + at);
        return;
    }
    for (i64 i = at; i < min(at + N, count); ++i) y[i] = from_f32<T>(f(to_f32(x[i])));
}

// y[r, i] = silu(x[r, i]) x[r, width + i]. Grid: a thread to 16 bytes of a row of y, rows along y.
template <class T> INLINE void gate(const T* x, T* y, i64 rows, i64 width) {
    constexpr int N = Pack<T>::COUNT;
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * N;
    for (i64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const T* a = x + 2 * row * width;
        const T* b = a + width;
        T* to = y + row * width;
        if (at + N <= width && aligned(a, b, to)) {
            Pack<T> p, other;
            p.load(a + at);
            other.load(b + at);
#pragma unroll
            for (int i = 0; i < N; ++i) p.v[i] = silu(p.v[i]) * other.v[i];
            p.store(to + at);
        } else {
            for (i64 i = at; i < min(at + N, width); ++i) to[i] = from_f32<T>(silu(to_f32(a[i])) * to_f32(b[i]));
        }
    }
}

// y = stream + x in f32. Grid: a thread to 8 values.
template <class T> INLINE void add(const float* stream, const T* x, float* y, i64 count) {
    i64 at = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (at + 8 <= count && aligned(stream, x, y)) {
        Pack<float> s[2];
        s[0].load(stream + at);
        s[1].load(stream + at + 4);
        constexpr int N = Pack<T>::COUNT;
#pragma unroll
        for (int i = 0; i < 8; i += N) {
            Pack<T> p;
            p.load(x + at + i);
#pragma unroll
            for (int j = 0; j < N; ++j) s[(i + j) / 4].v[(i + j) % 4] += p.v[j];
        }
        s[0].store(y + at);
        s[1].store(y + at + 4);
        return;
    }
    for (i64 i = at; i < min(at + 8, count); ++i) y[i] = stream[i] + to_f32(x[i]);
}

// The queries and keys of qkv [B, N, 3, H, D], each rotated: y [B, N, 2, H, D]; cosines and sines [N, D].
// Grid: a thread to 16 bytes of the first half of a head where the halves are whole such pieces, otherwise to
// a value; pieces of a token's queries and keys along x, tokens of all batches along y.
template <class T>
INLINE void rotate(const T* qkv, const float* cosines, const float* sines, T* y, i64 rows, int tokens, int heads,
                   int depth) {
    constexpr int N = Pack<T>::COUNT;
    int half = depth / 2;
    bool whole = half % N == 0 && aligned(qkv, cosines, sines, y);
    int pieces = whole ? half / N : half;
    int piece = blockIdx.x * blockDim.x + threadIdx.x;
    if (piece >= 2 * heads * pieces) return;
    int at = piece / pieces * depth + piece % pieces * (whole ? N : 1);
    for (i64 row = blockIdx.y; row < rows; row += gridDim.y) {
        const T* from = qkv + row * 3 * heads * depth + at;
        T* to = y + row * 2 * heads * depth + at;
        i64 angle = row % tokens * depth + at % depth;
        const float *c = cosines + angle, *s = sines + angle;
        if (!whole) {
            float low = to_f32(from[0]), high = to_f32(from[half]);
            to[0] = from_f32<T>(low * c[0] - high * s[0]);
            to[half] = from_f32<T>(high * c[half] + low * s[half]);
            continue;
        }
        Pack<T> low, high, first, second;
        low.load(from);
        high.load(from + half);
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            Pack<float> lc, ls, hc, hs;
            lc.load(c + i);
            ls.load(s + i);
            hc.load(c + half + i);
            hs.load(s + half + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                first.v[i + j] = low.v[i + j] * lc.v[j] - high.v[i + j] * ls.v[j];
                second.v[i + j] = high.v[i + j] * hc.v[j] + low.v[i + j] * hs.v[j];
            }
        }
        first.store(to);
        second.store(to + half);
    }
}

#define TOKENS(T, name)                                                                                        \
    KERNEL(256, gelu_##name, const T* x, T* y, i64 count) { activate(x, y, count, Gelu()); }                   \
    KERNEL(256, quick_gelu_##name, const T* x, T* y, i64 count) { activate(x, y, count, QuickGelu()); }        \
    KERNEL(256, gelu_tanh_##name, const T* x, T* y, i64 count) { activate(x, y, count, GeluTanh()); }          \
    KERNEL(256, swiglu_##name, const T* x, T* y, i64 rows, i64 width) { gate(x, y, rows, width); }             \
    KERNEL(256, add_##name, const float* stream, const T* x, float* y, i64 count) { add(stream, x, y, count); } \
    KERNEL(256, rotate_##name, const T* qkv, const float* cosines, const float* sines, T* y, i64 rows,         \
           int tokens, int heads, int depth) {                                                                 \
        rotate(qkv, cosines, sines, y, rows, tokens, heads, depth);                                            \
    }

TOKENS(float, f32)
TOKENS(bf16, bf16)
TOKENS(f16, f16)
