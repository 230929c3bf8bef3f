#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace gpu {

namespace {

struct Report {
    struct Counts {
        uint64_t calls = 0, amount = 0;
        double seconds = 0;
    };
    using Name = std::pair<std::string, std::string>;
    using Line = std::pair<Name, Counts>;
    std::map<Name, Counts> lines;

    ~Report() {
        const char* path = std::getenv("EMULATED_GPU_REPORT");
        FILE* file = path ? std::fopen(path, "w") : nullptr;
        if (!file) return;
        std::vector<Line> sorted(lines.begin(), lines.end());
        std::stable_sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) {
            return a.first.first != b.first.first ? a.first.first < b.first.first
                                                  : a.second.calls > b.second.calls;
        });
        for (const auto& [name, counts] : sorted) {
            std::fprintf(file, "%-8s %-56s %10llu %16llu %8.3f s\n", name.first.c_str(), name.second.c_str(),
                         (unsigned long long)counts.calls, (unsigned long long)counts.amount, counts.seconds);
        }
        std::fclose(file);
    }
};

}  // namespace

static Report& report() {
    static Report all;
    return all;
}

void count(const char* kind, const char* name, uint64_t amount) {
    Report::Counts& counts = report().lines[{kind, name}];
    ++counts.calls;
    counts.amount += amount;
}

void spent(const char* kind, const char* name, double seconds) { report().lines[{kind, name}].seconds += seconds; }

}  // namespace gpu
