// softmax(q k^T scale) v, tile by tile (Dao, arXiv 2307.08691), and a softmax of rows for the heads that the
// tiles do not serve.
#include "portable.cuh"

constexpr int THREADS = 128;
// Queries to a block, and to each of its four warps.
constexpr int QUERIES = 128, WARP_QUERIES = 32;

// The addresses of one operand [B, H, N, D]: elements between batches, heads and tokens.
struct Strides {
    i64 batch, head, token;
};

// Starts copying `ROWS` rows of `depth` values from token `first` on; what is beyond `tokens` or `depth`
// becomes zero.
template <int ROWS, int D, class T>
INLINE void load_tile(T* to, const T* from, i64 stride, int first, int tokens, int depth) {
    constexpr int CHUNKS = D / 8, ROW = (CHUNKS | 1) * 8;
#pragma unroll
    for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; ++i) {
        int at = i * THREADS + (int)threadIdx.x;
        int row = at / CHUNKS, chunk = at % CHUNKS;
        if (row < ROWS) {
            bool valid = first + row < tokens && 8 * chunk < depth;
            cp_async16(to + row * ROW + 8 * chunk, valid ? from + (first + row) * stride + 8 * chunk : from, valid);
        }
    }
}

// D: the head's size, which `depth` (a multiple of 8) may fall short of; KEYS: keys to a tile. Rows of shared
// memory are an odd number of 16 bytes long, so that eight rows meet eight different groups of banks.
//
// Up to D = 64 the queries live in registers, and their memory is that of the second tile of keys.
template <class T, int D, int KEYS>
INLINE void attend(const T* q, const T* k, const T* v, T* out, Strides qs, Strides ks, Strides vs, int queries,
                   int keys, int depth, float factor) {
    constexpr int ROW = (D / 8 | 1) * 8, STEPS = D / 16, TILE = KEYS * ROW;
    constexpr bool KEPT = D <= 64;
    static_assert(!KEPT || 2 * TILE >= QUERIES * ROW, "the queries fit into the second tile");
    SHARED_BYTES(bytes);
    T* tiles = reinterpret_cast<T*>(bytes);
    T* queued = KEPT ? tiles + 2 * TILE : tiles + 4 * TILE;

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = blockIdx.x * QUERIES, head = blockIdx.y, batch = blockIdx.z;
    q += batch * qs.batch + head * qs.head;
    k += batch * ks.batch + head * ks.head;
    v += batch * vs.batch + head * vs.head;
    T* mine = queued + warp * WARP_QUERIES * ROW;
    bool active = first + warp * WARP_QUERIES < queries;

    auto load_queries = [&](unsigned (&to)[2][4], int step) {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            ldmatrix_x4(to[m], mine + (16 * m + lane % 16) * ROW + 16 * step + lane / 16 * 8);
        }
    };
    auto load_keys = [&](int tile) {
        T* to = tiles + tile % 2 * 2 * TILE;
        load_tile<KEYS, D>(to, k, ks.token, tile * KEYS, keys, depth);
        load_tile<KEYS, D>(to + TILE, v, vs.token, tile * KEYS, keys, depth);
    };

    unsigned kept[KEPT ? STEPS : 1][2][4];
    load_tile<QUERIES, D>(queued, q, qs.token, first, queries, depth);
    cp_async_commit();
    load_keys(0);
    cp_async_commit();
    if (KEPT) {
        cp_async_wait<1>();
        __syncthreads();
#pragma unroll
        for (int step = 0; step < (KEPT ? STEPS : 1); ++step) load_queries(kept[step], step);
        __syncthreads();
    }

    // Rows lane / 4 and lane / 4 + 8 of two 16-row tiles: results, largest scores, sums of this lane's columns.
    float sums[2][D / 8][4], largest[2][2], weights[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        largest[m][0] = largest[m][1] = -INFINITY;
        weights[m][0] = weights[m][1] = 0;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0;
    }

    int count = (keys + KEYS - 1) / KEYS;
    for (int tile = 0; tile < count; ++tile) {
        if (tile + 1 < count) load_keys(tile + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        if (active) {
            const T* key = tiles + tile % 2 * 2 * TILE;
            const T* value = key + TILE;
            int left = keys - tile * KEYS;
            float scores[2][KEYS / 8][4];
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n) {
                    scores[m][n][0] = scores[m][n][1] = scores[m][n][2] = scores[m][n][3] = 0;
                }
            }
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                unsigned a[2][4];
                if (KEPT) {
#pragma unroll
                    for (int i = 0; i < 8; ++i) a[i / 4][i % 4] = kept[KEPT ? step : 0][i / 4][i % 4];
                } else {
                    load_queries(a, step);
                }
#pragma unroll
                for (int j = 0; j < KEYS / 16; ++j) {
                    if (16 * j >= left) continue;
                    unsigned b[4];
                    ldmatrix_x4(b, key + (16 * j + lane / 16 * 8 + lane % 8) * ROW + 16 * step + lane / 8 % 2 * 8);
                    unsigned low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma<T>(scores[m][2 * j], a[m], low);
                        mma<T>(scores[m][2 * j + 1], a[m], high);
                    }
                }
            }
            if (left < KEYS) {
#pragma unroll
                for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        if (8 * n + lane % 4 * 2 + i % 2 >= left) scores[0][n][i] = scores[1][n][i] = -INFINITY;
                    }
                }
            }
#pragma unroll
            for (int m = 0; m < 2; ++m) {
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    float highest = largest[m][half];
#pragma unroll
                    for (int n = 0; n < KEYS / 8; ++n) {
                        highest = fmaxf(highest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
                    }
                    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
                    highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
                    float shrink = fast_exp2((largest[m][half] - highest) * factor);
                    largest[m][half] = highest;
                    float offset = highest * factor, sum = 0;
#pragma unroll
                    for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; ++i) {
                            scores[m][n][i] = fast_exp2(fmaf(scores[m][n][i], factor, -offset));
                            sum += scores[m][n][i];
                        }
                    }
                    weights[m][half] = weights[m][half] * shrink + sum;
#pragma unroll
                    for (int n = 0; n < D / 8; ++n) {
                        sums[m][n][2 * half] *= shrink;
                        sums[m][n][2 * half + 1] *= shrink;
                    }
                }
            }
#pragma unroll
            for (int j = 0; j < KEYS / 16; ++j) {
                if (16 * j >= left) continue;
                unsigned a[2][4];
#pragma unroll
                for (int m = 0; m < 2; ++m) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        a[m][i] = pack2<T>(scores[m][2 * j + i / 2][i % 2 * 2], scores[m][2 * j + i / 2][i % 2 * 2 + 1]);
                    }
                }
#pragma unroll
                for (int n = 0; n < STEPS; ++n) {
                    unsigned b[4];
                    ldmatrix_x4_trans(b, value + (16 * j + lane % 16) * ROW + 16 * n + lane / 16 * 8);
                    unsigned low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        mma<T>(sums[m][2 * n], a[m], low);
                        mma<T>(sums[m][2 * n + 1], a[m], high);
                    }
                }
            }
        }
        __syncthreads();
    }
    if (!active) return;

    // Through shared memory, for whole stores. Other warps have their own rows of it.
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float weight = weights[m][half];
            weight += __shfl_xor_sync(0xffffffffu, weight, 1);
            weight += __shfl_xor_sync(0xffffffffu, weight, 2);
            float share = 1.0f / weight;
            T* row = mine + (16 * m + 8 * half + lane / 4) * ROW + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                *reinterpret_cast<unsigned*>(row + 8 * n) =
                    pack2<T>(sums[m][n][2 * half] * share, sums[m][n][2 * half + 1] * share);
            }
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
        int at = 32 * i + lane, row = at / (D / 8), chunk = at % (D / 8);
        int query = first + warp * WARP_QUERIES + row;
        if (query < queries && 8 * chunk < depth) {
            T* to = out + (((i64)batch * queries + query) * gridDim.y + head) * depth + 8 * chunk;
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(mine + row * ROW + 8 * chunk);
        }
    }
}

// Grid: 128 queries, heads, batches. `factor` is the scale times log2(e), and above zero. Addresses are
// aligned to 16 bytes, strides and the depth multiples of 8.
#define ATTENTION(T, D, KEYS)                                                                                  \
    KERNEL_BLOCKS(128, 2, attention_##T##_##D, const T* q, const T* k, const T* v, T* out, Strides qs,         \
                  Strides ks, Strides vs, int queries, int keys, int depth, float factor) {                    \
        attend<T, D, KEYS>(q, k, v, out, qs, ks, vs, queries, keys, depth, factor);                            \
    }
#define ATTENTIONS(T)    \
    ATTENTION(T, 32, 64) \
    ATTENTION(T, 64, 64) \
    ATTENTION(T, 80, 64) \
    ATTENTION(T, 96, 64) \
    ATTENTION(T, 128, 32)

ATTENTIONS(bf16)
ATTENTIONS(f16)

// x = softmax(x scale) for rows of f32, in place. Grid: a block to a row.
KERNEL(256, softmax_f32, float* x, i64 width, float scale) {
    __shared__ float parts[8];
    float* row = x + (i64)blockIdx.x * width;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float highest = -INFINITY;
    for (i64 i = threadIdx.x; i < width; i += 256) highest = fmaxf(highest, row[i] * scale);
    highest = warp_max(highest);
    if (lane == 0) parts[warp] = highest;
    __syncthreads();
    for (int i = 0; i < 8; ++i) highest = fmaxf(highest, parts[i]);
    __syncthreads();
    float sum = 0;
    for (i64 i = threadIdx.x; i < width; i += 256) {
        row[i] = expf(row[i] * scale - highest);
        sum += row[i];
    }
    sum = warp_sum(sum);
    if (lane == 0) parts[warp] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < 8; ++i) sum += parts[i];
    for (i64 i = threadIdx.x; i < width; i += 256) row[i] /= sum;
}
