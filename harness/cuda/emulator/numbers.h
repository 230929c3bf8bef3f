// Matrices and images of f32, bf16 and f16, in plain f32 and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <library_types.h>

namespace gpu {

// Bytes of a number; 0 for a type that is not emulated.
size_t size_of(cudaDataType type);
float read(const void* from, size_t index, cudaDataType type);
void write(void* to, size_t index, cudaDataType type, float value);

// `c[m, n] = a[m, k] b[n, k]^T`, row by row.
void product(const float* a, const float* b, float* c, size_t m, size_t n, size_t k);

// A matrix of the library's, column by column.
struct Matrix {
    const void* data;
    cudaDataType type;
    size_t rows, columns, ld;
    bool transposed;

    // `rows x columns` (after the transposition) row by row, or column by column.
    std::vector<float> by_rows() const { return ordered(true); }
    std::vector<float> by_columns() const { return ordered(false); }

private:
    std::vector<float> ordered(bool by_rows) const;
};

}  // namespace gpu
