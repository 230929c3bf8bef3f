#include "gpu.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

namespace gpu {

namespace {

// Bytes on either side of an allocation that must stay as they are.
constexpr size_t GUARD = 256;
// NaN in every type, as is what was never written, and told from that.
constexpr unsigned char GUARDED[4] = {0xfe, 0xff, 0xfe, 0xff};
// Freed memory that nobody gets: who still reads it finds NaN.
constexpr size_t MOST_RETIRED = 256 << 20;
// Work that may wait: memory that is freed comes back only when its turn comes.
constexpr size_t MOST_WAITING = 2048;

struct Ranges {
    std::map<uintptr_t, size_t> sizes;
    size_t total = 0;

    bool hold(const void* address, size_t bytes) const {
        auto at = (uintptr_t)address;
        auto next = sizes.upper_bound(at);
        if (next == sizes.begin()) return false;
        --next;
        return at + bytes <= next->first + next->second;
    }
};

Ranges device, host;
std::set<Stream*> streams;
bool gone = false;
std::mt19937 dice;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t number(const char* name, size_t otherwise) {
    const char* text = std::getenv(name);
    return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

CUresult one(Stream* stream) {
    if (stream->running) {
        fault("a stream waits for itself");
        return lost();
    }
    Work work = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    stream->running = true;
    const char* error = work();
    stream->running = false;
    if (error) fault(error);
    return lost();
}

void set_guard(unsigned char* start, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) start[i] = GUARDED[(uintptr_t)(start + i) % 4];
}

bool intact(const unsigned char* start) {
    for (size_t i = 0; i < GUARD; ++i) if (start[i] != GUARDED[(uintptr_t)(start + i) % 4]) return false;
    return true;
}

void check(uintptr_t address, size_t bytes) {
    auto start = (const unsigned char*)address;
    if (intact(start - GUARD) && intact(start + bytes)) return;
    char what[96];
    std::snprintf(what, sizeof what, "something was written past an allocation of %zu bytes", bytes);
    fault(what);
}

// Allocations that live as long as the program.
struct AtExit {
    ~AtExit() {
        for (const auto& [address, bytes] : device.sizes) check(address, bytes);
    }
} at_exit;

std::deque<std::pair<unsigned char*, size_t>> retired;
size_t retired_bytes = 0;

}  // namespace

std::recursive_mutex mutex;
uint64_t launches = 0;

const Settings& settings() {
    static const Settings found = [] {
        const char* order = std::getenv("EMULATED_GPU_ORDER");
        Settings s{(int)number("EMULATED_GPUS", 1), (int)number("EMULATED_GPU_CAPABILITY", 90),
                   (int)number("EMULATED_GPU_DRIVER", CUDA_VERSION), number("EMULATED_GPU_MEMORY_MB", 4096) << 20,
                   order ? order : "late", number("EMULATED_GPU_LAUNCHES", 0)};
        dice.seed((unsigned)std::strtoul(s.order.c_str(), nullptr, 10));
        return s;
    }();
    return found;
}

CUresult lost() { return gone ? CUDA_ERROR_LAUNCH_FAILED : CUDA_SUCCESS; }

void fault(const std::string& what) {
    if (!gone) std::fprintf(stderr, "emulated GPU: %s\n", what.c_str());
    gone = true;
}

CUresult drain(Stream* stream) {
    CUresult result = lost();
    while (!stream->waiting.empty() && result == CUDA_SUCCESS) result = one(stream);
    return result;
}

CUresult drain_blocking() {
    for (Stream* stream : streams) {
        if (stream->blocking) if (CUresult error = drain(stream)) return error;
    }
    return lost();
}

CUresult drain_all() {
    for (Stream* stream : streams) if (CUresult error = drain(stream)) return error;
    return lost();
}

CUresult enqueue(Stream* stream, Work work) {
    if (CUresult error = lost()) return error;
    if (!stream) {
        if (CUresult error = drain_blocking()) return error;
        if (const char* error = work()) fault(error);
        return lost();
    }
    stream->waiting.push_back(std::move(work));
    const std::string& order = settings().order;
    if (order == "at-once" || stream->waiting.size() > MOST_WAITING) return drain(stream);
    if (order == "late") return CUDA_SUCCESS;
    for (Stream* any : streams) {
        for (unsigned left = dice() % 4; left > 0 && !any->waiting.empty() && !any->running; --left) {
            if (CUresult error = one(any)) return error;
        }
    }
    return CUDA_SUCCESS;
}

void made(Stream* stream) { streams.insert(stream); }

CUresult ended(Stream* stream) {
    CUresult result = drain(stream);
    streams.erase(stream);
    return result;
}

CUresult record(Event* event, Stream* stream) {
    uint64_t state = ++event->recorded;
    event->launches = launches;
    event->stream = stream;
    return enqueue(stream, [=] {
        event->reached = std::max(event->reached, state);
        event->time = now();
        return nullptr;
    });
}

CUresult reach(Event* event, Stream* stream, uint64_t state) {
    while (event->reached < state) {
        if (!stream || !streams.count(stream) || stream->waiting.empty()) return lost();
        if (CUresult error = one(stream)) return error;
    }
    return lost();
}

CUresult wait(Stream* stream, Event* event) {
    uint64_t state = event->recorded;
    Stream* recorded = event->stream;
    if (recorded == stream) return lost();
    return enqueue(stream, [=]() -> const char* {
        reach(event, recorded, state);
        return nullptr;
    });
}

void* allocate(size_t bytes) {
    if (device.total + bytes > settings().memory) return nullptr;
    size_t room = (bytes + 255) / 256 * 256;
    auto start = static_cast<unsigned char*>(std::aligned_alloc(256, room + 2 * GUARD));
    if (!start) return nullptr;
    set_guard(start, GUARD);
    set_guard(start + GUARD + bytes, room - bytes + GUARD);
    std::memset(start + GUARD, 0xff, bytes);
    device.sizes[(uintptr_t)start + GUARD] = bytes;
    device.total += bytes;
    return start + GUARD;
}

bool release(void* address) {
    auto found = device.sizes.find((uintptr_t)address);
    if (found == device.sizes.end()) return false;
    size_t bytes = found->second;
    check((uintptr_t)address, bytes);
    std::memset(address, 0xff, bytes);
    device.total -= bytes;
    device.sizes.erase(found);
    retired.emplace_back(static_cast<unsigned char*>(address) - GUARD, bytes);
    retired_bytes += bytes;
    while (retired_bytes > MOST_RETIRED) {
        auto [start, size] = retired.front();
        retired.pop_front();
        retired_bytes -= size;
        std::free(start);
    }
    return true;
}

size_t free_memory() { return settings().memory - device.total; }

bool holds(const void* address, size_t bytes) { return device.hold(address, bytes); }

void* lock_pages(size_t bytes) {
    void* address = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!address) return nullptr;
    std::memset(address, 0xff, bytes);
    host.sizes[(uintptr_t)address] = bytes;
    return address;
}

bool unlock_pages(void* address) {
    if (!host.sizes.erase((uintptr_t)address)) return false;
    std::free(address);
    return true;
}

bool locked(const void* address) { return host.hold(address, 1); }

}  // namespace gpu
