// What kernels are written with. Under nvcc it is CUDA; under an ordinary C++17 compiler it is an emulation
// of one block at a time (host/), with which the tests run the same kernels without a GPU.
//
// A kernel is `KERNEL(threads, name, parameters...) { ... }`: `threads` is the largest block it is launched
// with. Dynamic shared memory is declared as `SHARED_BYTES(name);` (unsigned char, 128-byte aligned). All
// lanes of a warp take part in shuffles, ballots, mma and ldmatrix.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

using bf16 = __nv_bfloat16;
using f16 = __half;

#define KERNEL(threads, name, ...) extern "C" __global__ void __launch_bounds__(threads) name(__VA_ARGS__)
// The same with the number of blocks that a multiprocessor shall hold at once.
#define KERNEL_BLOCKS(threads, blocks, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)
#define SHARED_BYTES(name) extern __shared__ __align__(128) unsigned char name[]
#define INLINE __device__ __forceinline__

INLINE float to_f32(float x) { return x; }
INLINE float to_f32(bf16 x) { return __bfloat162float(x); }
INLINE float to_f32(f16 x) { return __half2float(x); }

// Rounds to the nearest value of the type, ties to even.
template <class T> INLINE T from_f32(float x);
template <> INLINE float from_f32<float>(float x) { return x; }
template <> INLINE bf16 from_f32<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> INLINE f16 from_f32<f16>(float x) { return __float2half_rn(x); }

// Two values in one word, `low` in its low half.
template <class T> INLINE unsigned pack2(float low, float high);
template <> INLINE unsigned pack2<bf16>(float low, float high) {
    __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<unsigned*>(&two);
}
template <> INLINE unsigned pack2<f16>(float low, float high) {
    __half2 two = __floats2half2_rn(low, high);
    return *reinterpret_cast<unsigned*>(&two);
}

// The two values of a word.
template <class T> INLINE float2 unpack2(unsigned word);
template <> INLINE float2 unpack2<bf16>(unsigned word) {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}
template <> INLINE float2 unpack2<f16>(unsigned word) {
    return __half22float2(*reinterpret_cast<__half2*>(&word));
}

// 2^x to two units in the last place; results below the smallest normal number are 0.
INLINE float fast_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

INLINE unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// d += a b for 16 x 16 `a` (rows), 16 x 8 `b` (columns): the fragments of mma.m16n8k16 in the PTX manual.
template <class T> INLINE void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <> INLINE void mma<bf16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> INLINE void mma<f16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit values: lane 8 i + r gives the address of row r (16 bytes) of matrix i.
INLINE void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same, each matrix transposed.
INLINE void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 aligned bytes from global to shared memory in the background; zeros, reading nothing, unless
// `valid`.
INLINE void cp_async16(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
                 : "memory");
}
INLINE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most the last `N` groups of this thread's copies are under way.
template <int N> INLINE void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#else

#include "host/intrinsics.h"

#endif

using i64 = long long;

// Every lane gets the same sum, added in the same order.
INLINE float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
INLINE float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
