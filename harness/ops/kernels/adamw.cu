// AdamW and the norm of its gradients over many parameters in one launch.
#include "portable.cuh"

// Values that a block of 256 threads updates.
constexpr int CHUNK = 4096;

struct Parameter {
    float* value;
    float* first;
    float* second;
    const float* gradient;
    i64 length;
    // The block that its first chunk belongs to.
    i64 block;
};

struct Parameters {
    Parameter of[64];
    int count;
};

// The scalars of a step.
struct Update {
    float keep, first_weight, second_keep, second_weight, step, correction, eps;
};

// The parameter that a block works on.
INLINE int parameter_of(const Parameters& all, i64 block) {
    int low = 0, high = all.count;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (all.of[middle].block <= block) low = middle;
        else high = middle;
    }
    return low;
}

// In the order of PyTorch's operations, each rounded by itself. Nothing is changed if `guard` is given and is
// not finite.
KERNEL(256, adamw, const Parameters all, const Update u, const float* guard) {
    if (guard && !(fabsf(*guard) <= 3.402823466e38f)) return;
    int index = parameter_of(all, blockIdx.x);
    float *values = all.of[index].value, *firsts = all.of[index].first, *seconds = all.of[index].second;
    const float* gradients = all.of[index].gradient;
    i64 start = (blockIdx.x - all.of[index].block) * CHUNK, end = min(start + CHUNK, all.of[index].length);
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256) {
        float g = gradients[i], m = firsts[i], v = seconds[i], p = values[i];
        m = __fadd_rn(m, __fmul_rn(u.first_weight, __fadd_rn(g, -m)));
        v = __fadd_rn(__fmul_rn(v, u.second_keep), __fmul_rn(__fmul_rn(u.second_weight, g), g));
        float root = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), u.correction), u.eps);
        p = __fadd_rn(__fmul_rn(p, u.keep), __fdiv_rn(__fmul_rn(u.step, m), root));
        firsts[i] = m;
        seconds[i] = v;
        values[i] = p;
    }
}

INLINE double warp_sum(double x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The sum of a block's 8 or fewer whole warps, for every thread.
INLINE double block_sum(double x) {
    __shared__ double parts[8];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += parts[i];
    __syncthreads();
    return sum;
}

// The sum of squares of each block's chunk of the gradients, to `sums[offset + block]`. Only `gradient`,
// `length` and `block` of the parameters are used.
KERNEL(256, squares, const Parameters all, double* sums, i64 offset) {
    int index = parameter_of(all, blockIdx.x);
    const float* gradients = all.of[index].gradient;
    i64 start = (blockIdx.x - all.of[index].block) * CHUNK, end = min(start + CHUNK, all.of[index].length);
    float sum = 0;
#pragma unroll 4
    for (i64 i = start + threadIdx.x; i < end; i += 256) sum += gradients[i] * gradients[i];
    double whole = block_sum(sum);
    if (threadIdx.x == 0) sums[offset + blockIdx.x] = whole;
}

// The root of the sum of `sums`. Grid: one block of 256 threads.
KERNEL(256, root_of_sum, const double* sums, i64 n, float* root) {
    double sum = 0;
    for (i64 i = threadIdx.x; i < n; i += 256) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *root = (float)sqrt(sum);
}
