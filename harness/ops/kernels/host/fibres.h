// Blocks of a grid one after the other on one thread of the machine; the threads of a block are fibres that
// change at barriers. Blocks take their threads in turn from the last to the first and from the first to the
// last, so that an order which happens to work does not hide a barrier that is missing.
#pragma once

#include <csetjmp>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#include "types.h"

namespace host {

struct Barrier {
    unsigned expected = 0, arrived = 0, generation = 0;
    const char* kind = nullptr;
};

struct Warp {
    Barrier barrier;
    // What each lane shows to the others.
    alignas(16) unsigned char slots[32][64];
};

// A copy to shared memory that has been started.
struct Copy {
    void* to;
    const void* from;
};

struct Fibre {
    ucontext_t start;
    jmp_buf at;
    bool started = false, done = false;
    Barrier* barrier = nullptr;
    unsigned generation = 0;
    uint3 index;
    unsigned lane = 0;
    Warp* warp = nullptr;
    // Groups of copies, the last of them not yet closed.
    std::vector<std::vector<Copy>> copies{1};
};

struct Block {
    dim3 grid, dims;
    uint3 index;
    Barrier barrier;
    std::function<void()> body;
    std::vector<Fibre> fibres;
    std::vector<Warp> warps;
    unsigned char* shared = nullptr;
    jmp_buf scheduler;
    std::string error;
};

inline thread_local Block* block = nullptr;
inline thread_local Fibre* fibre = nullptr;
// Rows that a memory access of the last launch had to take one after the other for want of banks.
inline thread_local unsigned long long conflicts = 0;

[[gnu::noinline]] inline void give_way() {
    if (!_setjmp(fibre->at)) _longjmp(block->scheduler, 1);
}

// Ends the launch with an error.
[[noreturn, gnu::noinline]] inline void fail(const std::string& what) {
    char where[96];
    std::snprintf(where, sizeof where, " (block %u %u %u, thread %u %u %u)", block->index.x, block->index.y,
                  block->index.z, fibre->index.x, fibre->index.y, fibre->index.z);
    block->error = what + where;
    _longjmp(block->scheduler, 1);
}

inline void wait(Barrier& barrier, const char* kind) {
    if (barrier.arrived == 0) barrier.kind = kind;
    if (barrier.kind != kind && std::strcmp(barrier.kind, kind) != 0) {
        fail(std::string(kind) + " where others of the warp are at " + barrier.kind);
    }
    fibre->generation = barrier.generation;
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    fibre->barrier = &barrier;
    give_way();
    fibre->barrier = nullptr;
}

// Does all but the last `left` closed groups of copies.
inline void finish_copies(size_t left) {
    auto& groups = fibre->copies;
    while (groups.size() > left + 1) {
        for (const Copy& copy : groups.front()) {
            if (copy.from) std::memcpy(copy.to, copy.from, 16);
            else std::memset(copy.to, 0, 16);
        }
        groups.erase(groups.begin());
    }
}

inline void enter() {
    block->body();
    fibre->copies.emplace_back();
    finish_copies(0);
    fibre->done = true;
    _longjmp(block->scheduler, 1);
}

[[gnu::noinline]] inline void resume(Fibre* next) {
    fibre = next;
    if (_setjmp(block->scheduler)) return;
    if (next->started) _longjmp(next->at, 1);
    next->started = true;
    setcontext(&next->start);
}

// Runs the block's threads to their ends; the error is in `block->error`.
inline void run_block(unsigned char* stacks, size_t stack, bool backwards) {
    Block& b = *block;
    size_t threads = b.fibres.size();
    for (size_t i = 0; i < threads; ++i) {
        Fibre& f = b.fibres[i];
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stacks + i * stack;
        f.start.uc_stack.ss_size = stack;
        f.start.uc_link = nullptr;
        makecontext(&f.start, enter, 0);
    }
    for (bool left = true; left && b.error.empty();) {
        bool ran = false;
        left = false;
        for (size_t i = 0; i < threads && b.error.empty(); ++i) {
            Fibre& f = b.fibres[backwards ? threads - 1 - i : i];
            if (f.done) continue;
            left = true;
            if (f.barrier && f.barrier->generation == f.generation) continue;
            ran = true;
            resume(&f);
        }
        if (left && !ran) {
            for (Fibre& f : b.fibres) {
                if (f.done) continue;
                char what[128];
                std::snprintf(what, sizeof what, "thread %u %u %u waits in %s, where others do not come",
                              f.index.x, f.index.y, f.index.z, f.barrier->kind);
                b.error = what;
                break;
            }
        }
    }
}

// As cuLaunchKernel; null, or what went wrong.
template <class... A, size_t... I>
const char* launch(void (*kernel)(A...), std::index_sequence<I...>, unsigned cap, const unsigned* grid,
                   const unsigned* dims, unsigned shared, void** args) {
    constexpr size_t STACK = 128 << 10, GUARD = 256, MOST_SHARED = 227 << 10;
    static thread_local std::string error;
    static thread_local std::unique_ptr<unsigned char[]> stacks;
    static thread_local size_t stacked = 0;
    size_t threads = (size_t)dims[0] * dims[1] * dims[2];
    if (threads == 0 || threads > cap || shared > MOST_SHARED || grid[1] > 65535 || grid[2] > 65535) {
        return "the launch is larger than the kernel or a GPU allows";
    }
    if (stacked < threads) {
        stacks.reset(new unsigned char[threads * STACK]);
        stacked = threads;
    }
    std::vector<unsigned char> memory(shared + GUARD + 128);
    unsigned char* base = memory.data() + (128 - (uintptr_t)memory.data() % 128) % 128;
    error.clear();
    conflicts = 0;
    bool backwards = true;
    for (unsigned z = 0; z < grid[2]; ++z) for (unsigned y = 0; y < grid[1]; ++y)
    for (unsigned x = 0; x < grid[0]; ++x, backwards = !backwards) {
        std::memset(base, 0xff, shared + GUARD);
        Block b;
        b.grid = {grid[0], grid[1], grid[2]};
        b.dims = {dims[0], dims[1], dims[2]};
        b.index = {x, y, z};
        b.barrier.expected = (unsigned)threads;
        b.shared = base;
        b.body = [&] { kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...); };
        b.fibres = std::vector<Fibre>(threads);
        b.warps = std::vector<Warp>((threads + 31) / 32);
        for (size_t i = 0; i < threads; ++i) {
            Fibre& f = b.fibres[i];
            f.index = {unsigned(i % dims[0]), unsigned(i / dims[0] % dims[1]), unsigned(i / dims[0] / dims[1])};
            f.lane = i % 32;
            f.warp = &b.warps[i / 32];
            ++f.warp->barrier.expected;
        }
        block = &b;
        run_block(stacks.get(), STACK, backwards);
        block = nullptr;
        for (size_t i = 0; i < GUARD && b.error.empty(); ++i) {
            if (base[shared + i] != 0xff) b.error = "the kernel wrote past its dynamic shared memory";
        }
        if (!b.error.empty()) {
            error = b.error;
            return error.c_str();
        }
    }
    return nullptr;
}

}  // namespace host
