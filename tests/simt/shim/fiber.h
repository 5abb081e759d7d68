// A fiber: a stack of its own that the host resumes and that suspends itself, within one OS thread.
#pragma once
#include <deque>
#include <stdlib.h>
#include <sys/mman.h>

#include "context_switch.h"
#include "sanitizers.h"

namespace simt {

// The side that resumes fibers: the stack on which the launch was called.
struct Host {
    void* stack_pointer = nullptr;
    const void* stack_bottom = nullptr;  // as AddressSanitizer knows it
    size_t stack_size = 0;
    void* fake_stack = nullptr;
    void* thread_identity = nullptr;  // ThreadSanitizer's
};
static Host host;

class Fiber {
  public:
    Fiber() {
        const int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
        void* mapped = mmap(nullptr, guard_size + stack_size, access, kind | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) abort();
        mprotect(mapped, guard_size, PROT_NONE);  // an overflow ends in a fault, not in a neighbour
        stack = static_cast<char*>(mapped) + guard_size;
#if defined(SIMT_THREAD)
        thread_identity = __tsan_create_fiber(0);
#endif
    }

    ~Fiber() {
#if defined(SIMT_ADDRESS)
        __asan_unpoison_memory_region(stack, stack_size);  // an abandoned call left its red zones
#elif defined(SIMT_THREAD)
        __tsan_destroy_fiber(thread_identity);
#endif
        munmap(stack - guard_size, guard_size + stack_size);
    }

    Fiber(const Fiber&) = delete;

    // The next resume() calls `entry`, which must end in finish().
    void prepare(void (*entry)()) { stack_pointer = new_stack_pointer(stack + stack_size, entry); }

    // Called by the host: runs the fiber until it suspends or finishes.
    void resume() {
#if defined(SIMT_ADDRESS)
        __sanitizer_start_switch_fiber(&host.fake_stack, stack, stack_size);
#elif defined(SIMT_THREAD)
        __tsan_switch_to_fiber(thread_identity, __tsan_switch_to_fiber_no_sync);
#endif
        simt_switch_stack(&host.stack_pointer, stack_pointer);
#if defined(SIMT_ADDRESS)
        __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
    }

    // Called first thing on the fiber itself.
    void entered() {
#if defined(SIMT_ADDRESS)
        __sanitizer_finish_switch_fiber(nullptr, &host.stack_bottom, &host.stack_size);
#endif
    }

    // Called on the fiber: back to the host, until the next resume().
    void suspend() {
        leave(&fake_stack);
#if defined(SIMT_ADDRESS)
        __sanitizer_finish_switch_fiber(fake_stack, &host.stack_bottom, &host.stack_size);
#endif
    }

    // Called on the fiber: back to the host for good; what is on the stack is abandoned.
    [[noreturn]] void finish() {
        leave(nullptr);
        abort();
    }

  private:
    static constexpr size_t guard_size = 64 << 10;  // a multiple of every page size in use
#if defined(SIMT_ADDRESS)
    static constexpr size_t stack_size = 256 << 10;  // red zones take room
#else
    static constexpr size_t stack_size = 64 << 10;
#endif

    void leave(void** fake_stack_slot) {
        (void)fake_stack_slot;
#if defined(SIMT_ADDRESS)
        __sanitizer_start_switch_fiber(fake_stack_slot, host.stack_bottom, host.stack_size);
#elif defined(SIMT_THREAD)
        __tsan_switch_to_fiber(host.thread_identity, __tsan_switch_to_fiber_no_sync);
#endif
        simt_switch_stack(&stack_pointer, host.stack_pointer);
    }

    char* stack = nullptr;
    void* stack_pointer = nullptr;
    void* fake_stack = nullptr;
    void* thread_identity = nullptr;
};

// Fibers are dear (a ThreadSanitizer identity costs up to a millisecond), so they are kept.
//
// A plain launch takes the hottest stack first. ThreadSanitizer takes two CUDA threads on one fiber
// for one thread and sees no race between them, so within a launch it gets fibers that the launch
// has not used yet, up to a limit, and then those that have rested longest: races between blocks
// are seen as long as no more than `enough` CUDA threads started in between.
class FiberPool {
  public:
    void begin_launch() { unused_in_launch = idle.size(); }

    Fiber* take() {
        if (idle.empty()) return make();
        if (!is_thread_sanitizer) return pop_newest();
        if (unused_in_launch > 0) --unused_in_launch;
        else if (made < enough) return make();
        return pop_oldest();
    }

    void give_back(Fiber* fiber) { idle.push_back(fiber); }

    // For a fiber that was stopped in the middle of its work.
    void discard(Fiber* fiber) {
        --made;
        delete fiber;
    }

  private:
#if defined(SIMT_THREAD)
    static constexpr bool is_thread_sanitizer = true;
#else
    static constexpr bool is_thread_sanitizer = false;
#endif
    static constexpr size_t enough = 1024;

    Fiber* make() {
        ++made;
        return new Fiber;
    }
    Fiber* pop_newest() {
        Fiber* fiber = idle.back();
        idle.pop_back();
        return fiber;
    }
    Fiber* pop_oldest() {
        Fiber* fiber = idle.front();
        idle.pop_front();
        return fiber;
    }

    std::deque<Fiber*> idle;
    size_t made = 0, unused_in_launch = 0;
};

}  // namespace simt
