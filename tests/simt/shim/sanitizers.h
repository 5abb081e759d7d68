// What the runtime tells the sanitizers; in a plain build all of it is empty.
//
// The runtime itself is compiled without instrumentation, so that only the accesses of the kernel
// are checked. The few library calls that a sanitizer intercepts all the same (malloc, free) are
// put under IgnoreAccesses where they happen on behalf of a CUDA thread.
#pragma once
#include <stddef.h>

#if defined(SIMT_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(SIMT_THREAD)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace simt {

// `release(t)` then `acquire(t)` orders what came before the one ahead of what comes after the
// other, in ThreadSanitizer's eyes. A token is any address; it is never read or written.
inline void release(void* token) {
#if defined(SIMT_THREAD)
    __tsan_release(token);
#else
    (void)token;
#endif
}

inline void acquire(void* token) {
#if defined(SIMT_THREAD)
    __tsan_acquire(token);
#else
    (void)token;
#endif
}

struct IgnoreAccesses {
#if defined(SIMT_THREAD)
    IgnoreAccesses() {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~IgnoreAccesses() {
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
#else
    IgnoreAccesses() {}
    ~IgnoreAccesses() {}
#endif
    IgnoreAccesses(const IgnoreAccesses&) = delete;
};

}  // namespace simt
