"""Other users of the machine, for whom a contender has to wait."""

import contextlib
import multiprocessing
from collections.abc import Iterator


def compute(begun) -> None:
    begun.set()
    while True:
        pass


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """A context in which so many processes compute."""
    context = multiprocessing.get_context("spawn")
    others = []
    try:
        for _ in range(processes):
            begun = context.Event()
            others.append(context.Process(target=compute, args=(begun,), daemon=True))
            others[-1].start()
            begun.wait()
        yield
    finally:
        for process in others:
            process.kill()
            process.join()
