// Kernels that only the tests of the emulation run: what every other kernel relies on.
#include "portable.cuh"

// y[block][i] = the sum of the block's x before and at i, through shared memory.
KERNEL(256, running_sums, const int* x, int* y) {
    SHARED_BYTES(bytes);
    int* sums = reinterpret_cast<int*>(bytes);
    int i = threadIdx.x, n = blockDim.x;
    sums[i] = x[blockIdx.x * n + i];
    __syncthreads();
    for (int step = 1; step < n; step *= 2) {
        int added = i >= step ? sums[i - step] : 0;
        __syncthreads();
        sums[i] += added;
        __syncthreads();
    }
    y[blockIdx.x * n + i] = sums[i];
}

// The same without the barriers, and one with a barrier that not all threads reach.
KERNEL(256, unordered, const int* x, int* y) {
    SHARED_BYTES(bytes);
    int* values = reinterpret_cast<int*>(bytes);
    values[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x] + values[(threadIdx.x + blockDim.x - 1) % blockDim.x];
}
KERNEL(256, divided, int* y) {
    if (threadIdx.x % 2) __syncthreads();
    y[threadIdx.x] = 1;
}

// What each lane gets: 5 values a lane.
KERNEL(64, shuffles, const float* x, float* y) {
    int lane = threadIdx.x;
    float v = x[lane];
    y[5 * lane] = __shfl_xor_sync(0xffffffffu, v, 5);
    y[5 * lane + 1] = __shfl_down_sync(0xffffffffu, v, 3);
    y[5 * lane + 2] = __shfl_sync(0xffffffffu, v, 7);
    y[5 * lane + 3] = (float)__popc(__ballot_sync(0xffffffffu, v > 0));
    y[5 * lane + 4] = warp_sum(v) + warp_max(v);
}

// Rounding to 16 bits and back.
KERNEL(256, round_trip, const float* x, float* as_bf16, float* as_f16, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    as_bf16[i] = to_f32(from_f32<bf16>(x[i]));
    as_f16[i] = to_f32(from_f32<f16>(x[i]));
}

// y[16, 8] = a[16, 16] b[16, 8]: a through cp.async and ldmatrix, b transposed on its way.
template <class T> INLINE void one_product(const T* a, const T* b, float* y) {
    SHARED_BYTES(tiles);
    T* left = reinterpret_cast<T*>(tiles);
    T* right = left + 16 * 16;
    int lane = threadIdx.x;
    cp_async16(left + 8 * lane, a + 8 * lane, true);
    cp_async_commit();
    cp_async16(right + 8 * lane, b + 8 * (lane % 16), lane < 16);
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    unsigned fa[4], fb[4];
    ldmatrix_x4(fa, left + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix_x4_trans(fb, right + lane * 8);
    unsigned used[2] = {fb[0], fb[1]};
    float d[4] = {0, 0, 0, 0};
    mma<T>(d, fa, used);
    for (int i = 0; i < 4; ++i) y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}
KERNEL(32, product_bf16, const bf16* a, const bf16* b, float* y) { one_product(a, b, y); }
KERNEL(32, product_f16, const f16* a, const f16* b, float* y) { one_product(a, b, y); }
