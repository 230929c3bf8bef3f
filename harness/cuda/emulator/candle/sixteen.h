// CUDA's 16-bit numbers as candle's kernels use them: they become f32 by themselves and are rounded to the
// nearest when they are made.
#pragma once

#include <math.h>

#include "../../../ops/kernels/portable.cuh"

template <class Bits> struct Sixteen {
    Bits raw;

    Sixteen() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
    Sixteen(T x) : raw(from_f32<Bits>((float)x)) {}
    operator float() const { return to_f32(raw); }

    friend Sixteen operator+(Sixteen a, Sixteen b) { return (float)a + (float)b; }
    friend Sixteen operator-(Sixteen a, Sixteen b) { return (float)a - (float)b; }
    friend Sixteen operator*(Sixteen a, Sixteen b) { return (float)a * (float)b; }
    friend Sixteen operator/(Sixteen a, Sixteen b) { return (float)a / (float)b; }
    friend Sixteen operator-(Sixteen a) { return -(float)a; }
    Sixteen& operator+=(Sixteen b) { return *this = *this + b; }
    Sixteen& operator*=(Sixteen b) { return *this = *this * b; }
    friend bool operator==(Sixteen a, Sixteen b) { return (float)a == (float)b; }
    friend bool operator!=(Sixteen a, Sixteen b) { return (float)a != (float)b; }
    friend bool operator<(Sixteen a, Sixteen b) { return (float)a < (float)b; }
    friend bool operator<=(Sixteen a, Sixteen b) { return (float)a <= (float)b; }
    friend bool operator>(Sixteen a, Sixteen b) { return (float)a > (float)b; }
    friend bool operator>=(Sixteen a, Sixteen b) { return (float)a >= (float)b; }
};

using __half = Sixteen<f16>;
using __nv_bfloat16 = Sixteen<bf16>;
struct __nv_bfloat162 { __nv_bfloat16 x, y; };

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x + b.x, a.y + b.y}; }
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) { return {a.x * b.x, a.y * b.y}; }
inline unsigned short __half_as_ushort(__half x) { return x.raw.bits; }
inline __half __ushort_as_half(unsigned short bits) { __half x; x.raw.bits = bits; return x; }
template <class T> bool __hisnan(Sixteen<T> x) { return std::isnan((float)x); }
template <class T> Sixteen<T> __habs(Sixteen<T> x) { return std::fabs((float)x); }
template <class T> Sixteen<T> hsqrt(Sixteen<T> x) { return std::sqrt((float)x); }
template <class T> Sixteen<T> hcos(Sixteen<T> x) { return std::cos((float)x); }
template <class T> Sixteen<T> hsin(Sixteen<T> x) { return std::sin((float)x); }
template <class T> Sixteen<T> hlog(Sixteen<T> x) { return std::log((float)x); }
template <class T> Sixteen<T> hexp(Sixteen<T> x) { return std::exp((float)x); }
template <class T> Sixteen<T> __hmax_nan(Sixteen<T> a, Sixteen<T> b) { return a != a || b != b ? Sixteen<T>(NAN) : a < b ? b : a; }
template <class T> Sixteen<T> __hmin_nan(Sixteen<T> a, Sixteen<T> b) { return a != a || b != b ? Sixteen<T>(NAN) : b < a ? b : a; }

// Numbers of 8 bits are compiled and never used.
struct __nv_fp8_e4m3 {
    unsigned char __x;
    __nv_fp8_e4m3() = default;
    template <class T> __nv_fp8_e4m3(T) { host::fail("a number of 8 bits"); }
    operator float() const { return NAN; }
};
enum { __NV_E4M3 };
inline __half __nv_cvt_fp8_to_halfraw(unsigned char, int) { host::fail("a number of 8 bits"); }

inline double normcdf(double x) { return 0.5 * std::erfc(-x * M_SQRT1_2); }
inline float normcdff(float x) { return (float)normcdf(x); }
inline long long __double_as_longlong(double x) { long long i; std::memcpy(&i, &x, 8); return i; }
inline double __longlong_as_double(long long i) { double x; std::memcpy(&x, &i, 8); return x; }
template <class T, class U> T atomicMin(T* p, U x) { T old = *p; *p = min(old, (T)x); return old; }
template <class T, class U> T atomicMax(T* p, U x) { T old = *p; *p = max(old, (T)x); return old; }
template <class T, class U> T atomicCAS(T* p, T expected, U x) {
    T old = *p;
    if (old == expected) *p = (T)x;
    return old;
}
