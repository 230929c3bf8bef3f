// Grouped losses of logits that are resized (bilinear, corners aligned) on the way, with their gradients,
// and what sliding windows sum of them. Logits are channels-last, [batch, from_height, from_width, channels];
// targets and maps [batch, height, width].
#include "portable.cuh"

using u8 = unsigned char;

struct Sizes {
    int batch, from_height, from_width, height, width, channels, groups;
    // Steps on the logits' grid for one on the targets'.
    float row_scale, column_scale;
};

// Where a place on a line comes from: its neighbours, and the share of the right one.
struct Tap {
    int left, right;
    float share;
};

INLINE int left_of(int at, float scale, int from) { return min((int)__fmul_rn(scale, (float)at), from - 1); }

INLINE Tap tap_of(int at, float scale, int from) {
    int left = left_of(at, scale, from);
    float share = __fadd_rn(__fmul_rn(scale, (float)at), -(float)left);
    return {left, min(left + 1, from - 1), fminf(fmaxf(share, 0.0f), 1.0f)};
}

// The first of `to` places whose left neighbour is `left` or further.
INLINE int first_at(int left, float scale, int from, int to) {
    if (left <= 0) return 0;
    if (left >= from || scale == 0) return to;
    int at = max((int)((float)left / scale) - 1, 0);
    while (at < to && left_of(at, scale, from) < left) ++at;
    return at;
}

INLINE float mix(float a, float b, float share) { return a + share * (b - a); }

// How much a place takes from the neighbour at `of`.
INLINE float weight_on(Tap tap, int of) {
    return (tap.left == of ? 1.0f - tap.share : 0.0f) + (tap.right == of ? tap.share : 0.0f);
}

INLINE double warp_sum(double x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// The sum over a block of 256 threads, for every thread, added in the same order.
INLINE double block_sum(double x) {
    __shared__ double parts[8];
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < 8; ++i) sum += parts[i];
    __syncthreads();
    return sum;
}

// --- Cross entropy. A warp to a pixel, lane l with channels l, l + 32, ...; at most 32 CHUNKS channels.

// Pixels of a block of 8 warps.
constexpr int PIXELS = 64;

template <class T, int CHUNKS>
INLINE void read_channels(const T* logits, const Sizes& s, int image, int row, int column, float (&v)[CHUNKS]) {
    const T* from = logits + (((i64)image * s.from_height + row) * s.from_width + column) * s.channels;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        int c = threadIdx.x % 32 + 32 * i;
        v[i] = c < s.channels ? to_f32(from[c]) : 0;
    }
}

// A pixel's resized logits; -infinity past the last channel.
template <class T, int CHUNKS>
INLINE void resized(const T* logits, const Sizes& s, int image, int pixel, float (&z)[CHUNKS]) {
    Tap row = tap_of(pixel / s.width, s.row_scale, s.from_height);
    Tap column = tap_of(pixel % s.width, s.column_scale, s.from_width);
    float other[CHUNKS], right[CHUNKS];
    read_channels(logits, s, image, row.left, column.left, z);
    read_channels(logits, s, image, row.right, column.left, other);
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) z[i] = mix(z[i], other[i], row.share);
    read_channels(logits, s, image, row.left, column.right, right);
    read_channels(logits, s, image, row.right, column.right, other);
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        bool real = (int)(threadIdx.x % 32) + 32 * i < s.channels;
        z[i] = real ? mix(z[i], mix(right[i], other[i], row.share), column.share) : -INFINITY;
    }
}

// The largest logit, and the sum of the exponentials of the others' distances to it. A NaN becomes the sum.
template <int CHUNKS> INLINE float2 max_and_sum(const float (&z)[CHUNKS]) {
    float most = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) most = fmaxf(most, z[i]);
    most = warp_max(most);
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) sum += expf(z[i] - most);
    return make_float2(most, warp_sum(sum));
}

// `norms`: log sum exp of every pixel with a class, [batch, height, width]. `sums`, `counts`: loss and number
// of such pixels of every block. Grid: (pixels of an image / 64, batch).
template <class T, int CHUNKS>
INLINE void entropy_forward(const T* logits, const u8* labels, const Sizes& s, int ignore, float* norms,
                            double* sums, unsigned* counts) {
    __shared__ double losses[8];
    __shared__ unsigned known[8];
    int image = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32, pixels = s.height * s.width;
    double loss = 0;
    unsigned count = 0;
    for (int i = 0; i < PIXELS / 8; ++i) {
        int pixel = blockIdx.x * PIXELS + warp * (PIXELS / 8) + i;
        if (pixel >= pixels) break;
        int label = labels[(i64)image * pixels + pixel];
        if (label == ignore || label >= s.channels) continue;
        float z[CHUNKS], hit = 0;
        resized(logits, s, image, pixel, z);
        float2 of = max_and_sum(z);
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) hit += lane + 32 * j == label ? z[j] : 0;
        float logarithm = logf(of.y);
        loss += logarithm - (warp_sum(hit) - of.x);
        ++count;
        if (lane == 0) norms[(i64)image * pixels + pixel] = of.x + logarithm;
    }
    if (lane == 0) losses[warp] = loss, known[warp] = count;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < 8; ++i) loss += losses[i], count += known[i];
        sums[blockIdx.y * gridDim.x + blockIdx.x] = loss;
        counts[blockIdx.y * gridDim.x + blockIdx.x] = count;
    }
}

// The mean over groups with a pixel of their mean losses, and what a pixel of each group counts in it (0 in
// others). `parts` blocks of entropy_forward make up a group. Grid: one block of 256 threads.
KERNEL(256, entropy_value, const double* sums, const unsigned* counts, int parts, int groups, float* value,
       float* weights) {
    double total = 0;
    int kept = 0;
    for (int group = 0; group < groups; ++group) {
        double sum = 0, count = 0;
        for (int i = threadIdx.x; i < parts; i += 256) {
            sum += sums[(i64)group * parts + i];
            count += counts[(i64)group * parts + i];
        }
        sum = block_sum(sum);
        count = block_sum(count);
        if (count > 0) total += sum / count, ++kept;
        if (threadIdx.x == 0) weights[group] = count > 0 ? (float)(1 / count) : 0;
    }
    if (threadIdx.x > 0) return;
    *value = (float)(total / kept);
    for (int group = 0; group < groups; ++group) weights[group] /= kept;
}

// The gradient of logits, a warp to a place of their grid, which gathers from the pixels that it is a
// neighbour of. `upstream`: the gradient of the loss. Grid: places / 8.
template <class T, int CHUNKS>
INLINE void entropy_backward(const T* logits, const u8* labels, const float* norms, const float* weights,
                             const float* upstream, const Sizes& s, int ignore, T* gradient) {
    i64 place = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int lane = threadIdx.x % 32, pixels = s.height * s.width, from_pixels = s.from_height * s.from_width;
    if (place >= (i64)s.batch * from_pixels) return;
    int image = (int)(place / from_pixels), row = (int)(place % from_pixels) / s.from_width;
    int column = (int)(place % from_pixels) % s.from_width;
    float sums[CHUNKS] = {};
    for (int above = max(row - 1, 0); above <= row; ++above) {
        int top = first_at(above, s.row_scale, s.from_height, s.height);
        int bottom = first_at(above + 1, s.row_scale, s.from_height, s.height);
        for (int before = max(column - 1, 0); before <= column; ++before) {
            int begin = first_at(before, s.column_scale, s.from_width, s.width);
            int end = first_at(before + 1, s.column_scale, s.from_width, s.width);
            if (top >= bottom || begin >= end) continue;
            // The corners that these pixels lie between.
            int below = min(above + 1, s.from_height - 1), after = min(before + 1, s.from_width - 1);
            float corners[4][CHUNKS];
            read_channels(logits, s, image, above, before, corners[0]);
            read_channels(logits, s, image, below, before, corners[1]);
            read_channels(logits, s, image, above, after, corners[2]);
            read_channels(logits, s, image, below, after, corners[3]);
            for (int y = top; y < bottom; ++y) {
                Tap vertical = tap_of(y, s.row_scale, s.from_height);
                float of_row = weight_on(vertical, row);
                float left[CHUNKS], right[CHUNKS];
#pragma unroll
                for (int i = 0; i < CHUNKS; ++i) {
                    left[i] = mix(corners[0][i], corners[1][i], vertical.share);
                    right[i] = mix(corners[2][i], corners[3][i], vertical.share);
                }
                for (int x = begin; x < end; ++x) {
                    i64 pixel = (i64)image * pixels + y * s.width + x;
                    int label = labels[pixel];
                    if (label == ignore || label >= s.channels) continue;
                    Tap across = tap_of(x, s.column_scale, s.from_width);
                    float weight = of_row * weight_on(across, column), norm = norms[pixel];
#pragma unroll
                    for (int i = 0; i < CHUNKS; ++i) {
                        float share = expf(mix(left[i], right[i], across.share) - norm);
                        sums[i] += weight * (share - (lane + 32 * i == label ? 1.0f : 0.0f));
                    }
                }
            }
        }
    }
    float factor = weights[image / (s.batch / s.groups)] * *upstream;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        int c = lane + 32 * i;
        if (c < s.channels) gradient[place * s.channels + c] = from_f32<T>(sums[i] * factor);
    }
}

// Softmax over the channels of every pixel, channels-last. Grid: (pixels of an image / 64, batch).
template <class T, int CHUNKS> INLINE void softmax(const T* logits, const Sizes& s, float* result) {
    int image = blockIdx.y, pixels = s.height * s.width, lane = threadIdx.x % 32;
    for (int i = 0; i < PIXELS / 8; ++i) {
        int pixel = blockIdx.x * PIXELS + threadIdx.x / 32 * (PIXELS / 8) + i;
        if (pixel >= pixels) break;
        float z[CHUNKS];
        resized(logits, s, image, pixel, z);
        float2 of = max_and_sum(z);
        float* to = result + ((i64)image * pixels + pixel) * s.channels;
#pragma unroll
        for (int j = 0; j < CHUNKS; ++j) {
            if (lane + 32 * j < s.channels) to[lane + 32 * j] = expf(z[j] - of.x) / of.y;
        }
    }
}

#define CLASSES(name, T, CHUNKS)                                                                             \
    KERNEL(256, entropy_forward_##name, const T* logits, const u8* labels, const Sizes s, int ignore,        \
           float* norms, double* sums, unsigned* counts) {                                                   \
        entropy_forward<T, CHUNKS>(logits, labels, s, ignore, norms, sums, counts);                          \
    }                                                                                                        \
    KERNEL(256, entropy_backward_##name, const T* logits, const u8* labels, const float* norms,              \
           const float* weights, const float* upstream, const Sizes s, int ignore, T* gradient) {            \
        entropy_backward<T, CHUNKS>(logits, labels, norms, weights, upstream, s, ignore, gradient);          \
    }                                                                                                        \
    KERNEL(256, softmax_##name, const T* logits, const Sizes s, float* result) {                             \
        softmax<T, CHUNKS>(logits, s, result);                                                               \
    }

CLASSES(f32_32, float, 1)
CLASSES(f32_160, float, 5)
CLASSES(f32_256, float, 8)
CLASSES(bf16_32, bf16, 1)
CLASSES(bf16_160, bf16, 5)
CLASSES(bf16_256, bf16, 8)

// The class with the largest value of every pixel of channels-last `maps`, the lowest of several; a NaN is
// passed over. A warp to a pixel. Grid: pixels / 8.
KERNEL(256, argmax, const float* maps, i64 pixels, int channels, u8* classes) {
    i64 pixel = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    if (pixel >= pixels) return;
    float most = -INFINITY;
    int best = 0;
    for (int c = threadIdx.x % 32; c < channels; c += 32) {
        float value = maps[pixel * channels + c];
        if (value > most) most = value, best = c;
    }
    for (int step = 16; step > 0; step /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, most, step);
        int theirs = __shfl_xor_sync(0xffffffffu, best, step);
        if (other > most || (other == most && theirs < best)) most = other, best = theirs;
    }
    if (threadIdx.x % 32 == 0) classes[pixel] = (u8)best;
}

// --- Depth, from one channel.

// Pixels of a block.
constexpr int AREA = 1024;

template <class T> INLINE float resized(const T* logits, const Sizes& s, int image, Tap row, Tap column) {
    const T* from = logits + (i64)image * s.from_height * s.from_width;
    const T *above = from + (i64)row.left * s.from_width, *below = from + (i64)row.right * s.from_width;
    float left = mix(to_f32(above[column.left]), to_f32(below[column.left]), row.share);
    float right = mix(to_f32(above[column.right]), to_f32(below[column.right]), row.share);
    return mix(left, right, column.share);
}

// exp(80) is finite.
INLINE float sigmoid(float z) { return 1.0f / (1.0f + expf(-(z < -80.0f ? -80.0f : z))); }

// log target - log max(prediction, least), and its derivative by the logit.
INLINE float2 distance(float z, float target, float least, float most) {
    float prediction = sigmoid(z) * most;
    bool below = prediction < least;
    float slope = below || z < -80.0f ? 0.0f : sigmoid(-z);
    return make_float2(logf(target) - logf(below ? least : prediction), -slope);
}

// `sums`: of every block, the sums of distances and of their squares; `counts`: its valid pixels. Grid:
// (pixels of an image / 1024, batch).
template <class T>
INLINE void silog_forward(const T* logits, const float* target, const Sizes& s, float least, float most,
                          double* sums, unsigned* counts) {
    int image = blockIdx.y, pixels = s.height * s.width;
    double first = 0, second = 0, count = 0;
    for (int i = threadIdx.x; i < AREA; i += 256) {
        int pixel = blockIdx.x * AREA + i;
        if (pixel >= pixels) break;
        float metres = target[(i64)image * pixels + pixel];
        if (!(metres >= least && metres <= most)) continue;
        Tap row = tap_of(pixel / s.width, s.row_scale, s.from_height);
        Tap column = tap_of(pixel % s.width, s.column_scale, s.from_width);
        float d = distance(resized(logits, s, image, row, column), metres, least, most).x;
        first += d;
        second += (double)d * d;
        count += 1;
    }
    first = block_sum(first);
    second = block_sum(second);
    count = block_sum(count);
    if (threadIdx.x > 0) return;
    i64 block = (i64)blockIdx.y * gridDim.x + blockIdx.x;
    sums[2 * block] = first;
    sums[2 * block + 1] = second;
    counts[block] = (unsigned)count;
}

// The mean of SiLog, sqrt(mean(d^2) - mean(d)^2 / 2), over groups with a valid pixel. The derivative by a
// distance d of a group is `slopes[2 group]` (d - `slopes[2 group + 1]`). `parts` blocks of silog_forward
// make up a group. Grid: one block of 256 threads.
KERNEL(256, silog_value, const double* sums, const unsigned* counts, int parts, int groups, float* value,
       float* slopes) {
    double total = 0;
    int kept = 0;
    for (int pass = 0; pass < 2; ++pass) {
        for (int group = 0; group < groups; ++group) {
            double first = 0, second = 0, count = 0;
            for (int i = threadIdx.x; i < parts; i += 256) {
                i64 part = (i64)group * parts + i;
                first += sums[2 * part];
                second += sums[2 * part + 1];
                count += counts[part];
            }
            first = block_sum(first);
            second = block_sum(second);
            count = block_sum(count);
            double mean = first / count, loss = sqrt(second / count - mean * mean / 2);
            if (pass == 0) {
                if (count > 0) total += loss, ++kept;
            } else if (threadIdx.x == 0) {
                slopes[2 * group] = count > 0 ? (float)(1 / (kept * count * loss)) : 0;
                slopes[2 * group + 1] = count > 0 ? (float)(mean / 2) : 0;
            }
        }
    }
    if (threadIdx.x == 0) *value = (float)(total / kept);
}

// As entropy_backward; the lanes of a warp share the pixels.
template <class T>
INLINE void silog_backward(const T* logits, const float* target, const float* slopes, const float* upstream,
                           const Sizes& s, float least, float most, T* gradient) {
    i64 place = (i64)blockIdx.x * 8 + threadIdx.x / 32;
    int lane = threadIdx.x % 32, pixels = s.height * s.width, from_pixels = s.from_height * s.from_width;
    if (place >= (i64)s.batch * from_pixels) return;
    int image = (int)(place / from_pixels), row = (int)(place % from_pixels) / s.from_width;
    int column = (int)(place % from_pixels) % s.from_width;
    int top = first_at(row - 1, s.row_scale, s.from_height, s.height);
    int bottom = first_at(row + 1, s.row_scale, s.from_height, s.height);
    int begin = first_at(column - 1, s.column_scale, s.from_width, s.width);
    int end = first_at(column + 1, s.column_scale, s.from_width, s.width);
    int group = image / (s.batch / s.groups), across = max(end - begin, 1), count = (bottom - top) * (end - begin);
    float half_mean = slopes[2 * group + 1], sum = 0;
    for (int i = lane; i < count; i += 32) {
        int y = top + i / across, x = begin + i % across;
        float metres = target[(i64)image * pixels + y * s.width + x];
        if (!(metres >= least && metres <= most)) continue;
        Tap vertical = tap_of(y, s.row_scale, s.from_height), horizontal = tap_of(x, s.column_scale, s.from_width);
        float2 d = distance(resized(logits, s, image, vertical, horizontal), metres, least, most);
        sum += weight_on(vertical, row) * weight_on(horizontal, column) * ((d.x - half_mean) * d.y);
    }
    sum = warp_sum(sum);
    if (lane == 0) gradient[place] = from_f32<T>(sum * slopes[2 * group] * *upstream);
}

// Metres of every pixel. Grid: (pixels of an image / 1024, batch).
template <class T> INLINE void depth(const T* logits, const Sizes& s, float most, float* result) {
    int pixels = s.height * s.width;
    for (int i = threadIdx.x; i < AREA; i += 256) {
        int pixel = blockIdx.x * AREA + i;
        if (pixel >= pixels) break;
        Tap row = tap_of(pixel / s.width, s.row_scale, s.from_height);
        Tap column = tap_of(pixel % s.width, s.column_scale, s.from_width);
        float z = resized(logits, s, blockIdx.y, row, column);
        result[(i64)blockIdx.y * pixels + pixel] = sigmoid(z) * most;
    }
}

#define DEPTH(name, T)                                                                                       \
    KERNEL(256, silog_forward_##name, const T* logits, const float* target, const Sizes s, float least,      \
           float most, double* sums, unsigned* counts) {                                                     \
        silog_forward<T>(logits, target, s, least, most, sums, counts);                                      \
    }                                                                                                        \
    KERNEL(256, silog_backward_##name, const T* logits, const float* target, const float* slopes,            \
           const float* upstream, const Sizes s, float least, float most, T* gradient) {                     \
        silog_backward<T>(logits, target, slopes, upstream, s, least, most, gradient);                       \
    }                                                                                                        \
    KERNEL(256, depth_##name, const T* logits, const Sizes s, float most, float* result) {                   \
        depth<T>(logits, s, most, result);                                                                   \
    }

DEPTH(f32, float)
DEPTH(bf16, bf16)
