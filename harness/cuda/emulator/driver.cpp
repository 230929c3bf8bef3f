// The driver's functions, as far as the program calls them.
#include "gpu.h"
#include "kernels.h"
#include "report.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include <dlfcn.h>

using gpu::count;
using gpu::settings;

#define API EXPORTED(CUresult)
// What every function that works on a GPU begins with.
#define ON_A_GPU                                                   \
    LOCK;                                                          \
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;               \
    if (CUresult error = gpu::lost()) return error

namespace {

thread_local CUcontext current = nullptr;

struct Module {
    bool ours;
    std::string text;
};

struct Function {
    std::string name;
    const gpu::Kernel* kernel;
    int shared = 48 << 10;
};

gpu::Stream* stream_of(CUstream stream) { return reinterpret_cast<gpu::Stream*>(stream); }
gpu::Event* event_of(CUevent event) { return reinterpret_cast<gpu::Event*>(event); }

// The contexts of the GPUs, which are told apart by their addresses.
char contexts[64];

// Copies; of addresses of the GPU one or both may be freed by then.
const char* copy(void* to, const void* from, size_t bytes, const void* there, const void* too = nullptr) {
    if (!gpu::holds(there, bytes) || (too && !gpu::holds(too, bytes))) return "a copy from or to freed memory";
    std::memcpy(to, from, bytes);
    return nullptr;
}

const char* fill(void* to, unsigned char value, size_t bytes) {
    if (!gpu::holds(to, bytes)) return "freed memory is set";
    std::memset(to, value, bytes);
    return nullptr;
}

// Whether code of this binary runs on the GPU. A binary is a header and entries of PTX or machine code.
bool has_code(const unsigned char* binary) {
    auto read = [](const unsigned char* at, auto value) {
        std::memcpy(&value, at, sizeof value);
        return value;
    };
    size_t header = read(binary + 6, uint16_t{}), left = read(binary + 8, uint64_t{});
    for (const unsigned char* entry = binary + header; left > 0;) {
        unsigned kind = read(entry, uint16_t{}), arch = read(entry + 28, uint32_t{});
        size_t bytes = read(entry + 4, uint32_t{}) + read(entry + 8, uint64_t{});
        unsigned capability = settings().capability;
        if (kind == 1 ? arch <= capability : arch / 10 == capability / 10 && arch <= capability) return true;
        if (bytes > left) return false;
        left -= bytes;
        entry += bytes;
    }
    return false;
}

// Gives work to a stream and, if it must be done before the call returns, does it.
CUresult give(CUstream stream, gpu::Work work, bool now) {
    if (CUresult error = gpu::enqueue(stream_of(stream), std::move(work))) return error;
    return now && stream ? gpu::drain(stream_of(stream)) : gpu::lost();
}

}  // namespace

static void load_kernels();

API cuInit(unsigned) {
    static std::once_flag once;
    std::call_once(once, load_kernels);
    return settings().gpus > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
API cuDriverGetVersion(int* version) { *version = settings().driver; return CUDA_SUCCESS; }
API cuDeviceGetCount(int* count) { *count = settings().gpus; return CUDA_SUCCESS; }
API cuDeviceGet(CUdevice* device, int index) {
    if (index < 0 || index >= settings().gpus) return CUDA_ERROR_INVALID_DEVICE;
    *device = index;
    return CUDA_SUCCESS;
}
API cuDeviceGetName(char* name, int room, CUdevice) {
    std::snprintf(name, room, "Emulated GPU");
    return CUDA_SUCCESS;
}
API cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
    std::memset(uuid, 0, sizeof *uuid);
    uuid->bytes[15] = (char)device;
    return CUDA_SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { *bytes = settings().memory; return CUDA_SUCCESS; }
API cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = settings().capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = settings().capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 << 10; break;
    default:
        std::fprintf(stderr, "emulated GPU: attribute %d is not known\n", (int)attribute);
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    *context = reinterpret_cast<CUcontext>(&contexts[device]);
    return CUDA_SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
API cuCtxSetCurrent(CUcontext context) { current = context; return CUDA_SUCCESS; }
API cuCtxGetCurrent(CUcontext* context) { *context = current; return CUDA_SUCCESS; }
API cuCtxSynchronize() {
    ON_A_GPU;
    count("wait", "cuCtxSynchronize", 0);
    return gpu::drain_all();
}
API cuGetErrorName(CUresult error, const char** text) {
    switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *text = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case CUDA_ERROR_INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
    default: *text = "CUDA_ERROR_OF_THE_EMULATED_GPU";
    }
    return CUDA_SUCCESS;
}
API cuGetErrorString(CUresult error, const char** text) {
    switch (error) {
    case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
    case CUDA_ERROR_LAUNCH_FAILED: *text = "unspecified launch failure"; break;
    case CUDA_ERROR_INVALID_VALUE: *text = "invalid argument"; break;
    default: *text = "an error";
    }
    return CUDA_SUCCESS;
}

// Streams and events.

API cuStreamCreate(CUstream* made, unsigned flags) {
    ON_A_GPU;
    auto* stream = new gpu::Stream;
    stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
    gpu::made(stream);
    *made = reinterpret_cast<CUstream>(stream);
    return CUDA_SUCCESS;
}
API cuStreamDestroy_v2(CUstream stream) {
    ON_A_GPU;
    CUresult result = gpu::ended(stream_of(stream));
    delete stream_of(stream);
    return result;
}
API cuStreamSynchronize(CUstream stream) {
    ON_A_GPU;
    count("wait", "cuStreamSynchronize", 0);
    return stream ? gpu::drain(stream_of(stream)) : gpu::drain_blocking();
}
API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    ON_A_GPU;
    return gpu::wait(stream_of(stream), event_of(event));
}
API cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* status) {
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}
API cuEventCreate(CUevent* made, unsigned flags) {
    ON_A_GPU;
    auto* event = new gpu::Event;
    event->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    *made = reinterpret_cast<CUevent>(event);
    return CUDA_SUCCESS;
}
// Work that waits may still name the event: it is kept.
API cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
API cuEventRecord(CUevent event, CUstream stream) {
    ON_A_GPU;
    return gpu::record(event_of(event), stream_of(stream));
}
API cuEventSynchronize(CUevent event) {
    ON_A_GPU;
    gpu::Event& to = *event_of(event);
    // What was launched since goes on beside the host; where nothing was, the GPU has nothing to do meanwhile.
    bool idle = to.reached < to.recorded && to.launches == gpu::launches;
    count(idle ? "wait" : "event", "cuEventSynchronize", 0);
    return gpu::reach(&to, to.stream, to.recorded);
}
API cuEventQuery(CUevent event) {
    ON_A_GPU;
    if (event_of(event)->reached == event_of(event)->recorded) return CUDA_SUCCESS;
    // The next one may find it done.
    CUresult error = gpu::reach(event_of(event), event_of(event)->stream, event_of(event)->recorded);
    return error ? error : CUDA_ERROR_NOT_READY;
}
#undef cuEventElapsedTime
API cuEventElapsedTime_v2(float* milliseconds, CUevent from, CUevent to) {
    ON_A_GPU;
    const gpu::Event &a = *event_of(from), &b = *event_of(to);
    if (!a.timed || !b.timed || !a.recorded || !b.recorded) return CUDA_ERROR_INVALID_HANDLE;
    if (a.reached < a.recorded || b.reached < b.recorded) return CUDA_ERROR_NOT_READY;
    *milliseconds = (float)((b.time - a.time) * 1e3);
    return CUDA_SUCCESS;
}

// Its name before CUDA 13.
API cuEventElapsedTime(float* milliseconds, CUevent from, CUevent to) {
    return cuEventElapsedTime_v2(milliseconds, from, to);
}

// Memory.

static CUresult allocated(CUdeviceptr* address, size_t bytes) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    void* memory = gpu::allocate(bytes);
    if (!memory) {
        // What is freed comes back once the streams are there.
        if (CUresult error = gpu::drain_all()) return error;
        memory = gpu::allocate(bytes);
    }
    if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = (CUdeviceptr)memory;
    return CUDA_SUCCESS;
}
static const char* released(CUdeviceptr address) {
    return gpu::release((void*)address) ? nullptr : "something was freed that is no allocation";
}
// The memory is the stream's: what another one writes there before this one's turn is lost.
API cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
    ON_A_GPU;
    count("memory", "cuMemAllocAsync", bytes);
    if (CUresult error = allocated(address, bytes)) return error;
    void* memory = (void*)*address;
    return give(stream, [=] { return fill(memory, 0xff, bytes); }, false);
}
API cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
    ON_A_GPU;
    count("wait", "cuMemAlloc", bytes);
    return allocated(address, bytes);
}
API cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
    ON_A_GPU;
    return give(stream, [=] { return released(address); }, false);
}
API cuMemFree_v2(CUdeviceptr address) {
    ON_A_GPU;
    count("wait", "cuMemFree", 0);
    if (CUresult error = gpu::drain_all()) return error;
    return gpu::release((void*)address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
API cuMemGetInfo_v2(size_t* left, size_t* total) {
    ON_A_GPU;
    if (CUresult error = gpu::drain_all()) return error;
    *left = gpu::free_memory();
    *total = settings().memory;
    return CUDA_SUCCESS;
}
API cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    ON_A_GPU;
    count("wait", "cuMemHostAlloc", bytes);
    *address = gpu::lock_pages(bytes);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
API cuMemFreeHost(void* address) {
    ON_A_GPU;
    count("wait", "cuMemFreeHost", 0);
    if (CUresult error = gpu::drain_all()) return error;
    return gpu::unlock_pages(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
// One pool for each GPU, which never gives anything back.
API cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
    *pool = reinterpret_cast<CUmemoryPool>(&contexts[device]);
    return CUDA_SUCCESS;
}
API cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; }
API cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }

// Copies. From and to pageable memory of the host they are done when the call returns.

API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    ON_A_GPU;
    if (!gpu::holds((void*)to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    if (gpu::locked(from)) {
        count("copy", "to the GPU, page-locked", bytes);
        return give(stream, [=] { return copy((void*)to, from, bytes, (void*)to); }, false);
    }
    count("copy", "to the GPU, pageable", bytes);
    auto start = static_cast<const char*>(from);
    std::vector<char> kept(start, start + bytes);
    return give(stream, [=] { return copy((void*)to, kept.data(), bytes, (void*)to); }, false);
}
API cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
    ON_A_GPU;
    count("wait", "cuMemcpyHtoD", bytes);
    if (!gpu::holds((void*)to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return give(nullptr, [=] { return copy((void*)to, from, bytes, (void*)to); }, true);
}
API cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ON_A_GPU;
    if (!gpu::holds((void*)from, bytes)) return CUDA_ERROR_INVALID_VALUE;
    bool now = !gpu::locked(to);
    count(now ? "wait" : "copy", now ? "to the host, pageable" : "to the host, page-locked", bytes);
    return give(stream, [=] { return copy(to, (void*)from, bytes, (void*)from); }, now);
}
API cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
    ON_A_GPU;
    count("wait", "cuMemcpyDtoH", bytes);
    if (!gpu::holds((void*)from, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return give(nullptr, [=] { return copy(to, (void*)from, bytes, (void*)from); }, true);
}
API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ON_A_GPU;
    count("copy", "on the GPU", bytes);
    if (!gpu::holds((void*)to, bytes) || !gpu::holds((void*)from, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return give(stream, [=] { return copy((void*)to, (void*)from, bytes, (void*)to, (void*)from); }, false);
}
API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ON_A_GPU;
    count("memory", "cuMemsetD8Async", bytes);
    if (!gpu::holds((void*)to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return give(stream, [=] { return fill((void*)to, value, bytes); }, false);
}

// Kernels. Ours come as binaries, candle's as PTX.

API cuModuleLoadData(CUmodule* made, const void* image) {
    ON_A_GPU;
    uint32_t magic;
    std::memcpy(&magic, image, 4);
    bool ours = magic == 0xba55ed50;
    auto* module = new Module{ours, ours ? "" : static_cast<const char*>(image)};
    bool runs;
    if (ours) {
        runs = has_code(static_cast<const unsigned char*>(image));
    } else {
        size_t target = module->text.find(".target sm_");
        if (target == std::string::npos) return CUDA_ERROR_INVALID_IMAGE;
        runs = std::atoi(module->text.c_str() + target + 11) <= settings().capability;
    }
    if (!runs) return CUDA_ERROR_NO_BINARY_FOR_GPU;
    *made = reinterpret_cast<CUmodule>(module);
    return CUDA_SUCCESS;
}
API cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
API cuModuleGetFunction(CUfunction* made, CUmodule in, const char* name) {
    ON_A_GPU;
    const auto& module = *reinterpret_cast<Module*>(in);
    const auto& all = gpu::kernels(module.ours);
    auto found = all.find(name);
    const gpu::Kernel* kernel = found == all.end() ? nullptr : &found->second;
    bool there = module.ours ? kernel != nullptr
                             : module.text.find(std::string(".entry ") + name + "(") != std::string::npos;
    if (!there) return CUDA_ERROR_NOT_FOUND;
    *made = reinterpret_cast<CUfunction>(new Function{name, kernel});
    return CUDA_SUCCESS;
}
API cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    ON_A_GPU;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_ERROR_INVALID_VALUE;
    if (value > 227 << 10) return CUDA_ERROR_INVALID_VALUE;
    reinterpret_cast<Function*>(function)->shared = value;
    return CUDA_SUCCESS;
}
API cuLaunchKernel(CUfunction launched, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, CUstream stream, void** arguments, void**) {
    ON_A_GPU;
    if (++gpu::launches == settings().launches) {
        // Nobody hears of it before something waits.
        return give(stream, []() -> const char* { return "the GPU is lost, as was asked for"; }, false);
    }
    const auto& function = *reinterpret_cast<Function*>(launched);
    count("kernel", function.name.c_str(), (uint64_t)gx * gy * gz * bx * by * bz);
    bool fits = gx && gy && gz && bx && by && bz && gx < 1u << 31 && gy < 1u << 16 && gz < 1u << 16 &&
                (uint64_t)bx * by * bz <= 1024 && (int)shared <= function.shared;
    if (!fits) return CUDA_ERROR_INVALID_VALUE;
    if (!function.kernel) {
        gpu::fault("candle's kernel " + function.name + " is not emulated");
        return gpu::lost();
    }
    std::vector<std::vector<unsigned char>> kept;
    for (size_t i = 0; i < function.kernel->arguments.size(); ++i) {
        auto from = static_cast<unsigned char*>(arguments[i]);
        kept.emplace_back(from, from + function.kernel->arguments[i]);
    }
    auto work = [=, name = function.name, kernel = function.kernel]() mutable -> const char* {
        gpu::Spent time("kernel", name.c_str());
        std::vector<void*> addresses;
        for (auto& argument : kept) addresses.push_back(argument.data());
        unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
        const char* error = kernel->run(grid, block, shared, addresses.data());
        if (!error) return nullptr;
        static std::string text;
        text = name + ": " + error;
        return text.c_str();
    };
    return give(stream, std::move(work), false);
}

// Opens the libraries of kernels, which lie beside this one.
static void load_kernels() {
    Dl_info here;
    if (!dladdr((void*)&load_kernels, &here)) return;
    auto folder = std::filesystem::path(here.dli_fname).parent_path() / "kernels";
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
        if (!dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL)) gpu::fault(dlerror());
    }
}

std::map<std::string, gpu::Kernel>& gpu::kernels(bool ours) {
    static std::map<std::string, Kernel> all[2];
    return all[ours];
}

// The runtime: candle's objects announce kernels when the program starts, and nobody launches them.

EXPORTED(void**) __cudaRegisterFatBinary(void*) { static void* handle; return &handle; }
EXPORTED(void) __cudaRegisterFatBinaryEnd(void**) {}
EXPORTED(void) __cudaUnregisterFatBinary(void**) {}
EXPORTED(void) __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
EXPORTED(void) __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
