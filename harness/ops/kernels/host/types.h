// CUDA's vector types and the 16-bit floating types, in plain C++.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

inline unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
inline int __float_as_int(float x) { return (int)__float_as_uint(x); }
inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }

inline float to_f32(float x) { return x; }
inline float to_f32(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
inline float to_f32(f16 x) {
    unsigned sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 0x3ffu;
    if (exponent == 0) return __uint_as_float(sign | __float_as_uint((float)mantissa * 0x1p-24f));
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

template <class T> T from_f32(float x);
template <> inline float from_f32<float>(float x) { return x; }
template <> inline bf16 from_f32<bf16>(float x) {
    unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {(uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16)};
}
template <> inline f16 from_f32<f16>(float x) {
    unsigned u = __float_as_uint(x), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return {0x7fff};
    if (u >= 0x47800000u) return {(uint16_t)(sign | 0x7c00u)};
    // Below the smallest normal number: units of 2^-24, which are those of 0.5 in f32.
    if (u < 0x38800000u) {
        unsigned units = __float_as_uint(__uint_as_float(u) + 0.5f) - __float_as_uint(0.5f);
        return {(uint16_t)(sign | units)};
    }
    return {(uint16_t)(sign | (u - 0x38000000u + 0xfffu + (u >> 13 & 1)) >> 13)};
}

template <class T> unsigned pack2(float low, float high) {
    return from_f32<T>(low).bits | (unsigned)from_f32<T>(high).bits << 16;
}
template <class T> float2 unpack2(unsigned word) {
    return {to_f32(T{(uint16_t)word}), to_f32(T{(uint16_t)(word >> 16)})};
}
