#include "numbers.h"

#include "../../ops/kernels/host/types.h"

namespace gpu {

size_t size_of(cudaDataType type) {
    switch (type) {
    case CUDA_R_32F: return 4;
    case CUDA_R_16F: case CUDA_R_16BF: return 2;
    default: return 0;
    }
}

float read(const void* from, size_t index, cudaDataType type) {
    switch (type) {
    case CUDA_R_16F: return to_f32(static_cast<const f16*>(from)[index]);
    case CUDA_R_16BF: return to_f32(static_cast<const bf16*>(from)[index]);
    default: return static_cast<const float*>(from)[index];
    }
}

void write(void* to, size_t index, cudaDataType type, float value) {
    switch (type) {
    case CUDA_R_16F: static_cast<f16*>(to)[index] = from_f32<f16>(value); break;
    case CUDA_R_16BF: static_cast<bf16*>(to)[index] = from_f32<bf16>(value); break;
    default: static_cast<float*>(to)[index] = value;
    }
}

void product(const float* a, const float* b, float* c, size_t m, size_t n, size_t k) {
    // A few rows of each share what is loaded; each sum has sixteen parts.
    constexpr size_t ROWS = 4, PARTS = 16;
    for (size_t j = 0; j < n; ++j) {
        const float* right = b + j * k;
        for (size_t i = 0; i < m; i += ROWS) {
            size_t rows = m - i < ROWS ? m - i : ROWS;
            float sums[ROWS][PARTS] = {};
            size_t at = 0;
            if (rows == ROWS) {
                for (; at + PARTS <= k; at += PARTS) {
                    for (size_t r = 0; r < ROWS; ++r) {
                        for (size_t p = 0; p < PARTS; ++p) sums[r][p] += a[(i + r) * k + at + p] * right[at + p];
                    }
                }
            }
            for (size_t r = 0; r < rows; ++r) {
                double sum = 0;
                for (float part : sums[r]) sum += part;
                for (size_t l = at; l < k; ++l) sum += (double)a[(i + r) * k + l] * right[l];
                c[(i + r) * n + j] = (float)sum;
            }
        }
    }
}

std::vector<float> Matrix::ordered(bool by_rows) const {
    std::vector<float> all(rows * columns);
    for (size_t row = 0; row < rows; ++row) {
        for (size_t column = 0; column < columns; ++column) {
            size_t from = transposed ? row * ld + column : column * ld + row;
            all[by_rows ? row * columns + column : column * rows + row] = read(data, from, type);
        }
    }
    return all;
}

}  // namespace gpu
