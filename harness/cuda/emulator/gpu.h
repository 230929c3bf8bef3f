// A GPU that is not there: memory, streams and events in this process's own memory.
//
// What is given to a stream runs late: nothing is done before something must wait for it, so that a host
// that reads, frees or writes over memory too early, and a stream that does not wait for another, are
// seen as wrong numbers. Every API call holds `mutex`.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <cuda.h>

// A function of a library, and what those begin with that touch the GPU's state.
#define EXPORTED(type) extern "C" __attribute__((visibility("default"))) type
#define LOCK std::lock_guard<std::recursive_mutex> held(gpu::mutex)

namespace gpu {

// Does a piece of work; null, or what went wrong with it.
using Work = std::function<const char*()>;

struct Stream {
    bool blocking = false;
    std::deque<Work> waiting;
    // It is running something: a wait that comes back to it would never end.
    bool running = false;
};

// The state that a stream records.
struct Event {
    Stream* stream = nullptr;
    uint64_t recorded = 0, reached = 0;
    double time = 0;
    bool timed = true;
    // Launches before the newest record.
    uint64_t launches = 0;
};

extern std::recursive_mutex mutex;
// Of kernels, so far.
extern uint64_t launches;

// What the environment asks for, see the guide.
struct Settings {
    int gpus, capability, driver;
    size_t memory;
    // `late`, `at-once` or a number: a random amount of work at each call, seeded by it.
    std::string order;
    // How many launches there are before the GPU is lost; 0 for no end.
    uint64_t launches;
};
const Settings& settings();

// The error that every call returns once the GPU is lost, or success.
CUresult lost();
// Says what a program did that no GPU would do for it, and loses the GPU.
void fault(const std::string& what);

// Gives work to a stream; null is the default stream, which waits for all blocking ones.
CUresult enqueue(Stream* stream, Work work);
// Does all that a stream was given.
CUresult drain(Stream* stream);
CUresult drain_blocking();
CUresult drain_all();
void made(Stream* stream);
// Does what is left and forgets the stream.
CUresult ended(Stream* stream);

CUresult record(Event* event, Stream* stream);
CUresult wait(Stream* stream, Event* event);
// Does what a stream was given until it records the event for the `state`th time.
CUresult reach(Event* event, Stream* stream, uint64_t state);

// Memory of the GPU, set to NaN; null if there is not enough.
void* allocate(size_t bytes);
// Whether there was such an allocation.
bool release(void* address);
size_t free_memory();
// Whether all these bytes are of one allocation.
bool holds(const void* address, size_t bytes);

// Memory of the host that is page-locked, so that copies from and to it do not wait.
void* lock_pages(size_t bytes);
bool unlock_pages(void* address);
bool locked(const void* address);

}  // namespace gpu
