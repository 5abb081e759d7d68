// What a translated program asks of the runtime, which is compiled once for all programs.
#pragma once
#include <stddef.h>  // and no more: a program must not see names that NVRTC does not declare

#define SIMT_EXPORT __attribute__((visibility("default")))

namespace simt {

// The block barrier. `line` is the caller's: all threads must meet at the same one.
SIMT_EXPORT void barrier(int line);

// Warp intrinsics. `what` and `line` name the call in messages; the lanes of a mask must meet at
// the same one.
SIMT_EXPORT int lane();
SIMT_EXPORT unsigned live_lanes();
SIMT_EXPORT unsigned long long shuffle(unsigned mask, unsigned long long bits, int source_lane,
                                       const char* what, int line);
SIMT_EXPORT unsigned ballot(unsigned mask, bool predicate, const char* what, int line);
SIMT_EXPORT void sync_warp(unsigned mask, int line);

// The block's instance of a __shared__ variable; `site` is an address unique to its declaration.
SIMT_EXPORT void* shared_variable(const void* site, size_t size, size_t alignment);
SIMT_EXPORT void* dynamic_shared();

// Memory order (see memory_order.h).
SIMT_EXPORT void thread_fence();
SIMT_EXPORT void before_atomic(void* address);

// Ends the launch with a message that names block and thread.
[[noreturn]] SIMT_EXPORT void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace simt
