// The kernels there are, compiled for this machine's processor.
#pragma once

#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace gpu {

struct Kernel {
    // As cuLaunchKernel; null, or what went wrong.
    const char* (*run)(const unsigned* grid, const unsigned* dims, unsigned shared, void** args);
    // Bytes of each argument.
    std::vector<size_t> arguments;
};

// By name: ours, or candle's.
__attribute__((visibility("default"))) std::map<std::string, Kernel>& kernels(bool ours);

// Puts a kernel there when its library is opened.
struct Registered {
    template <class... A>
    Registered(bool ours, const char* name, void (*)(A...),
               const char* (*run)(const unsigned*, const unsigned*, unsigned, void**)) {
        kernels(ours)[name] = {run, {sizeof(std::remove_cv_t<A>)...}};
    }
};

}  // namespace gpu
