// What a program had the GPU do, counted: EMULATED_GPU_REPORT names the file that it is written to.
#pragma once

#include <cstdint>

namespace gpu {

// Counts a call, and the bytes, threads or operations that it is about.
void count(const char* kind, const char* name, uint64_t amount);

}  // namespace gpu
