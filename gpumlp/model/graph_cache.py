"""Capture and replay sequences of operations that recur on the same buffers, as steps do."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple


class _Sequence(NamedTuple):
    """A sequence that has run once, or was captured, on these buffers."""

    buffers: tuple
    replay: Any  # None after the first time


class GraphCache:
    """Runs a sequence as it is the first time, captures it the second, and replays it from then on.

    The first run makes what can only be made outside of a capture: compiled kernels, arrays for
    partial sums.  A sequence that comes once costs nothing more.
    """

    def __init__(self, ops):
        self._ops = ops
        # What was captured knows the memory of a workspace, and must go when that is replaced.
        self._sequences: weakref.WeakKeyDictionary[Any, dict[Any, _Sequence]] = (
            weakref.WeakKeyDictionary()
        )

    def __reduce__(self):
        return GraphCache, (self._ops,)  # a copy has buffers of its own, and captures its own

    def run(self, name, work, workspace, *buffers):
        """Run work(), or replay what was captured of it by this name on these very buffers.

        Returns a function that replays the sequence, while only the contents of the buffers
        change; None the first time.
        workspace: a buffer with which the captured sequence is dropped; its owner keeps it alive.
        buffers: all others that it uses.  Another object in a place drops the capture; they are
        kept alive, since it knows only their addresses.
        """
        sequences = self._sequences.setdefault(workspace, {})
        sequence = sequences.pop(name, None)
        replay = None
        if sequence is not None and all(
            a is b for a, b in zip(sequence.buffers, buffers, strict=True)
        ):
            replay = sequence.replay or self._ops.capture(work)
        (replay or work)()
        # Not before: what failed has not made all that is missing in a capture.  Work that is not
        # captured is not kept: it may refer to whoever keeps this.
        sequences[name] = _Sequence(buffers, replay)
        return replay
