"""Sequences of operations that come again and again on the same buffers, as training steps do."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple


class _Held(NamedTuple):
    buffers: tuple
    replay: Any  # None after the first time


class GraphCache:
    """Runs a sequence as it is the first time, captures it the second, and replays it from then on.

    The first run makes what can only be made outside of a capture: compiled kernels, room for
    partial sums.  Where a sequence comes once, it costs nothing more.
    """

    def __init__(self, ops):
        self._ops = ops
        # What was captured knows the memory of a workspace, and must go when that is replaced.
        self._held: weakref.WeakKeyDictionary[Any, dict[Any, _Held]] = weakref.WeakKeyDictionary()

    def __reduce__(self):
        return GraphCache, (self._ops,)  # a copy has buffers of its own, and captures its own

    def run(self, name, work, workspace, *buffers):
        """work(), or what was captured of it when it last came by this name on these very buffers.

        Returns what was captured, to be called as often as nothing changes but what lies in the
        buffers; None at the first time.
        workspace: a buffer, with which the captured sequence ends; it has to be kept alive by
        others.  buffers: every other object whose replacement makes the sequence worthless; they
        are kept alive, since the sequence knows only their addresses.
        """
        sequences = self._held.setdefault(workspace, {})
        held = sequences.pop(name, None)
        replay = None
        if held is not None and all(a is b for a, b in zip(held.buffers, buffers, strict=True)):
            replay = held.replay or self._ops.capture(work)
        (replay or work)()
        # Not before: what failed has not made all that is missing in a capture.  Work that is not
        # captured is not kept: it may refer to whoever keeps this.
        sequences[name] = _Held(buffers, replay)
        return replay
