"""Compiled calls that tell how they were made, and checks of how threads share them.

As a program, `python -m tests.helpers.shared_calls`: the checks that a sanitizer is to look at.
"""

import functools
import time

import numpy as np

from gpumlp.backend.cpu import compiler, sequence
from gpumlp.backend.cpu.host_ops import HostOps

SOURCE = r"""
#include <time.h>

typedef long long Int;
struct Counts { Int* counts; Int more; };

static void pause(Int nanoseconds)
{
    timespec time = {time_t(nanoseconds / 1000000000), long(nanoseconds % 1000000000)};
    nanosleep(&time, nullptr);
}

// Counts its own piece.
extern "C" void count(const Counts& a, int piece, int) { a.counts[piece] += 1; }

// And takes its time, but for piece 0.
extern "C" void slow(const Counts& a, int piece, int)
{
    if (piece) pause(a.more);
    a.counts[piece] += 1;
}

// more[0] <- the sum of the four counts.
extern "C" void total(const Counts& a, int, int)
{
    reinterpret_cast<Int*>(a.more)[0] = a.counts[0] + a.counts[1] + a.counts[2] + a.counts[3];
}

// What comes after all pieces of `count`: each has come once more, or more[0] counts a mistake.
extern "C" void compare(const Counts& a, int, int)
{
    Int* seen = reinterpret_cast<Int*>(a.more);
    for (Int piece = 0; piece < seen[1]; ++piece) seen[0] += a.counts[piece] != seen[2] + 1;
    seen[2] += 1;
}

// counts[0] counts those who have come; each waits for all, 100 seconds at most, and counts itself.
extern "C" void meet(const Counts& a, int piece, int pieces)
{
    __atomic_add_fetch(a.counts, 1, __ATOMIC_SEQ_CST);
    const auto come = [&] { return __atomic_load_n(a.counts, __ATOMIC_SEQ_CST); };
    for (int i = 0; i < 100000 && come() < pieces; ++i) pause(1000000);
    a.counts[1 + piece] += come() == pieces;
}
"""


@functools.cache
def _library():
    return compiler.library(SOURCE)


def run():
    return HostOps()._run()


def program(name, counts, pieces, more=0):
    """A call of one of the functions above."""
    struct = sequence.struct((counts.ctypes.data, more), (counts, more))
    return sequence.Compiled(getattr(_library(), name), struct, pieces)


def do(run, calls):
    for call in sequence.joined(calls, run):
        call()


def check_order(run, pieces, repeats, pause=0.0):
    """Again and again all pieces, each once, and what comes after them sees them done."""
    counts, seen = np.zeros(pieces, np.int64), np.array([0, pieces, 0])
    calls = [program("count", counts, pieces), program("compare", counts, 1, seen.ctypes.data)]
    calls = sequence.joined(calls * 3, run)
    for _ in range(repeats):
        time.sleep(pause)
        for call in calls:
            call()
    assert counts.tolist() == [3 * repeats] * pieces
    assert seen.tolist() == [0, pieces, 3 * repeats]


if __name__ == "__main__":
    for pieces in (2, 3, 4):
        check_order(run(), pieces, repeats=500)
        check_order(run(), pieces, repeats=5, pause=0.005)
        counts = np.zeros(2, np.int64)
        do(run(), [program("slow", counts, 2, 2_000_000)])
    print("every check passed")
