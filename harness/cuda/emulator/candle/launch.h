// Launches of candle's kernels.
#pragma once

#include "../kernels.h"
#include "sixteen.h"

#define __global__

namespace gpu {

// As `host::launch` for kernels whose threads do not wait for one another: one after the other, on the
// stack of the caller.
template <class... A, size_t... I>
const char* launch_each(void (*kernel)(A...), std::index_sequence<I...>, const unsigned* grid, const unsigned* dims,
                        void** args) {
    host::Block block;
    host::Fibre fibre;
    block.grid = {grid[0], grid[1], grid[2]};
    block.dims = {dims[0], dims[1], dims[2]};
    host::block = &block;
    host::fibre = &fibre;
    static thread_local std::string error;
    if (!_setjmp(block.scheduler)) {
        for (unsigned z = 0; z < grid[2]; ++z) for (unsigned y = 0; y < grid[1]; ++y) for (unsigned x = 0; x < grid[0]; ++x) {
            block.index = {x, y, z};
            for (unsigned tz = 0; tz < dims[2]; ++tz) for (unsigned ty = 0; ty < dims[1]; ++ty) for (unsigned tx = 0; tx < dims[0]; ++tx) {
                fibre.index = {tx, ty, tz};
                kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...);
            }
        }
    }
    host::block = nullptr;
    host::fibre = nullptr;
    error = block.error;
    return error.empty() ? nullptr : error.c_str();
}

template <auto kernel> struct Launch;
template <class... A, void (*kernel)(A...)> struct Launch<kernel> {
    static const char* each(const unsigned* grid, const unsigned* dims, unsigned, void** args) {
        return launch_each(kernel, std::index_sequence_for<A...>{}, grid, dims, args);
    }
    static const char* together(const unsigned* grid, const unsigned* dims, unsigned shared, void** args) {
        return host::launch(kernel, std::index_sequence_for<A...>{}, 1024, grid, dims, shared, args);
    }
};

}  // namespace gpu
