// Merges similarities of a block of train rows into each query's k nearest.
#include "portable.cuh"

using u64 = unsigned long long;

constexpr int THREADS = 256;
// Similarities looked at between two looks at how many candidates there are.
constexpr int TILE = 4 * THREADS;
// Keys in shared memory: k nearest, at most 1024, and candidates. A power of two.
constexpr int CAPACITY = 2048;
constexpr u64 NONE = ~0ull;

// Ascending keys are similarities descending, then train rows ascending. -0 is 0, its equal.
INLINE u64 key_of(float similarity, unsigned row) {
    unsigned bits = similarity == 0 ? 0 : __float_as_uint(similarity);
    unsigned ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)~ascending << 32 | row;
}

// Sorts the first `n` keys, a power of two, ascending.
INLINE void sort(u64* keys, int n) {
    for (int size = 2; size <= n; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            for (int i = threadIdx.x; i < n / 2; i += THREADS) {
                int low = 2 * i - (i & (stride - 1)), high = low + stride;
                u64 a = keys[low], b = keys[high];
                if ((a > b) == ((low & size) == 0)) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

// Grid: a block of 256 threads to a query. `keys` [queries, k], each row ascending, NONE where fewer were
// found so far; `similarities` [queries, columns], of which the first `rows` columns are those of train rows
// `first` and following. A NaN is no candidate.
KERNEL(256, topk_merge, u64* keys, const float* similarities, int k, int columns, int rows, unsigned first) {
    __shared__ u64 best[CAPACITY];
    __shared__ int found;
    u64* own = keys + (i64)blockIdx.x * k;
    const float* line = similarities + (i64)blockIdx.x * columns;
    for (int i = threadIdx.x; i < CAPACITY; i += THREADS) best[i] = i < k ? own[i] : NONE;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();

    // All but the k nearest and the candidates since is NONE.
    auto keep_nearest = [&](int candidates) {
        int n = 2;
        while (n < k + candidates) n *= 2;
        sort(best, n);
        for (int i = k + threadIdx.x; i < n; i += THREADS) best[i] = NONE;
        if (threadIdx.x == 0) found = 0;
        __syncthreads();
    };

    u64 threshold = best[k - 1];
    bool vectors = columns % 4 == 0 && (unsigned long long)similarities % 16 == 0;
    int candidates = 0;
    for (int tile = 0; tile < rows; tile += TILE) {
        int at = tile + 4 * threadIdx.x;
        float values[4];
        if (vectors && at < columns) {
            float4 four = *reinterpret_cast<const float4*>(line + at);
            values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
        } else {
            for (int j = 0; j < 4; ++j) values[j] = at + j < rows ? line[at + j] : 0;
        }
        for (int j = 0; j < 4; ++j) {
            if (at + j >= rows || values[j] != values[j]) continue;
            u64 key = key_of(values[j], first + at + j);
            // Where a candidate lies does not matter: keys differ, and they are sorted.
            if (key < threshold) best[k + atomicAdd(&found, 1)] = key;
        }
        __syncthreads();
        candidates = found;
        __syncthreads();
        if (k + candidates + TILE > CAPACITY) {
            keep_nearest(candidates);
            threshold = best[k - 1];
            candidates = 0;
        }
    }
    if (candidates > 0) keep_nearest(candidates);
    for (int i = threadIdx.x; i < k; i += THREADS) own[i] = best[i];
}
