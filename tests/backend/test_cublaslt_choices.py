"""The algorithm of a product: the first proposal, or one that was timed, kept and adopted."""

import ctypes
import json

import numpy as np
import pytest

from gpumlp import backend
from gpumlp.backend.cuda import cublaslt, gemm_choice
from gpumlp.utils.cache import keep, read
from tests.helpers.spoiling import WAYS_TO_SPOIL
from tests.operations import random, send
from tests.standin import streams
from tests.standin.cublaslt import library as fake
from tests.standin.descriptions import ROUNDS_PARTS


@pytest.fixture(autouse=True)
def no_plans():
    cublaslt.plan.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the user's files; algorithm 3 is the fastest, and 1 the next.

    Events show the time that the algorithms say they take: nothing else takes any.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seconds = {number: 0.001 for number in range(8)} | {1: 0.0005, 3: 0.0, 9: 0.0}
    monkeypatch.setattr(fake, "seconds", seconds)
    monkeypatch.setattr(streams, "clock", lambda: fake.elapsed)
    return tmp_path / "gpumlp" / "gemm"


def ran(ops, a, out, **options):
    """The algorithm of a product."""
    ops.gemm(a, a, out, **options)
    return fake.algorithms[-1]


def heuristics():
    return fake.calls["cublasLtMatmulAlgoGetHeuristic"]


@pytest.fixture
def operands(cuda):
    ops = backend.get("cuda:0")
    return send(ops, random(3, 5, 5), np.float32), send(ops, random(3, 5, 5, seed=1), np.float32)


def test_the_first_proposal_is_taken_unless_asked(counters, cache, operands):
    ops = backend.get("cuda:0")
    assert ran(ops, *operands) == 0
    assert ops.export_algorithms() == {}
    assert not list(cache.glob("*"))


def test_the_fastest_of_eight_is_taken(counters, cache, operands):
    a, out = operands
    ops = backend.get("cuda:0", tune=True)
    before = ops.to_host(out)
    with counters.count() as c:
        assert ran(ops, a, out, beta=0.5) == 3
    assert c.gemms > 8
    expected = ops.to_host(a) @ ops.to_host(a) + 0.5 * before  # once: trying wrote elsewhere
    np.testing.assert_allclose(ops.to_host(out), expected, atol=1e-5)
    with counters.count() as c:
        assert ran(ops, a, out, beta=0.5) == 3
    assert (c.gemms, c.allocations, c.synchronisations) == (1, 0, 0)


def test_parts_of_a_sum_are_not_rounded_to_bfloat16(counters, cache, monkeypatch):
    """The fastest algorithm keeps them as the product's type."""
    monkeypatch.setattr(fake, "seconds", dict.fromkeys(range(10), 0.001) | {ROUNDS_PARTS: 0.0})
    ops = backend.get("cuda:0", "bf16", tune=True)
    a = send(ops, np.full((3, 5, 5), 0x3F80), np.uint16)
    for dtype, rounds in ((np.uint16, False), (np.float32, True)):
        assert (ran(ops, a, ops.xp.empty((3, 5, 5), dtype)) == ROUNDS_PARTS) == rounds
    (file,) = cache.iterdir()
    # A file of a version that did not know would name it.
    kept = json.loads(read(file))
    rounding = next(text for shape, text in kept.items() if "type_d=0 " in shape)
    old = {shape.partition(" reductions=")[0]: rounding for shape in kept}
    assert len(old) == 2 and not old.keys() & kept.keys()
    keep(file, json.dumps(old).encode())
    cublaslt.plan.cache_clear()
    ops = backend.get("cuda:0", "bf16", tune=True)
    assert ran(ops, a, ops.xp.empty((3, 5, 5), np.uint16)) != ROUNDS_PARTS


def test_choices_are_kept_for_the_next_process(counters, cache, operands):
    first, second, third = (backend.get("cuda:0", tune=True) for _ in range(3))
    assert ran(first, *operands) == 3
    assert ran(first, *operands, ta=True) == 3
    (file,) = cache.iterdir()
    assert len(json.loads(read(file))) == 2
    fake.seconds[3] = 0.001
    before = heuristics()
    with counters.count() as c:
        assert ran(second, *operands) == 3
    assert (heuristics(), c.gemms) == (before, 1)
    assert (
        second.export_algorithms()["algorithms"].items()
        <= first.export_algorithms()["algorithms"].items()
    )
    file.unlink()
    assert ran(third, *operands) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\x00",
        b"[1, 2]",
        b'{"SHAPE": 3}',
        b'{"SHAPE": "no digits"}',
        b'{"SHAPE": "c0b1a5"}',
        b'{"SHAPE": "%s"}' % (b"00" * 64),  # not an algorithm of this library
    ],
)
def test_a_broken_file_costs_time_and_nothing_else(counters, cache, operands, content):
    broken(cache, operands, lambda path, shape: keep(path, content.replace(b"SHAPE", shape)))


@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_a_damaged_file_costs_time_and_nothing_else(counters, cache, operands, spoil):
    broken(cache, operands, lambda path, shape: spoil(path))


def broken(cache, operands, spoil):
    ops = backend.get("cuda:0", tune=True)
    ran(ops, *operands)
    (file,) = cache.iterdir()
    (shape,) = json.loads(read(file))
    spoil(file, shape.encode())
    ops = backend.get("cuda:0", tune=True)
    before = fake.calls["cublasLtMatmul"]
    assert ran(ops, *operands) == 3
    assert fake.calls["cublasLtMatmul"] > before + 8  # they were timed again
    assert json.loads(read(file))[shape] == ops.export_algorithms()["algorithms"][shape]


def test_a_folder_that_cannot_be_made(counters, cache, operands):
    cache.parent.write_text("a file")
    assert ran(backend.get("cuda:0", tune=True), *operands) == 3


def test_choices_of_a_checkpoint(counters, cache, operands):
    tuned = backend.get("cuda:0", tune=True)
    assert ran(tuned, *operands) == 3
    choices = json.loads(json.dumps(tuned.export_algorithms()))
    assert choices["gpu"] == "Stand-in for a GPU"

    fake.seconds[3] = 0.001
    for tune in (False, True):
        ops = backend.get("cuda:0", tune=tune)
        ops.load_algorithms(choices)
        assert ran(ops, *operands) == 3
        assert ops.export_algorithms() == choices
    ops = backend.get("cuda:0")
    assert ran(ops, *operands) == 0
    ops.load_algorithms(choices)  # after the first product, too
    assert ran(ops, *operands) == 3
    for name, value in (("gpu", "another"), ("cublaslt", 120000)):
        ops = backend.get("cuda:0")
        ops.load_algorithms({**choices, name: value})
        assert ran(ops, *operands) == 0
    ops.load_algorithms({})
    assert ran(ops, *operands) == 0


def test_nothing_is_tried_while_capturing(counters, cache, operands):
    ops = backend.get("cuda:0")
    a, out = operands
    ops.gemm(a, a, out)  # makes a workspace, for which nothing can be allocated below
    ops.tune = True
    with ops.xp.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        ops.gemm(a, a, out, ta=True)
        graph = stream.end_capture()
        graph.launch()
    assert fake.algorithms[-1] == 0
    assert (ops.export_algorithms(), list(cache.iterdir())) == ({}, [])


def test_where_there_is_no_room_to_try_it_is_the_first_proposal(
    counters, cache, operands, monkeypatch
):
    """In all of the run, but not in the next."""
    a, out = operands
    ops = backend.get("cuda:0", tune=True)
    room = cublaslt.plan(0, gemm_choice.row_major(a, a, out, False, False, 1, 0, "")).workspace
    with monkeypatch.context() as patch:
        counters.leave(patch, room)
        assert ran(ops, a, out) == 0
    assert ran(ops, a, out) == 0
    assert not list(cache.glob("*"))
    assert ran(backend.get("cuda:0", tune=True), a, out) == 3
    again = backend.get("cuda:0", tune=True)
    again.load_algorithms(ops.export_algorithms())
    assert ran(again, a, out) == 0


def test_a_candidate_that_fails_is_left_out(counters, cache, operands, monkeypatch):
    called = fake.cublasLtMatmul

    def fails(*arguments):
        algorithm = ctypes.string_at(arguments[12].value, 64)
        return 15 if algorithm[8] in (3, 4) else called(*arguments)

    monkeypatch.setattr(fake, "cublasLtMatmul", fails)
    assert ran(backend.get("cuda:0", tune=True), *operands) == 1


def test_a_candidate_that_cannot_be_captured_is_left_out(counters, cache, operands, monkeypatch):
    """Whether its call says so, or only the end of the capture, which fails then in either case."""
    called = fake.cublasLtMatmul
    ops = backend.get("cuda:0", tune=True)

    def fails(*arguments):
        algorithm = ctypes.string_at(arguments[12].value, 64)[8]
        stream = ops.xp.cuda.get_current_stream()
        if algorithm not in (3, 4) or not stream.is_capturing():
            return called(*arguments)
        stream._invalidated = True
        return 15 if algorithm == 3 else 0

    monkeypatch.setattr(fake, "cublasLtMatmul", fails)
    assert ran(ops, *operands) == 1


def test_what_is_wrong_with_a_capture_is_told(counters):
    """The error of the work, not that of the capture's end."""
    ops = backend.get("cuda:0")

    def fails():
        ops.xp.cuda.get_current_stream()._invalidated = True
        raise cublaslt.CublasError("cublasLtMatmul", "CUBLAS_STATUS_NOT_SUPPORTED")

    with pytest.raises(cublaslt.CublasError):
        ops.capture(fails)
