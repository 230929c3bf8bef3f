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
    using Line = std::pair<std::pair<std::string, std::string>, std::pair<uint64_t, uint64_t>>;
    std::map<std::pair<std::string, std::string>, std::pair<uint64_t, uint64_t>> lines;

    ~Report() {
        const char* path = std::getenv("EMULATED_GPU_REPORT");
        FILE* file = path ? std::fopen(path, "w") : nullptr;
        if (!file) return;
        std::vector<Line> sorted(lines.begin(), lines.end());
        std::stable_sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) {
            return a.first.first != b.first.first ? a.first.first < b.first.first
                                                  : a.second.first > b.second.first;
        });
        for (const auto& [name, counts] : sorted) {
            std::fprintf(file, "%-8s %-44s %10llu %16llu\n", name.first.c_str(), name.second.c_str(),
                         (unsigned long long)counts.first, (unsigned long long)counts.second);
        }
        std::fclose(file);
    }
};

}  // namespace

void count(const char* kind, const char* name, uint64_t amount) {
    static Report report;
    auto& [calls, sum] = report.lines[{kind, name}];
    ++calls;
    sum += amount;
}

}  // namespace gpu
