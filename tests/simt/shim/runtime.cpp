// The runtime library: the functions of runtime_api.h, and the launch that Python calls.
#include <stdarg.h>
#include <stdio.h>

#include "runtime_api.h"

#include "block.h"

extern "C" {
// In programs these are const. They are set for each thread before it runs.
SIMT_EXPORT uint3 threadIdx, blockIdx;
SIMT_EXPORT dim3 blockDim, gridDim;
}

namespace simt {

static Launch* current_launch = nullptr;

void enter_thread(CudaThread& thread) { threadIdx = thread.index; }

void thread_entry() {
    current_thread->fiber->entered();
    acquire(&launch_token);
    current_launch->kernel(current_launch->arguments);
    release(&finish_token);
    current_thread->state = State::exited;
    current_thread->fiber->finish();
}

void fail(const char* format, ...) {
    if (!current_thread) {
        fputs("simt: a device function was called outside a kernel\n", stderr);
        abort();
    }
    {
        IgnoreAccesses ignore;
        char message[400];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(message, sizeof message, format, arguments);
        va_end(arguments);
        error = "block " + text(blockIdx) + " thread " + text(threadIdx) + ": " + message;
    }
    current_thread->fiber->finish();
}

// ---------------------------------------------------------------- called by kernels

void barrier(int line) { current_block->barrier(*current_thread, line); }

int lane() { return current_thread->number % 32; }

unsigned live_lanes() { return current_block->warp_of(*current_thread).live_lanes; }

static const Exchange& meet(unsigned mask, unsigned long long value, const char* what, int line) {
    return current_block->meet(*current_thread, mask, value, what, line, false);
}

unsigned long long shuffle(unsigned mask, unsigned long long bits, int source_lane,
                           const char* what, int line) {
    const Exchange& exchange = meet(mask, bits, what, line);
    if (!(mask >> source_lane & 1))
        fail("%s at line %d reads lane %d, which mask %08x does not name", what, line, source_lane,
             mask);
    if (!(exchange.came >> source_lane & 1))
        fail("%s at line %d reads lane %d, which has exited or is past the end of the block", what,
             line, source_lane);
    return exchange.value[source_lane];
}

unsigned ballot(unsigned mask, bool predicate, const char* what, int line) {
    const Exchange& exchange = meet(mask, predicate, what, line);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (exchange.came >> lane & 1) votes |= unsigned(exchange.value[lane]) << lane;
    return votes;
}

// The only warp intrinsic that orders memory accesses.
void sync_warp(unsigned mask, int line) {
    current_block->meet(*current_thread, mask, 0, "__syncwarp", line, true);
}

void* shared_variable(const void* site, size_t size, size_t alignment) {
    if (!current_block) fail("a __shared__ variable outside a function");
    SharedMemory& shared = current_block->shared;
    if (char* address = shared.find(site)) return address;
    if (shared.used() + size > shared.limit)
        fail("%zu bytes of shared memory; a block has %zu", shared.used() + size, shared.limit);
    IgnoreAccesses ignore;
    return shared.declare(site, size, alignment);
}

void* dynamic_shared() { return current_block->shared.dynamic; }

void thread_fence() { current_block->memory_order.fence(current_thread->number); }

void before_atomic(void* address) {
    current_block->memory_order.atomic(current_thread->number, address);
}

// ---------------------------------------------------------------- called by Python

static std::string refusal(const Launch& launch) {
    const dim3 &block = launch.block, &grid = launch.grid;
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (threads < 1 || threads > 1024 || block.z > 64)
        return "a block of " + text({block.x, block.y, block.z}) +
               " threads; 1 to 1024 in all are possible, 64 in z";
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535)
        return "a grid of " + text({grid.x, grid.y, grid.z}) + " blocks is impossible";
    if (launch.dynamic_shared_size > launch.dynamic_shared_limit)
        return std::to_string(launch.dynamic_shared_size) +
               " bytes of shared memory; a block has " +
               std::to_string(launch.dynamic_shared_limit);
    return "";
}

static void run_blocks(Launch& launch) {
#if defined(SIMT_THREAD)
    host.thread_identity = __tsan_get_current_fiber();
#endif
    release(&launch_token);
    IgnoreAccesses ignore;  // from here on the host frees what CUDA threads have used
    fiber_pool.begin_launch();
    for (const int64_t number : launch.order.permutation(launch.blocks())) {
        blockIdx = launch.block_index(number);
        Block block(launch, blockIdx);
        current_block = &block;
        block.run();
        current_block = nullptr;
        if (!error.empty()) break;
    }
    current_thread = nullptr;
    acquire(&finish_token);
}

}  // namespace simt

extern "C" {

#if !defined(SIMT_ADDRESS)  // where the sanitizer's own library has it
// What -fsanitize=alignment tells of an access that its address does not suit.
struct Misaligned {
    const char* file;
    unsigned line, column;
    const struct { short kind, info; char name[1]; } * type;
    unsigned char log_alignment, access;
};

SIMT_EXPORT void __ubsan_handle_type_mismatch_v1_abort(const Misaligned* at, const void* address) {
    simt::fail("%s:%u: misaligned access of %s at %p, which is no multiple of %d", at->file, at->line,
               at->type->name, address, 1 << at->log_alignment);
}
#endif

// Returns null, or what went wrong.
SIMT_EXPORT const char* simt_launch(void (*kernel)(void**), void** arguments, const unsigned* grid,
                                    const unsigned* block, size_t dynamic_shared_size,
                                    size_t dynamic_shared_limit, int order, int flush_denormals) {
    using namespace simt;
    Launch launch{kernel,
                  arguments,
                  dim3(grid[0], grid[1], grid[2]),
                  dim3(block[0], block[1], block[2]),
                  dynamic_shared_size,
                  dynamic_shared_limit,
                  Order(order)};
    error = refusal(launch);
    if (error.empty()) {
        gridDim = launch.grid;
        blockDim = launch.block;
        current_launch = &launch;
        FlushDenormals flush(flush_denormals);
        run_blocks(launch);
        current_launch = nullptr;
    }
    return error.empty() ? nullptr : error.c_str();
}

}
