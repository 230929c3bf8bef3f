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
    // What each lane shows to the others, in exchanges of even and odd number.
    alignas(16) unsigned char slots[2][32][64];
};

// A copy to shared memory that has been started.
struct Copy {
    void* to;
    const void* from;
};

// A thread of a block.
struct Fibre {
    jmp_buf at;
    bool done = false;
    Barrier* barrier = nullptr;
    unsigned generation = 0;
    uint3 index;
    unsigned lane = 0;
    Warp* warp = nullptr;
    // Groups of copies, the last of them not yet closed.
    std::vector<std::vector<Copy>> copies;

    std::vector<Copy>& open_copies() {
        if (copies.empty()) copies.emplace_back();
        return copies.back();
    }
};

// What threads run on: one after the other, until one waits and keeps it.
struct Stack {
    static constexpr size_t BYTES = 128 << 10;
    std::unique_ptr<unsigned char[]> memory{new unsigned char[BYTES]};
    jmp_buf idle;
    bool started = false;
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
    // Threads that have begun, in the order of this block.
    size_t begun = 0;
    bool backwards = false;

    Fibre& in_turn(size_t i) { return fibres[backwards ? fibres.size() - 1 - i : i]; }
};

// The stacks of a thread of the machine, and which of them nobody keeps.
struct Stacks {
    std::vector<std::unique_ptr<Stack>> all;
    std::vector<Stack*> idle;
    Stack* starting = nullptr;
};

inline thread_local Block* block = nullptr;
inline thread_local Fibre* fibre = nullptr;
inline thread_local Stacks stacks;
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

// The rest of a block's threads, for as long as none of them waits.
[[gnu::noinline]] inline void run_threads() {
    while (block->begun < block->fibres.size()) {
        fibre = &block->in_turn(block->begun++);
        block->body();
        if (!fibre->copies.empty()) {
            fibre->copies.emplace_back();
            finish_copies(0);
        }
        fibre->done = true;
    }
}

inline void enter() {
    Stack* const mine = stacks.starting;
    for (;;) {
        run_threads();
        stacks.idle.push_back(mine);
        if (!_setjmp(mine->idle)) _longjmp(block->scheduler, 1);
    }
}

// Goes on with a thread that waited, or begins the next ones on a stack that is free.
[[gnu::noinline]] inline void resume(Fibre* waiting) {
    if (_setjmp(block->scheduler)) return;
    if (waiting) {
        fibre = waiting;
        _longjmp(waiting->at, 1);
    }
    if (stacks.idle.empty()) {
        stacks.all.emplace_back(new Stack);
        stacks.idle.push_back(stacks.all.back().get());
    }
    Stack* free = stacks.idle.back();
    stacks.idle.pop_back();
    if (free->started) _longjmp(free->idle, 1);
    free->started = true;
    stacks.starting = free;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = free->memory.get();
    start.uc_stack.ss_size = Stack::BYTES;
    start.uc_link = nullptr;
    makecontext(&start, enter, 0);
    setcontext(&start);
}

// Runs the block's threads to their ends; the error is in `block->error`.
inline void run_block() {
    Block& b = *block;
    size_t threads = b.fibres.size();
    while (b.begun < threads && b.error.empty()) resume(nullptr);
    for (bool left = true; left && b.error.empty();) {
        bool ran = false;
        left = false;
        for (size_t i = 0; i < threads && b.error.empty(); ++i) {
            Fibre& f = b.in_turn(i);
            if (f.done) continue;
            left = true;
            if (f.barrier && f.barrier->generation == f.generation) continue;
            ran = true;
            resume(&f);
        }
        if (left && !ran && b.error.empty()) {
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
    // Threads in the middle of something keep their stacks.
    if (!b.error.empty()) stacks = {};
}

// As cuLaunchKernel; null, or what went wrong.
template <class... A, size_t... I>
const char* launch(void (*kernel)(A...), std::index_sequence<I...>, unsigned cap, const unsigned* grid,
                   const unsigned* dims, unsigned shared, void** args) {
    constexpr size_t GUARD = 256, MOST_SHARED = 227 << 10;
    static thread_local std::string error;
    size_t threads = (size_t)dims[0] * dims[1] * dims[2];
    if (threads == 0 || threads > cap || shared > MOST_SHARED || grid[1] > 65535 || grid[2] > 65535) {
        return "the launch is larger than the kernel or a GPU allows";
    }
    std::vector<unsigned char> memory(shared + GUARD + 128);
    unsigned char* base = memory.data() + (128 - (uintptr_t)memory.data() % 128) % 128;
    error.clear();
    conflicts = 0;
    bool backwards = true;
    Block b;
    b.grid = {grid[0], grid[1], grid[2]};
    b.dims = {dims[0], dims[1], dims[2]};
    b.shared = base;
    b.body = [&] { kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...); };
    b.fibres = std::vector<Fibre>(threads);
    b.warps = std::vector<Warp>((threads + 31) / 32);
    for (size_t i = 0; i < threads; ++i) {
        Fibre& f = b.fibres[i];
        f.index = {unsigned(i % dims[0]), unsigned(i / dims[0] % dims[1]), unsigned(i / dims[0] / dims[1])};
        f.lane = i % 32;
        f.warp = &b.warps[i / 32];
    }
    for (unsigned z = 0; z < grid[2]; ++z) for (unsigned y = 0; y < grid[1]; ++y)
    for (unsigned x = 0; x < grid[0]; ++x, backwards = !backwards) {
        std::memset(base, 0xff, shared + GUARD);
        b.index = {x, y, z};
        b.barrier = {(unsigned)threads};
        b.begun = 0;
        b.backwards = backwards;
        for (Warp& warp : b.warps) warp.barrier = {};
        for (size_t i = 0; i < threads; ++i) {
            Fibre& f = b.fibres[i];
            f.done = false;
            f.barrier = nullptr;
            f.copies.clear();
            ++f.warp->barrier.expected;
        }
        block = &b;
        run_block();
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
