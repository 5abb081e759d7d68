"""The operations that gpumlp asks for in a real step: recorded as it is made, to be repeated."""

import contextlib
from typing import Any, NamedTuple


class Call(NamedTuple):
    """slice: of the batch, for which it was asked, or None."""

    name: str
    operation: Any
    arguments: tuple
    options: dict
    slice: int | None

    def __call__(self):
        self.operation(*self.arguments, **self.options)


@contextlib.contextmanager
def recorded(ops, *names: str, **replaced):
    """The list of calls of these operations of a backend, as they are made: those of slices one
    after another, and none in a graph.  replaced: other methods of the backend meanwhile."""
    calls: list[Call] = []
    current: int | None = None

    def recording(name):
        operation = getattr(ops, name)

        def call(*arguments, **options):
            calls.append(Call(name, operation, arguments, options, current))
            calls[-1]()

        return call

    def in_turn(works):
        nonlocal current
        for i, work in enumerate(works):
            current = i
            work()
        current = None

    replaced |= {name: recording(name) for name in names}
    replaced |= {"parallel": in_turn, "capture": lambda work: work}
    vars(ops).update(replaced)
    try:
        yield calls
    finally:
        for name in replaced:
            delattr(ops, name)
