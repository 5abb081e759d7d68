"""Copies from host memory on the stand-in: some take time, and who does not wait fails."""

import numpy as np
import pytest

from tests import simt, standin

needs_compiler = pytest.mark.skipif(
    simt.why_no_compiler() is not None, reason=f"kernels need a compiler: {simt.why_no_compiler()}"
)

ADD = """
extern "C" __global__ void add(const float* x, float* y) {
    y[threadIdx.x] += x[threadIdx.x];
}
"""


@pytest.fixture
def cp(monkeypatch):
    return standin.install(monkeypatch)


class Sending:
    """A device array x of six zeros, page-locked memory with 1 .. 6, and a second stream."""

    def __init__(self, cp):
        self.cp, self.x = cp, cp.zeros(6, np.float32)
        self.host = np.frombuffer(cp.cuda.alloc_pinned_memory(24), np.float32, 6)
        self.host[:] = np.arange(1, 7)
        self.stream = cp.cuda.Stream(non_blocking=True)
        self.stream.wait_event(self.now())

    def now(self, stream=None):
        event = self.cp.cuda.Event()
        event.record(stream)
        return event

    def send(self):
        self.x.set(self.host, stream=self.stream)


@pytest.fixture
def sending(cp):
    return Sending(cp)


def test_pinned_memory(cp):
    pointer = cp.cuda.alloc_pinned_memory(24)
    memory = np.frombuffer(pointer, np.float32, 6)
    assert np.isnan(memory).all()  # fresh memory is poisoned, here too
    assert (memory.ctypes.data, memory.nbytes) == (pointer.ptr, pointer.size)
    del pointer
    memory[:] = 1  # it lives as long as its array


@pytest.mark.parametrize("by", ["a stream", "its event", "its stream", "asking", "what follows"])
def test_a_copy_lands_when_it_is_waited_for(cp, sending, by):
    sending.send()
    x = sending.x
    assert not x._host.any()  # it takes as long as it may
    if by == "a stream":
        cp.cuda.get_current_stream().wait_event(sending.now(sending.stream))
        x += 0
    elif by == "its event":
        sending.now(sending.stream).synchronize()
    elif by == "its stream":
        sending.stream.synchronize()
    elif by == "asking":
        assert sending.now(sending.stream).done
    else:
        cp.cuda.get_current_stream().wait_event(sending.now(sending.stream))
        x.copy().get()  # the host has waited for what came before
        sending.host[:] = 0
    assert np.array_equal(x._host, np.arange(1, 7))


READERS = {
    "arithmetic": lambda cp, x: x + 1,
    "in place": lambda cp, x: x.__iadd__(1),
    "fill": lambda cp, x: x.fill(0),
    "copy": lambda cp, x: x.copy(),
    "to the host": lambda cp, x: x.get(),
    "from the host": lambda cp, x: x.set(np.ones(6, np.float32)),
    "a view": lambda cp, x: x[2:4].sum(),
}


@pytest.mark.parametrize("work", READERS)
def test_work_that_does_not_wait_for_a_copy(cp, sending, work):
    sending.send()
    with pytest.raises(RuntimeError, match="wait for an event"):
        READERS[work](cp, sending.x)
    cp.cuda.get_current_stream().wait_event(sending.now(sending.stream))
    READERS[work](cp, sending.x)


@needs_compiler
def test_a_kernel_or_a_graph_that_does_not_wait_for_a_copy(cp, sending):
    y = cp.zeros(6, np.float32)
    kernel = cp.RawModule(code=ADD).get_function("add")
    arguments = (sending.x, y)
    with cp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        kernel((1,), (6,), arguments)
        graph = stream.end_capture()
    sending.send()
    for work in (lambda: kernel((1,), (6,), arguments), graph.launch):
        with pytest.raises(RuntimeError, match="wait for an event"):
            work()
    cp.cuda.get_current_stream().wait_event(sending.now(sending.stream))
    graph.launch()
    assert np.array_equal(y.get(), np.arange(1, 7))


def test_an_event_of_before_the_copy_is_not_enough(cp, sending):
    early = sending.now(sending.stream)
    sending.send()
    cp.cuda.get_current_stream().wait_event(early)
    early.synchronize()
    with pytest.raises(RuntimeError, match="wait for an event"):
        sending.x.sum()


def test_a_copy_over_what_is_in_use(cp, sending):
    used = sending.now()
    sending.x += 1
    sending.stream.wait_event(used)
    with pytest.raises(RuntimeError, match="may still be using"):
        sending.send()
    sending.stream.wait_event(sending.now())
    sending.send()


def test_a_copy_into_fresh_memory_waits_for_its_last_user(cp, sending):
    """CuPy's pool gives out memory that work which was submitted before may still be reading."""
    fresh = cp.empty(6, np.float32)
    sending.x += 1
    fresh.set(sending.host, stream=sending.stream)  # it was free before that work was submitted
    fresh = cp.empty(6, np.float32)
    with pytest.raises(RuntimeError, match="may still be using"):
        fresh.set(sending.host, stream=sending.stream)


@pytest.mark.parametrize("noticed", ["when it lands", "when waited for", "by the next copy"])
def test_pinned_memory_that_is_overwritten_too_early(cp, sending, noticed):
    sending.send()
    arrived = sending.now(sending.stream)
    cp.cuda.get_current_stream().wait_event(arrived)
    if noticed != "when it lands":
        sending.x += 1
    sending.host[0] = 7  # the device waits, not the host
    with pytest.raises(RuntimeError, match="overwritten before"):
        if noticed == "when it lands":
            sending.x += 1
        elif noticed == "when waited for":
            arrived.synchronize()
        else:
            sending.stream.wait_event(sending.now())
            sending.send()


def test_pinned_memory_that_asarray_is_given_is_read_later(cp, sending):
    x = cp.asarray(sending.host)
    sending.host[0] = 7
    with pytest.raises(RuntimeError, match="overwritten before"):
        x.get()
    other = np.ones(6, np.float32)
    x = cp.asarray(other)  # by way of page-locked memory of its own
    other[0] = 7
    assert np.array_equal(x.get(), np.ones(6))


@pytest.fixture
def pageable(monkeypatch, cp):
    monkeypatch.setattr(standin.machine, "pageable_access", True)


ARRAYS = {
    "an array": lambda: np.ones((2, 3), np.float32),
    "a view": lambda: np.ones((4, 3), np.float32)[2:],
    "columns first": lambda: np.ones((2, 3), np.float32, order="F"),
    "every second": lambda: np.ones((2, 6), np.float32)[:, ::2],
}
MADE_CONTIGUOUS = "columns first", "every second"  # by `set`, which drops what it has made


@pytest.mark.parametrize("kind", ARRAYS)
def test_pageable_memory_that_the_device_reads_later(cp, pageable, kind):
    x, host = cp.zeros((2, 3), np.float32), ARRAYS[kind]()
    x.set(host)
    assert not x._host.any()
    if kind in MADE_CONTIGUOUS:
        with pytest.raises(RuntimeError, match="freed before"):
            cp.cuda.get_current_stream().synchronize()
        return
    cp.cuda.get_current_stream().synchronize()
    assert np.array_equal(x._host, np.ones((2, 3)))
    other = cp.zeros((2, 3), np.float32)
    x.set(host), other.set(host)
    host[:] = 2
    with pytest.raises(RuntimeError, match="overwritten before"):
        x.get()
    del host
    with pytest.raises(RuntimeError, match="freed before"):
        other.get()


def test_pageable_memory_by_columns(cp, pageable):
    x, host = cp.zeros((2, 3), np.float32, order="F"), np.arange(6, dtype=np.float32).reshape(2, 3)
    host = np.asfortranarray(host)
    x.set(host)
    assert np.array_equal(x.get(), host)


def test_pageable_memory_is_read_at_once(cp, sending):
    host = np.ones(6, np.float32)
    sending.x.set(host, stream=sending.stream)
    host[:] = 2
    sending.stream.synchronize()
    assert np.array_equal(sending.x.get(), np.ones(6))


@pytest.mark.parametrize("blocking", [True, False])
def test_the_default_stream_waits_for_blocking_streams(cp, sending, blocking):
    sending.stream = cp.cuda.Stream(non_blocking=not blocking)
    sending.stream.wait_event(sending.now())
    sending.send()
    if not blocking:
        with pytest.raises(RuntimeError, match="wait for an event"):
            sending.x.sum()
    else:
        assert sending.x.sum().item() == 21
        sending.x += 1
        sending.send()
