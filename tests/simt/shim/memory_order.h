// The order of memory accesses that barriers, fences and atomics establish, told to
// ThreadSanitizer. In other builds nothing here has an effect.
//
// Blocks run one after another but are not ordered: an access of one block races with one of
// another unless the pattern of the CUDA programming guide ("the last block to finish") orders
// them. A write, __threadfence() by its thread and then an atomic (by that thread, or by another
// one of its block behind a __syncthreads()) publish the write; an atomic on the same address by
// another block and then __threadfence() by its thread receive what was published there, and it is
// passed on at its block's barrier. The atomics themselves are relaxed, as CUDA's are.
//
// Published is what came before the fence, not before the atomic. ThreadSanitizer cannot pass one
// token's clock to another, so a Courier, an identity that has seen nothing else, carries it.
//
// Not detected:
// - races between an atomic and a plain access of the same address (atomics are not instrumented:
//   the reset of a ticket counter by the last block would be reported otherwise);
// - races between threads of blocks that are further apart than the fiber pool is deep (fiber.h);
// - weak memory effects as such: values are always those of one sequential execution.
// Waiting for another block in a loop never ends here, because that block starts only afterwards.
#pragma once
#include <stdint.h>
#include <vector>

#include "fiber.h"
#include "sanitizers.h"

namespace simt {

static char launch_token, finish_token;  // from the host to every CUDA thread, and back

#if defined(SIMT_THREAD)
class Courier {
  public:
    Courier() : home(__tsan_get_current_fiber()) {
        // A new identity knows all that its creator knows, and only the host knows nothing of this
        // launch.
        become(host.thread_identity);
        identity = __tsan_create_fiber(0);
        become(identity);
    }
    ~Courier() {
        become(host.thread_identity);
        __tsan_destroy_fiber(identity);
        become(home);
    }
    Courier(const Courier&) = delete;

  private:
    static void become(void* who) { __tsan_switch_to_fiber(who, __tsan_switch_to_fiber_no_sync); }
    void *home, *identity;
};
#else
class Courier {
  public:
    Courier() {}
    ~Courier() {}
};
#endif

class MemoryOrder {
  public:
    explicit MemoryOrder(int threads) : tokens(first_thread + threads), has_fenced(threads) {}

    // Barriers alternate between two tokens: a thread that is late to leave one must not receive
    // what a faster thread brings to the next.
    void arrive_at_barrier(unsigned phase) { release(&tokens[phase & 1]); }
    void leave_barrier(unsigned phase) { acquire(&tokens[phase & 1]); }

    // By the host, when all threads have arrived: what each of them fenced, any may now publish.
    void open_barrier() {
        if (fenced.empty()) return;
        Courier courier;
        for (int thread : fenced) {
            acquire(fence_token(thread));
            has_fenced[thread] = false;
        }
        release(&tokens[block_fence]);
        fenced.clear();
        block_has_fenced = true;
    }

    void fence(int thread) {
        for (const Received& each : received)
            if (each.thread == thread) acquire(each.address);
        release(fence_token(thread));
        if (has_fenced[thread]) return;
        has_fenced[thread] = true;
        IgnoreAccesses ignore;
        fenced.push_back(thread);
    }

    void atomic(int thread, void* address) {
        if (has_fenced[thread] || block_has_fenced) {
            Courier courier;
            if (has_fenced[thread]) acquire(fence_token(thread));
            if (block_has_fenced) acquire(&tokens[block_fence]);
            release(address);
        }
        IgnoreAccesses ignore;
        received.push_back({thread, address});
    }

  private:
    enum { first_barrier, second_barrier, block_fence, first_thread };

    struct Received {
        int thread;
        void* address;
    };

    void* fence_token(int thread) { return &tokens[first_thread + thread]; }

    // On the heap: ThreadSanitizer forgets what it knows of an address when it is freed, and what
    // one block has released must not order anything in the next.
    std::vector<uint64_t> tokens;
    std::vector<bool> has_fenced;  // since the last barrier
    std::vector<int> fenced;       // the same as a list
    std::vector<Received> received;  // by atomics; a later fence of that thread takes it in
    bool block_has_fenced = false;
};

}  // namespace simt
