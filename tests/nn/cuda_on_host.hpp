// Enough of CUDA to run a kernel on the processor: a block's threads are coroutines that take turns at every barrier.
// A warp runs on until all of its threads stand at a barrier of the whole block, so that what only other warps'
// slowness would bring into order goes wrong; every other block begins with its last warp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define ON_HOST 1

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __uint_as_float(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
inline void sincospif(float x, float* s, float* c) {
    *s = (float)std::sin(3.14159265358979323846 * x);
    *c = (float)std::cos(3.14159265358979323846 * x);
}

static dim3 threadIdx, blockIdx, blockDim, gridDim;
float4 memory[16384];  // of a block: what kernels call shared

namespace host {
enum Standing { RUNS, AT_WARP, AT_BLOCK, DONE };
struct Thread { ucontext_t context; std::vector<char> stack; Standing standing; };
static std::vector<Thread> threads;
static ucontext_t scheduler;
static unsigned current;
static float lanes[32];  // what a warp's threads show each other
static void (*body)(void*);
static void* argument;
inline void stand(Standing how) {
    threads[current].standing = how;
    swapcontext(&threads[current].context, &scheduler);
}
inline void enter() { body(argument); stand(DONE); }
// Lets a warp run until all its threads stand at the same kind of barrier. Returns 1 if they part.
inline int together(unsigned first, unsigned last) {
    for (current = first; current < last; current++)
        if (threads[current].standing != DONE) {
            threads[current].standing = RUNS;
            threadIdx.x = current;
            swapcontext(&scheduler, &threads[current].context);
        }
    for (unsigned t = first; t < last; t++)
        if (threads[t].standing != threads[first].standing) return 1;
    return 0;
}
// Returns 1 if threads part at a barrier.
inline int block(unsigned count, bool backwards) {
    if (threads.size() < count) threads.resize(count);
    for (unsigned t = 0; t < count; t++) {
        Thread& thread = threads[t];
        if (thread.stack.empty()) thread.stack.resize(1 << 17);
        thread.standing = RUNS;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, enter, 0);
    }
    const unsigned warps = (count + 31) / 32;
    do {
        for (unsigned n = 0; n < warps; n++) {
            unsigned first = (backwards ? warps - 1 - n : n) * 32, last = std::min(first + 32, count);
            do
                if (together(first, last)) return 1;
            while (threads[first].standing == AT_WARP);
        }
        for (unsigned n = 1; n < warps; n++)
            if (threads[n * 32].standing != threads[0].standing) return 1;
    } while (threads[0].standing != DONE);
    return 0;
}
template <class... A, size_t... I> void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*(A*)args[I]...);
}
template <class... A> int launch(void (*kernel)(A...), unsigned gx, unsigned gy, unsigned count, void** args) {
    struct Call { void (*kernel)(A...); void** args; } made{kernel, args};
    body = [](void* p) { Call* c = (Call*)p; call(c->kernel, c->args, std::index_sequence_for<A...>{}); };
    argument = &made;
    gridDim = {gx, gy, 1};
    blockDim = {count, 1, 1};
    for (blockIdx.y = 0; blockIdx.y < gy; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < gx; blockIdx.x++) {
            for (float4& x : memory) x = {NAN, NAN, NAN, NAN};  // nothing may count on what was there
            if (block(count, blockIdx.x % 2)) return 1;
        }
    return 0;
}
}  // namespace host
inline void __syncthreads() { host::stand(host::AT_BLOCK); }
inline void __syncwarp() { host::stand(host::AT_WARP); }
inline float __shfl_down_sync(unsigned, float x, unsigned by) {
    const unsigned lane = threadIdx.x % 32;
    host::lanes[lane] = x;
    __syncwarp();
    x = host::lanes[lane + by < 32 ? lane + by : lane];
    __syncwarp();
    return x;
}
#define LAUNCH(name)                                                                          \
    extern "C" int launch_##name(unsigned gx, unsigned gy, unsigned threads, void** args) {   \
        return host::launch(name, gx, gy, threads, args);                                     \
    }
