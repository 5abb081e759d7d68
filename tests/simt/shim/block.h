// One block: its CUDA threads, each a fiber, run by turns until all have left the kernel.
//
// A thread runs until it waits (at a barrier or for the lanes of its warp) or exits. The rules are
// stricter than the hardware's: a barrier must be met by every thread of the block, at one line.
#pragma once
#include <string>
#include <vector>

#include "launch.h"
#include "memory_order.h"
#include "shared_memory.h"
#include "warp.h"

namespace simt {

enum class State { unstarted, ready, at_barrier, at_meeting, exited };

struct CudaThread {
    int number = 0;  // within the block
    uint3 index = {};
    State state = State::unstarted;
    int barrier_line = 0;
    Fiber* fiber = nullptr;
};

static FiberPool fiber_pool;
static CudaThread* current_thread = nullptr;
static std::string error;  // of the launch; not empty: stop

void enter_thread(CudaThread& thread);  // sets threadIdx
void thread_entry();                    // what a fiber runs: the kernel

class Block {
  public:
    Block(Launch& launch, const uint3& index)
        : shared(launch.dynamic_shared_size, launch.dynamic_shared_limit), memory_order(launch.threads_per_block()),
          index(index), threads(launch.threads_per_block()),
          turns(launch.order.permutation(threads.size())), warps((threads.size() + 31) / 32),
          live(int(threads.size())) {
        for (int i = 0; i < int(threads.size()); ++i) {
            threads[i].number = i;
            threads[i].index = launch.thread_index(i);
            warps[i / 32].live_lanes |= 1u << i % 32;
        }
    }

    ~Block() {
        for (CudaThread& thread : threads)
            if (thread.fiber) fiber_pool.discard(thread.fiber);  // the launch was stopped
    }
    Block(const Block&) = delete;

    void run() {
        while (live > 0 && error.empty()) {
            const bool moved = sweep();
            if (!error.empty() || live == 0) return;
            if (waiting_at_barrier == live) open_barrier();
            else if (!moved) stop("deadlock: " + census());
        }
    }

    // Called on the thread's own fiber.
    void barrier(CudaThread& thread, int line) {
        if (waiting_at_barrier > 0 && barrier_line != line)
            fail("divergent __syncthreads: this thread waits at line %d, another at line %d", line,
                 barrier_line);
        barrier_line = thread.barrier_line = line;
        ++waiting_at_barrier;
        const unsigned phase = barrier_phase;
        memory_order.arrive_at_barrier(phase);
        wait(thread, State::at_barrier);
        memory_order.leave_barrier(phase);
    }

    // Called on the thread's own fiber: returns when every live lane of `mask` has come.
    Exchange& meet(CudaThread& thread, unsigned mask, uint64_t value, const char* what, int line,
                   bool orders_memory) {
        Meeting& meeting = join(thread, mask, what, line);
        Exchange& exchange = meeting.current();
        if (orders_memory) release(exchange.token);
        exchange.value[thread.number % 32] = value;
        meeting.arrived |= 1u << thread.number % 32;
        if (meeting.complete(warp_of(thread).live_lanes)) wake(thread.number / 32, meeting.close());
        else wait(thread, State::at_meeting);
        if (orders_memory) acquire(exchange.token);
        return exchange;
    }

    Warp& warp_of(const CudaThread& thread) { return warps[thread.number / 32]; }

    SharedMemory shared;
    MemoryOrder memory_order;

  private:
    // Runs every thread that can run once; false if none could.
    bool sweep() {
        bool moved = false;
        for (const int64_t number : turns) {
            CudaThread& thread = threads[number];
            if (thread.state == State::unstarted) start(thread);
            if (thread.state != State::ready) continue;
            moved = true;
            current_thread = &thread;
            enter_thread(thread);
            thread.fiber->resume();
            if (!error.empty()) break;
            if (thread.state == State::exited) retire(thread);
        }
        current_thread = nullptr;
        return moved;
    }

    void start(CudaThread& thread) {
        thread.fiber = fiber_pool.take();
        thread.fiber->prepare(thread_entry);
        thread.state = State::ready;
    }

    void retire(CudaThread& thread) {
        fiber_pool.give_back(thread.fiber);
        thread.fiber = nullptr;
        --live;
        Warp& warp = warp_of(thread);
        warp.live_lanes &= ~(1u << thread.number % 32);
        for (Meeting& meeting : warp.meetings)
            if (meeting.arrived && meeting.complete(warp.live_lanes))
                wake(thread.number / 32, meeting.close());
    }

    static void wait(CudaThread& thread, State state) {
        thread.state = state;
        thread.fiber->suspend();
    }

    void open_barrier() {
        if (live < int(threads.size())) {
            stop(std::to_string(live) + " threads wait at __syncthreads (line " +
                 std::to_string(barrier_line) + ") but " + std::to_string(threads.size() - live) +
                 " have exited");
            return;
        }
        memory_order.open_barrier();
        ++barrier_phase;
        waiting_at_barrier = 0;
        for (CudaThread& thread : threads) thread.state = State::ready;
    }

    Meeting& join(const CudaThread& thread, unsigned mask, const char* what, int line) {
        const int lane = thread.number % 32;
        if (!(mask >> lane & 1))
            fail("%s at line %d: mask %08x does not name the calling lane %d", what, line, mask,
                 lane);
        Warp& warp = warp_of(thread);
        Meeting* meeting = warp.find(mask);
        if (!meeting) {
            IgnoreAccesses ignore;
            warp.meetings.emplace_back();
            meeting = &warp.meetings.back();
            meeting->mask = mask;
        }
        if (!meeting->arrived) {
            meeting->what = what;
            meeting->line = line;
        } else if (meeting->line != line) {
            fail("%s at line %d, while other lanes of mask %08x wait in %s at line %d", what, line,
                 mask, meeting->what, meeting->line);
        }
        return *meeting;
    }

    void wake(int warp, unsigned lanes) {
        for (int lane = 0; lane < 32; ++lane)
            if (lanes >> lane & 1) threads[warp * 32 + lane].state = State::ready;
    }

    std::string census() const {
        int meeting = 0;
        std::string where;
        for (const CudaThread& thread : threads) meeting += thread.state == State::at_meeting;
        for (const Warp& warp : warps)
            for (const Meeting& waiting : warp.meetings)
                if (waiting.arrived && where.empty())
                    where = std::string(" (") + waiting.what + " at line " +
                            std::to_string(waiting.line) + ")";
        return std::to_string(waiting_at_barrier) + " threads wait at __syncthreads, " +
               std::to_string(meeting) + " for lanes of their warp" + where + ", " +
               std::to_string(threads.size() - live) + " have exited";
    }

    void stop(const std::string& reason) const { error = "block " + text(index) + ": " + reason; }

    uint3 index;
    std::vector<CudaThread> threads;
    std::vector<int64_t> turns;
    std::vector<Warp> warps;
    int live, waiting_at_barrier = 0, barrier_line = 0;
    unsigned barrier_phase = 0;
};

static Block* current_block = nullptr;

}  // namespace simt
