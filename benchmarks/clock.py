"""Times of work on the CPU, by the host's clock, or on a GPU, by CUDA events."""

import time


def seconds(run) -> float:
    """By the host's clock."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def times(ops, run, repeats: int, warm: int = 2) -> list[float]:
    """Seconds of each of `repeats` runs, after `warm` others.  ops: a backend."""
    with ops.on_device():
        for _ in range(warm):
            run()
        if ops.device == "cpu":
            return [seconds(run) for _ in range(repeats)]
        # All runs are queued before anything is waited for: the GPU never waits for the host.
        cuda = ops.xp.cuda
        events = [(cuda.Event(), cuda.Event()) for _ in range(repeats)]
        for before, after in events:
            before.record()
            run()
            after.record()
        events[-1][1].synchronize()
        return [cuda.get_elapsed_time(before, after) / 1e3 for before, after in events]


def wait(ops):
    """Until the device has done all that was asked."""
    if ops.device != "cpu":
        with ops.on_device():
            ops.xp.cuda.get_current_stream().synchronize()
