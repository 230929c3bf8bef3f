// CUDA's keywords and device functions on the machine's processor.
#pragma once

#include <algorithm>

#include "fibres.h"

#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __constant__ static const
// Blocks run one after the other on a thread, and the fibres of a block share its thread-local variables.
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))
#define INLINE inline

#define KERNEL(threads, name, ...)                                                                          \
    static void name##_kernel(__VA_ARGS__);                                                                  \
    template <class... A> static constexpr std::index_sequence_for<A...> name##_arguments(void (*)(A...)) {  \
        return {};                                                                                           \
    }                                                                                                        \
    extern "C" const char* name(const unsigned* grid, const unsigned* dims, unsigned shared, void** args) {  \
        return host::launch(name##_kernel, name##_arguments(name##_kernel), threads, grid, dims, shared,     \
                            args);                                                                           \
    }                                                                                                        \
    static void name##_kernel(__VA_ARGS__)
#define KERNEL_BLOCKS(threads, blocks, name, ...) KERNEL(threads, name, __VA_ARGS__)
#define SHARED_BYTES(name) unsigned char* name = host::block->shared

#define threadIdx (host::fibre->index)
#define blockIdx (host::block->index)
#define blockDim (host::block->dims)
#define gridDim (host::block->grid)

extern "C" inline __attribute__((used)) unsigned long long shared_conflicts() { return host::conflicts; }

using std::max;
using std::min;

inline void __syncthreads() { host::wait(host::block->barrier, "__syncthreads"); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(host::fibre->warp->barrier, "__syncwarp"); }
inline void __threadfence() {}

template <class T> T __ldg(const T* p) { return *p; }
inline float rsqrtf(float x) { return (float)(1.0 / std::sqrt((double)x)); }
inline float fast_exp2(float x) { return std::exp2(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
template <class T> T atomicAdd(T* p, T x) { T old = *p; *p = old + x; return old; }
template <class T> T atomicMax(T* p, T x) { T old = *p; *p = max(old, x); return old; }

namespace host {

// Shows `mine` to the warp and calls `read` with a function from lanes to what they show. What is shown stays
// until the warp has met once more: the next exchange uses other slots.
template <class T, class F> auto exchange(const char* kind, const T& mine, F read) {
    static_assert(sizeof(T) <= 64);
    Warp& warp = *fibre->warp;
    auto& slots = warp.slots[warp.barrier.generation % 2];
    std::memcpy(slots[fibre->lane], &mine, sizeof(T));
    wait(warp.barrier, kind);
    return read([&](unsigned lane) {
        T theirs;
        std::memcpy(&theirs, slots[lane], sizeof(T));
        return theirs;
    });
}

inline void check_mask(unsigned mask) {
    if (mask != 0xffffffffu) fail("a warp operation of less than the whole warp");
}

template <class T> T shuffle(const char* kind, unsigned mask, T x, int from, int width) {
    check_mask(mask);
    int lane = fibre->lane, first = lane / width * width;
    unsigned source = from < first || from >= first + width ? lane : from;
    if (source >= fibre->warp->barrier.expected) source = lane;
    return exchange(kind, x, [&](auto of) { return of(source); });
}

}  // namespace host

template <class T> T __shfl_xor_sync(unsigned mask, T x, int other, int width = 32) {
    return host::shuffle("__shfl_xor_sync", mask, x, (int)host::fibre->lane ^ other, width);
}
template <class T> T __shfl_down_sync(unsigned mask, T x, int by, int width = 32) {
    return host::shuffle("__shfl_down_sync", mask, x, (int)host::fibre->lane + by, width);
}
template <class T> T __shfl_up_sync(unsigned mask, T x, int by, int width = 32) {
    return host::shuffle("__shfl_up_sync", mask, x, (int)host::fibre->lane - by, width);
}
template <class T> T __shfl_sync(unsigned mask, T x, int from, int width = 32) {
    int first = (int)host::fibre->lane / width * width;
    return host::shuffle("__shfl_sync", mask, x, first + from % width, width);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    host::check_mask(mask);
    unsigned lanes = host::fibre->warp->barrier.expected;
    return host::exchange("__ballot_sync", yes, [&](auto of) {
        unsigned all = 0;
        for (unsigned lane = 0; lane < lanes; ++lane) all |= (unsigned)(of(lane) != 0) << lane;
        return all;
    });
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, !yes) == 0; }

template <class T> void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragments {
        unsigned a[4], b[2];
    } mine;
    std::memcpy(mine.a, a, sizeof mine.a);
    std::memcpy(mine.b, b, sizeof mine.b);
    host::exchange("mma", mine, [&](auto of) {
        unsigned group = host::fibre->lane / 4, pair = host::fibre->lane % 4;
        double sums[4] = {d[0], d[1], d[2], d[3]};
        for (unsigned k = 0; k < 16; k += 2) {
            Fragments row = of(4 * group + k % 8 / 2);
            for (unsigned column = 0; column < 2; ++column) {
                Fragments other = of(4 * (2 * pair + column) + k % 8 / 2);
                float2 right = unpack2<T>(other.b[k / 8]);
                for (unsigned half = 0; half < 2; ++half) {
                    float2 left = unpack2<T>(row.a[k / 8 * 2 + half]);
                    sums[2 * half + column] += (double)left.x * right.x + (double)left.y * right.y;
                }
            }
        }
        for (int i = 0; i < 4; ++i) d[i] = (float)sums[i];
        return 0;
    });
}

namespace host {

inline void load_matrices(unsigned (&r)[4], const void* row, bool transposed) {
    if ((uintptr_t)row % 16) fail("ldmatrix of a row that is not aligned to 16 bytes");
    exchange("ldmatrix", row, [&](auto of) {
        unsigned lane = fibre->lane;
        for (unsigned i = 0; i < 4; ++i) {
            unsigned banks = 0;
            for (unsigned j = 0; j < 8; ++j) {
                auto from = static_cast<const uint16_t*>(of(8 * i + j));
                banks |= 1u << (uintptr_t)from / 16 % 8;
            }
            if (lane == 0) conflicts += 8 - __popc(banks);
            uint16_t two[2];
            for (unsigned j = 0; j < 2; ++j) {
                unsigned from = transposed ? 2 * (lane % 4) + j : lane / 4;
                unsigned column = transposed ? lane / 4 : 2 * (lane % 4) + j;
                std::memcpy(&two[j], static_cast<const uint16_t*>(of(8 * i + from)) + column, 2);
            }
            r[i] = two[0] | (unsigned)two[1] << 16;
        }
        return 0;
    });
}

}  // namespace host

inline void ldmatrix_x4(unsigned (&r)[4], const void* row) { host::load_matrices(r, row, false); }
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { host::load_matrices(r, row, true); }

// What is copied arrives when it is waited for and not before; until then the place holds NaN.
inline void cp_async16(void* to, const void* from, bool valid) {
    if (((uintptr_t)to | (valid ? (uintptr_t)from : 0)) % 16) host::fail("cp.async that is not aligned");
    std::memset(to, 0xff, 16);
    host::fibre->open_copies().push_back({to, valid ? from : nullptr});
}
inline void cp_async_commit() {
    host::fibre->open_copies();
    host::fibre->copies.emplace_back();
}
template <int N> void cp_async_wait() { host::finish_copies(N); }
