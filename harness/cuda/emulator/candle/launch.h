// Launches of candle's kernels.
#pragma once

#include "../kernels.h"
#include "sixteen.h"

#define __global__

namespace gpu {

template <auto kernel> struct Launch;
template <class... A, void (*kernel)(A...)> struct Launch<kernel> {
    static const char* run(const unsigned* grid, const unsigned* dims, unsigned shared, void** args) {
        return host::launch(kernel, std::index_sequence_for<A...>{}, 1024, grid, dims, shared, args);
    }
};

}  // namespace gpu
