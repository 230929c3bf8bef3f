// Images whose channels lie side by side, [B, H, W, C]: columns of convolutions, resizes, and what goes through
// their channels in groups of V (16 bytes, or 1 where they do not divide or are not aligned).
#include "portable.cuh"

template <class T, int V> struct alignas(sizeof(T) * V > 16 ? 16 : sizeof(T) * V) Group {
    T of[V];
};

// A NaN stays one.
template <class T> INLINE T rectified(T v) { return to_f32(v) < 0 ? from_f32<T>(0) : v; }

// The columns of a convolution, [pixels of the result, taps, C]. Grid: a block to a pixel of the result.
template <class T, int V>
INLINE void columns_of(const T* x, T* to, int height, int width, int groups, int lines, int pixels,
                       int kernel_width, int taps, int stride, int padding, int rectify) {
    i64 row = blockIdx.x;
    int pixel = (int)(row % pixels), line = (int)(row / pixels % lines);
    i64 image = row / pixels / lines;
    auto from = reinterpret_cast<const Group<T, V>*>(x) + image * height * width * groups;
    auto out = reinterpret_cast<Group<T, V>*>(to) + row * taps * groups;
    for (int unit = threadIdx.x; unit < taps * groups; unit += 128) {
        int tap = unit / groups, group = unit % groups;
        int y = line * stride + tap / kernel_width - padding, at = pixel * stride + tap % kernel_width - padding;
        Group<T, V> v;
        if (y >= 0 && y < height && at >= 0 && at < width) {
            v = from[((i64)y * width + at) * groups + group];
            if (rectify)
                for (int i = 0; i < V; ++i) v.of[i] = rectified(v.of[i]);
        } else {
            for (int i = 0; i < V; ++i) v.of[i] = from_f32<T>(0);
        }
        out[unit] = v;
    }
}

// The transpose: from f32 columns the gradient of the image, and 0 where `x` is not above 0 if `rectify`. Grid:
// a block to a pixel of the image.
template <class T, int V>
INLINE void gather_of(const float* columns, const T* x, T* to, int height, int width, int groups, int lines,
                      int pixels, int kernel_width, int taps, int stride, int padding, int rectify) {
    i64 place = blockIdx.x;
    int at = (int)(place % width), y = (int)(place / width % height);
    i64 image = place / width / height;
    auto from = reinterpret_cast<const Group<float, V>*>(columns);
    for (int group = threadIdx.x; group < groups; group += 128) {
        float sums[V];
        for (int i = 0; i < V; ++i) sums[i] = 0;
        for (int tap = 0; tap < taps; ++tap) {
            int line = y + padding - tap / kernel_width, pixel = at + padding - tap % kernel_width;
            if (line < 0 || pixel < 0 || line % stride || pixel % stride) continue;
            line /= stride, pixel /= stride;
            if (line >= lines || pixel >= pixels) continue;
            Group<float, V> v = from[(((image * lines + line) * pixels + pixel) * taps + tap) * groups + group];
            for (int i = 0; i < V; ++i) sums[i] += v.of[i];
        }
        Group<T, V> v;
        if (rectify) v = reinterpret_cast<const Group<T, V>*>(x)[place * groups + group];
        for (int i = 0; i < V; ++i)
            v.of[i] = from_f32<T>(!rectify || to_f32(v.of[i]) > 0 ? sums[i] : 0.0f);
        reinterpret_cast<Group<T, V>*>(to)[place * groups + group] = v;
    }
}

// The bias in every row, or added to it. Grid: a block to 64 rows.
template <class T, int V>
INLINE void bias_of(T* y, const T* bias, i64 rows, int groups, int add) {
    i64 first = (i64)blockIdx.x * 64;
    int units = (int)min((i64)64, rows - first) * groups;
    auto to = reinterpret_cast<Group<T, V>*>(y) + first * groups;
    for (int unit = threadIdx.x; unit < units; unit += 256) {
        Group<T, V> v = reinterpret_cast<const Group<T, V>*>(bias)[unit % groups];
        if (add) {
            Group<T, V> old = to[unit];
            for (int i = 0; i < V; ++i) v.of[i] = from_f32<T>(to_f32(old.of[i]) + to_f32(v.of[i]));
        }
        to[unit] = v;
    }
}

// max(x, 0); with a gradient, the gradient where x is above 0 and 0 elsewhere, in its place. Grid: a block to
// 1024 groups.
template <class T, int V> INLINE void relu_of(const T* x, T* y, i64 groups, int mask) {
    for (int i = 0; i < 4; ++i) {
        i64 unit = (i64)blockIdx.x * 1024 + i * 256 + threadIdx.x;
        if (unit >= groups) return;
        Group<T, V> v = reinterpret_cast<const Group<T, V>*>(x)[unit];
        auto to = reinterpret_cast<Group<T, V>*>(y) + unit;
        if (mask) {
            Group<T, V> gradient = *to;
            for (int i = 0; i < V; ++i) v.of[i] = to_f32(v.of[i]) > 0 ? gradient.of[i] : from_f32<T>(0);
        } else {
            for (int i = 0; i < V; ++i) v.of[i] = rectified(v.of[i]);
        }
        *to = v;
    }
}

// [A, M, N, groups] to [A, N, M, groups]. Grid: blocks to 256 groups of one A, and any number of A's.
template <class T, int V> INLINE void swap_of(const T* x, T* y, i64 count, int m, int n, int groups) {
    unsigned unit = blockIdx.x * 256 + threadIdx.x;
    if (unit >= (unsigned)m * n * groups) return;
    unsigned group = unit % groups, place = unit / groups;
    unsigned from = (place % m * n + place / m) * groups + group;
    for (i64 a = blockIdx.y; a < count; a += gridDim.y) {
        i64 first = a * m * n * groups;
        reinterpret_cast<Group<T, V>*>(y)[first + unit] = reinterpret_cast<const Group<T, V>*>(x)[first + from];
    }
}

// The neighbours of a place on a line of `to` in one of `from` pixels, and the share of the right one.
struct Place {
    int left, right;
    float share;
};
INLINE float step(int from, int to) { return to > 1 ? (float)(from - 1) / (float)(to - 1) : 0.0f; }
INLINE Place neighbours(int i, int from, float scale) {
    float at = __fmul_rn(scale, (float)i);
    int left = min((int)at, from - 1);
    return {left, min(left + 1, from - 1), fminf(fmaxf(at - (float)left, 0.0f), 1.0f)};
}

// [B, height, width, C] to [B, to_height, to_width, C]. Grid: blocks to 256 groups of a line, and any number of
// lines.
template <class T, int V>
INLINE void resize_of(const T* x, T* y, int batch, int height, int width, int to_height, int to_width,
                      int groups) {
    int unit = blockIdx.x * 256 + threadIdx.x;
    if (unit >= to_width * groups) return;
    int group = unit % groups;
    Place along = neighbours(unit / groups, width, step(width, to_width));
    for (i64 line = blockIdx.y; line < (i64)batch * to_height; line += gridDim.y) {
        Place down = neighbours((int)(line % to_height), height, step(height, to_height));
        auto from = reinterpret_cast<const Group<T, V>*>(x) + line / to_height * height * width * groups + group;
        Group<T, V> a = from[((i64)down.left * width + along.left) * groups];
        Group<T, V> b = from[((i64)down.left * width + along.right) * groups];
        Group<T, V> c = from[((i64)down.right * width + along.left) * groups];
        Group<T, V> d = from[((i64)down.right * width + along.right) * groups];
        for (int i = 0; i < V; ++i) {
            float above = to_f32(a.of[i]) + along.share * (to_f32(b.of[i]) - to_f32(a.of[i]));
            float below = to_f32(c.of[i]) + along.share * (to_f32(d.of[i]) - to_f32(c.of[i]));
            a.of[i] = from_f32<T>(above + down.share * (below - above));
        }
        reinterpret_cast<Group<T, V>*>(y)[line * to_width * groups + unit] = a;
    }
}

// The places of a line that pixel `i` may be a neighbour of.
INLINE void reached(int i, int to, float scale, int& first, int& last) {
    first = 0, last = to - 1;
    if (scale > 0) {
        first = max(0, (int)((float)(i - 1) / scale) - 1);
        last = (int)fminf((float)last, (float)(i + 1) / scale + 1.0f);
    }
}
INLINE float share_of(int i, Place place) {
    return (place.left == i ? 1.0f - place.share : 0.0f) + (place.right == i ? place.share : 0.0f);
}

// The transpose of the resize, from a gradient [B, to_height, to_width, C] to [B, height, width, C]; a grid as
// there, over the lines of the result.
template <class T, int V>
INLINE void resize_back_of(const T* gradient, T* to, int batch, int height, int width, int to_height,
                           int to_width, int groups) {
    int unit = blockIdx.x * 256 + threadIdx.x;
    if (unit >= width * groups) return;
    int group = unit % groups, pixel = unit / groups;
    float down = step(height, to_height), along = step(width, to_width);
    int left, right;
    reached(pixel, to_width, along, left, right);
    for (i64 line = blockIdx.y; line < (i64)batch * height; line += gridDim.y) {
        int row = (int)(line % height), top, bottom;
        auto from = reinterpret_cast<const Group<T, V>*>(gradient) +
                    line / height * to_height * to_width * groups + group;
        reached(row, to_height, down, top, bottom);
        float sums[V];
        for (int i = 0; i < V; ++i) sums[i] = 0;
        for (int y = top; y <= bottom; ++y) {
            float outer = share_of(row, neighbours(y, height, down));
            if (outer == 0) continue;
            for (int at = left; at <= right; ++at) {
                float share = outer * share_of(pixel, neighbours(at, width, along));
                if (share == 0) continue;
                Group<T, V> v = from[((i64)y * to_width + at) * groups];
                for (int i = 0; i < V; ++i) sums[i] += share * to_f32(v.of[i]);
            }
        }
        Group<T, V> v;
        for (int i = 0; i < V; ++i) v.of[i] = from_f32<T>(sums[i]);
        reinterpret_cast<Group<T, V>*>(to)[line * width * groups + unit] = v;
    }
}

// Sums by column over parts of the rows, f32 [parts, C], of what `term` adds to V sums for a row and a group. The
// sums of a part are added in an order that its size alone decides. Grid: blocks to 32 groups of columns, and to
// the parts.
template <int V, class Term> INLINE void sum_parts(float* to, i64 rows, int groups, i64 part, Term term) {
    __shared__ float sums[8][32 * V];
    int lane = threadIdx.x % 32, rank = threadIdx.x / 32;
    int group = blockIdx.x * 32 + lane;
    i64 first = (i64)blockIdx.y * part, last = min(rows, first + part);
    float mine[V];
    for (int i = 0; i < V; ++i) mine[i] = 0;
    if (group < groups)
        for (i64 row = first + rank; row < last; row += 8) term(row, group, mine);
    for (int i = 0; i < V; ++i) sums[rank][lane * V + i] = mine[i];
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * V; i += 256) {
        i64 column = (i64)blockIdx.x * 32 * V + i;
        if (column >= (i64)groups * V) break;
        float sum = 0;
        for (int rank = 0; rank < 8; ++rank) sum += sums[rank][i];
        to[(i64)blockIdx.y * groups * V + column] = sum;
    }
}

// Of x; with a centre of (x - centre)^2; with another matrix too of (x - centre) other.
template <class T, int V>
INLINE void column_sums_of(const T* x, const float* centre, const float* other, float* to, i64 rows, int groups,
                           i64 part) {
    sum_parts<V>(to, rows, groups, part, [&](i64 row, int group, float(&sums)[V]) {
        i64 at = row * groups + group;
        Group<T, V> v = reinterpret_cast<const Group<T, V>*>(x)[at];
        for (int i = 0; i < V; ++i) {
            float value = to_f32(v.of[i]) - (centre ? centre[group * V + i] : 0.0f);
            if (centre) value *= other ? other[at * V + i] : value;
            sums[i] += value;
        }
    });
}

// Of x, or its ReLU, times a weight of each row: the gradient of a product with one output.
template <class T, int V>
INLINE void weighted_sums_of(const T* x, const T* weights, float* to, i64 rows, int groups, i64 part,
                             int rectify) {
    sum_parts<V>(to, rows, groups, part, [&](i64 row, int group, float(&sums)[V]) {
        float weight = to_f32(weights[row]);
        Group<T, V> v = reinterpret_cast<const Group<T, V>*>(x)[row * groups + group];
        for (int i = 0; i < V; ++i) sums[i] += weight * to_f32(rectify ? rectified(v.of[i]) : v.of[i]);
    });
}

// factors[0] x + factors[1] z + factors[2] with a factor of each row for every column; without z its term is
// left out. Grid: a block to 64 rows.
template <int V>
INLINE void blend_of(const float* x, const float* z, const float* factors, float* y, i64 rows, int groups) {
    i64 first = (i64)blockIdx.x * 64 * groups;
    int units = (int)min((i64)64, rows - (i64)blockIdx.x * 64) * groups;
    auto all = reinterpret_cast<const Group<float, V>*>(factors);
    for (int unit = threadIdx.x; unit < units; unit += 256) {
        int group = unit % groups;
        Group<float, V> scale = all[group], offset = all[2 * groups + group];
        Group<float, V> v = reinterpret_cast<const Group<float, V>*>(x)[first + unit];
        for (int i = 0; i < V; ++i) v.of[i] *= scale.of[i];
        if (z) {
            Group<float, V> more = all[groups + group];
            Group<float, V> other = reinterpret_cast<const Group<float, V>*>(z)[first + unit];
            for (int i = 0; i < V; ++i) v.of[i] += more.of[i] * other.of[i];
        }
        for (int i = 0; i < V; ++i) v.of[i] += offset.of[i];
        reinterpret_cast<Group<float, V>*>(y)[first + unit] = v;
    }
}

// A row of f32 joined to every token of its image. Grid: a block to a token.
template <class T>
INLINE void join_of(const T* x, const float* row, float* y, i64 tokens, int width, int more) {
    i64 token = blockIdx.x, image = token / tokens;
    float* to = y + token * (width + more);
    for (int i = threadIdx.x; i < width; i += 256) to[i] = to_f32(x[token * width + i]);
    for (int i = threadIdx.x; i < more; i += 256) to[width + i] = row[image * more + i];
}

// Adds rows of `groups`, `step` apart, to such that lie `to_step` apart. Grid: a row's groups by 256, the rows.
template <int V>
INLINE void add_rows_of(float* to, const float* rows, i64 to_step, i64 step, i64 groups) {
    auto out = reinterpret_cast<Group<float, V>*>(to) + blockIdx.y * to_step;
    auto from = reinterpret_cast<const Group<float, V>*>(rows) + blockIdx.y * step;
    i64 group = (i64)blockIdx.x * 256 + threadIdx.x;
    if (group >= groups) return;
    Group<float, V> sum = out[group], more = from[group];
    for (int i = 0; i < V; ++i) sum.of[i] += more.of[i];
    out[group] = sum;
}

#define GROUPS(name, T, V)                                                                                     \
    KERNEL(128, columns_##name, const T* x, T* to, int height, int width, int groups, int lines, int pixels,   \
           int kernel_width, int taps, int stride, int padding, int rectify) {                                 \
        columns_of<T, V>(x, to, height, width, groups, lines, pixels, kernel_width, taps, stride, padding,     \
                         rectify);                                                                             \
    }                                                                                                          \
    KERNEL(128, gather_##name, const float* columns, const T* x, T* to, int height, int width, int groups,     \
           int lines, int pixels, int kernel_width, int taps, int stride, int padding, int rectify) {          \
        gather_of<T, V>(columns, x, to, height, width, groups, lines, pixels, kernel_width, taps, stride,      \
                        padding, rectify);                                                                     \
    }                                                                                                          \
    KERNEL(256, bias_##name, T* y, const T* bias, i64 rows, int groups, int add) {                             \
        bias_of<T, V>(y, bias, rows, groups, add);                                                             \
    }                                                                                                          \
    KERNEL(256, relu_##name, const T* x, T* y, i64 groups, int mask) { relu_of<T, V>(x, y, groups, mask); }    \
    KERNEL(256, swap_##name, const T* x, T* y, i64 count, int m, int n, int groups) {                          \
        swap_of<T, V>(x, y, count, m, n, groups);                                                              \
    }                                                                                                          \
    KERNEL(256, resize_##name, const T* x, T* y, int batch, int height, int width, int to_height,              \
           int to_width, int groups) {                                                                         \
        resize_of<T, V>(x, y, batch, height, width, to_height, to_width, groups);                              \
    }                                                                                                          \
    KERNEL(256, resize_back_##name, const T* gradient, T* to, int batch, int height, int width,                \
           int to_height, int to_width, int groups) {                                                          \
        resize_back_of<T, V>(gradient, to, batch, height, width, to_height, to_width, groups);                 \
    }                                                                                                          \
    KERNEL(256, column_sums_##name, const T* x, const float* centre, const float* other, float* to, i64 rows,  \
           int groups, i64 part) {                                                                             \
        column_sums_of<T, V>(x, centre, other, to, rows, groups, part);                                        \
    }                                                                                                          \
    KERNEL(256, weighted_sums_##name, const T* x, const T* weights, float* to, i64 rows, int groups, i64 part, \
           int rectify) {                                                                                      \
        weighted_sums_of<T, V>(x, weights, to, rows, groups, part, rectify);                                   \
    }

GROUPS(f32_1, float, 1)
GROUPS(f32_4, float, 4)
GROUPS(bf16_1, bf16, 1)
GROUPS(bf16_8, bf16, 8)
GROUPS(f16_1, f16, 1)
GROUPS(f16_8, f16, 8)

#define BLEND(V)                                                                                              \
    KERNEL(256, blend_f32_##V, const float* x, const float* z, const float* factors, float* y, i64 rows,      \
           int groups) {                                                                                      \
        blend_of<V>(x, z, factors, y, rows, groups);                                                          \
    }
BLEND(1)
BLEND(4)

#define ADD_ROWS(V)                                                                                           \
    KERNEL(256, add_rows_f32_##V, float* to, const float* rows, i64 to_step, i64 step, i64 groups) {          \
        add_rows_of<V>(to, rows, to_step, step, groups);                                                      \
    }
ADD_ROWS(1)
ADD_ROWS(4)

#define JOIN(name, T)                                                                                         \
    KERNEL(256, join_##name, const T* x, const float* row, float* y, i64 tokens, int width, int more) {       \
        join_of(x, row, y, tokens, width, more);                                                              \
    }
JOIN(f32, float)
JOIN(bf16, bf16)
JOIN(f16, f16)
