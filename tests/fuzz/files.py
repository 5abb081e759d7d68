"""Damaged files: `load` and `resume` refuse them by FileError, or what they give is whole: it
computes numbers, and trains on or says by an exception of the library's own why it does not."""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpumlp
from tests.fuzz import ACCEPTED, Fault, damage, refused, seeds

LIMIT = 10.0
MEMORY = 1 << 29
SECONDS = 1.0  # of the processor, that reading such a small file may take

# How training may end that begins with what was in a file.
OWN = (ValueError, TypeError, MemoryError, gpumlp.DivergenceError)


class Seed(NamedTuple):
    path: Path
    raw: bytes
    content: damage.Content


class Shared(NamedTuple):
    """pool: all values that stand in the descriptions of the files."""

    seeds: list[Seed]
    pool: list
    folder: Path


def prepare(folder: Path) -> Shared:
    (folder / "seeds").mkdir()
    seeds.write(folder / "seeds")
    paths = sorted((folder / "seeds").iterdir())
    found = [Seed(path, path.read_bytes(), damage.read(path)) for path in paths]
    places = [place for each in found for place in damage.places(each.content.about)]
    values = {repr(container[key]): container[key] for container, key in places}
    pool = [value for shown, value in values.items() if len(shown) < 300]
    return Shared(found, pool, folder / "case")


def one(random: np.random.Generator, shared: Shared) -> str:
    shared.folder.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (_folder if random.integers(10) == 0 else _file)(random, shared)
    finally:
        shutil.rmtree(shared.folder)


def _damaged(random, shared: Shared, seed: Seed) -> bytes:
    if random.integers(6) == 0:
        other = shared.seeds[random.integers(len(shared.seeds))].raw
        return damage.of_bytes(random, seed.raw, other)
    return damage.structured(random, seed.content, shared.pool)


def _file(random, shared: Shared) -> str:
    seed = shared.seeds[random.integers(len(shared.seeds))]
    path = shared.folder / "file.safetensors"
    path.write_bytes(_damaged(random, shared, seed))
    resumes = seed.path.name.startswith("checkpoint") and random.integers(2)
    return look(path, resumes, random.integers(2))


def look(path: Path, resumes, trains) -> str:
    """What comes of reading the file, by `resume` or `load`, and of training on."""
    begin = time.process_time()
    try:
        found = (gpumlp.resume if resumes else gpumlp.load)(path, device="cpu")
    except gpumlp.FileError as error:
        return refused(error)
    finally:
        if (took := time.process_time() - begin) > SECONDS:
            raise Fault("slow", f"{path.stat().st_size} bytes took {took:.1f} s")
    _compute(found)
    if trains:
        _train(found)
    return ACCEPTED


def _folder(random, shared: Shared) -> str:
    """A whole checkpoint under damaged ones: it is taken, or a newer one that is not so damaged."""
    good = [each for each in shared.seeds if each.path.name.startswith("checkpoint")]
    count, place = random.integers(1, 5), random.integers(6)
    for number in range(count):
        seed = good[random.integers(len(good))]
        raw = seed.raw if number == place else _damaged(random, shared, seed)
        (shared.folder / f"checkpoint-{number:06d}.safetensors").write_bytes(raw)
    try:
        found = gpumlp.resume(shared.folder, device="cpu")
    except gpumlp.FileError as error:
        if place < count:
            raise Fault("a good checkpoint was passed over", str(error)) from error
        return refused(error)
    _compute(found)
    return ACCEPTED


# ---------------------------------------------------------------- what was found
def _compute(found: Any) -> None:
    """Of numbers it makes numbers, as it comes from its file."""
    _look_at_weights(found)
    if _is_tabular(found):
        # Of a table of other columns they may say that it is one.
        with contextlib.suppress(ValueError, TypeError):
            table = seeds.table(hasattr(found, "feature_names_in_"))
            for method in ("predict", "predict_proba", "predict_std"):
                if hasattr(found, method):
                    _whole(f"{method}()", getattr(found, method)(table))
    elif hasattr(found, "predict"):
        named = hasattr(found, "feature_names_in_")
        frame = seeds.features(named and list(found.feature_names_in_) == list("abcd"))
        methods = ["predict", "predict_proba", "decision_function"]
        methods += ["predict_std"] if hasattr(found, "estimators_") else []
        for method in methods:
            if hasattr(found, method):
                _whole(f"{method}()", getattr(found, method)(frame))
    else:
        net = getattr(found, "net", found)
        _whole("forward()", net.forward(np.resize(seeds.X, (3, net.sizes[0]))))


def _is_tabular(found: Any) -> bool:
    return isinstance(found, gpumlp.TabularClassifier | gpumlp.TabularRegressor)


def _look_at_weights(found: Any) -> None:
    if _is_tabular(found):
        fit = vars(found).get("_unfinished")  # of a checkpoint, which is not fitted yet
        nets = [stack.net for stack in (fit.stacks if fit else found._stacks)]
        for i, net in enumerate([*nets, fit.trainer.net] if fit else nets):
            _whole(f"theta of stack {i}", net.theta)
    elif hasattr(found, "predict"):
        for each in getattr(found, "estimators_", [found]):
            for k, weights in enumerate(each.coefs_):
                _whole(f"coefs_[{k}]", weights)
    else:
        _whole("theta", getattr(found, "net", found).theta)


def _targets(estimator) -> np.ndarray:
    """Such as it was fitted on."""
    if not hasattr(estimator, "classes_"):
        return seeds.REAL[:, 0 if _is_tabular(estimator) else slice(estimator.n_outputs_)]
    if _is_tabular(estimator):
        fit = vars(estimator).get("_unfinished")
        classes = fit.classes if fit else estimator.classes_
        return classes[seeds.CODES % len(classes)]
    if estimator._binarizer.y_type_.startswith("multilabel"):
        return seeds.SEVERAL
    return estimator.classes_[seeds.CODES % len(estimator.classes_)]


def _whole(what: str, values) -> None:
    values = np.asarray(values)
    if values.dtype.kind == "f" and (wrong := np.count_nonzero(~np.isfinite(values))):
        raise Fault(f"silent NaN in {what}", f"{wrong} of {values.size} numbers are not finite")


def _train(found: Any) -> None:
    """A little, whatever the file says of how much it was to be.  Rates that a file may well have
    make weights of which no numbers come, but they are numbers themselves."""
    if _is_tabular(found):
        found.max_epochs = found.n_models = 2
        with contextlib.suppress(*OWN):
            found.fit(seeds.table(hasattr(found, "feature_names_in_")), _targets(found))
            _look_at_weights(found)
    elif hasattr(found, "predict"):
        found.max_iter = 2
        with contextlib.suppress(*OWN):  # a fit that is refused may leave nothing
            found.fit(seeds.features(hasattr(found, "feature_names_in_")), _targets(found))
            _look_at_weights(found)
    elif hasattr(found, "fit"):
        with contextlib.suppress(*OWN):
            seeds.fit(found, 2, [gpumlp.EarlyStopping(3)])
        _look_at_weights(found)
