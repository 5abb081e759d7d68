"""Record the work submitted to a stream as a CUDA graph, which is launched again."""

from __future__ import annotations

import contextlib


def record(work, stream):
    """Record the graph of what work() submits to this stream, which is not the default one.

    Raises what work() raises, and leaves the stream usable.
    """
    stream.begin_capture()
    try:
        work()
    except BaseException:
        # The capture has to end.  That may fail for the same reason, and would say less of it.
        with contextlib.suppress(Exception):
            stream.end_capture()
        raise
    return stream.end_capture()
