// What a program had the GPU do, counted: EMULATED_GPU_REPORT names the file that it is written to.
#pragma once

#include <chrono>
#include <cstdint>

namespace gpu {

// Counts a call, and the bytes, threads or operations that it is about.
void count(const char* kind, const char* name, uint64_t amount);
// Adds the time that emulating it took.
void spent(const char* kind, const char* name, double seconds);

// Adds the time from here to the end of a scope.
class Spent {
public:
    Spent(const char* kind, const char* name)
        : kind(kind), name(name), began(std::chrono::steady_clock::now()) {}
    ~Spent() { spent(kind, name, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count()); }

private:
    const char *kind, *name;
    std::chrono::steady_clock::time_point began;
};

}  // namespace gpu
