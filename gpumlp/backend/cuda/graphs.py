"""CUDA graphs: what is submitted to a stream, recorded to be launched again."""

from __future__ import annotations

import contextlib


def record(work, stream):
    """The graph of what work() submits to this stream, which is not the default one.

    Raises what work() raises, and leaves the stream able to go on.
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
