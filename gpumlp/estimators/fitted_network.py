"""An estimator's network with the host copies of its weights and its trainer; all are pickled."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backend import device as devices
from gpumlp.backend.layout import Layout
from gpumlp.functions import activation
from gpumlp.model import arrays, memory, propagate
from gpumlp.model.mlp import MLP
from gpumlp.model.parameters import Parameters
from gpumlp.model.shape import CHUNK_BYTES
from gpumlp.utils.locks import Lock

GROUPS = {"coefs": "W", "intercepts": "b"}  # as users and as parameters.py name them


_versions = itertools.count()


class Spec(NamedTuple):
    """The arguments that a network is made from, but for its device."""

    sizes: tuple[int, ...]
    hidden: tuple
    output: Any
    dtype: str
    dropout: Any
    precision: str = "float32"
    sparse: bool = False


class FittedNetwork:
    """Holds the network `net` (None until it is needed) and its `trainer` (None before a stochastic
    fit), and the host copies of the weights.

    coefs (N_{k-1}, N_k) and intercepts (N_k,) are lists of NumPy arrays, as scikit-learn has them.
    Users may keep such a list, change its arrays in place, replace an item or assign a whole list:
    once a list has been handed out, it is read again before the network works, and written again
    after a `partial_fit`.  When it was changed since, one piece of theta is sent, from the first
    change to the last.  A list that nobody asked for costs nothing.

    version: a number, unique in the process, which changes with training and initial weights.
    shared:  whether users may change the weights in a list.

    Pickles hold NumPy arrays only; the network is made again on whatever device there is then.
    """

    count = 1  # of networks

    def __init__(self):
        self._begin()

    def _begin(self):
        self.spec: Any = None
        self.device = "auto"
        self.net: Any = None
        self.trainer: Any = None
        self.rows: Any = None  # of the last partial_fit, if they were few
        self.best: Any = None  # theta of the best validation score, on the device
        self.lists: dict[str, Any] = dict.fromkeys(GROUPS)
        self._sent: dict[str, list] = {}  # of the lists that there are: what the network has of it
        self.version, self.shared = next(_versions), False
        self._stored: dict[str, Any] = {}  # from a pickle or another device, until it is used
        self._training = False
        self.lock = Lock()  # several threads may predict; a network has one workspace

    # ------------------------------------------------------------ the host's copies
    @property
    def has_weights(self) -> bool:
        return self.net is not None or all(self.lists[name] is not None for name in GROUPS)

    def handed_out(self, name: str) -> list:
        """The list of host arrays, which is the user's from now on; in training, a copy."""
        if self._training:
            return self._download(name)
        if self.lists[name] is None and self.net is None:
            raise AttributeError(f"{name}_ does not exist before fit, or before it is set")
        self.shared = True
        return self.listed(name)

    def take(self, name: str, values: list) -> None:
        """Keep a list of host arrays from a user, as the newest weights."""
        self.lists[name], self.shared = values, True

    def listed(self, name: str) -> list:
        """The list, which is read again from now on."""
        if self.lists[name] is None:
            self._sent[name] = self._download(name)
            self.lists[name] = [array.copy() for array in self._sent[name]]
        return self.lists[name]

    def _forget(self, name: str) -> None:
        self.lists[name] = None
        self._sent.pop(name, None)

    def _download(self, name: str) -> list[np.ndarray]:
        net = self.net
        with net.ops.on_device():
            parameters = Parameters(net.layout, np.array(net.ops.to_host(net.parameters.buffer)))
        if name == "coefs":
            return [np.ascontiguousarray(W[0].T) for W in parameters.W[1:]]
        return [b[0].copy() for b in parameters.b[1:]]

    def push(self) -> None:
        """Send what users have changed to the network, in one copy."""
        if self._training:
            return
        with self.lock:
            newest, changed = self._newest()
            if not changed:
                return
            layout, ops = self.net.layout, self.net.ops
            theta = np.zeros((1, layout.size), self.net.dtype)
            for name, values in newest.items():
                views = getattr(Parameters(layout, theta), GROUPS[name])
                for view, value in zip(views[1:], values, strict=True):
                    view[0] = value.T
            # Between two places lie only lists: first come the weights, then the biases.
            part = slice(min(p.start for p in changed), max(p.stop for p in changed))
            with ops.on_device():
                self.net.parameters.buffer[:, part] = ops.to_device(theta[:, part])
            self._sent = newest

    def _newest(self) -> tuple[dict[str, list], list[slice]]:
        """The lists as the network takes them, and the slices of theta that are to be sent."""
        layout, newest, changed = self.net.layout, dict(self._sent), []
        for name, values in [pair for pair in self.lists.items() if pair[1] is not None]:
            places = getattr(layout, GROUPS[name])
            sent = self._sent.get(name) or [None] * len(places)
            newest[name] = _taken(f"{name}_", values, sent, layout.sizes, self.net.dtype)
            pairs = zip(places.values(), sent, newest[name], strict=True)
            changed += [place for place, old, new in pairs if new is not old]
        return newest, changed

    @contextlib.contextmanager
    def training(self, in_place: bool):
        """A context in which the network's weights are ahead of the lists that users hold.

        in_place: write the lists at the end; else users keep what they were, and get new ones.
        """
        self._training = True
        try:
            yield
        finally:
            self._training = False
            self._pull(in_place)

    def _pull(self, in_place: bool) -> None:
        self.version, self.shared = next(_versions), self.shared and in_place
        for name, values in self.lists.items():
            if values is None:
                continue
            if not in_place:
                self._forget(name)
                continue
            self._sent[name] = self._download(name)
            for k, new in enumerate(self._sent[name]):
                old = values[k]
                if isinstance(old, np.ndarray) and old.flags.writeable and old.dtype == new.dtype:
                    old[...] = new
                else:
                    values[k] = new.copy()

    # ------------------------------------------------------------ the network
    def build(self, spec: Spec, device: str, weights=None) -> None:
        """Make the network on that device ("cpu" or "cuda:i"), unless it is there.

        weights: initial coefs and intercepts; None keeps the weights and the optimiser's state.
        """
        if weights is None and (spec, device) == (self.spec, self.device) and self.net is not None:
            self.push()
            return
        slopes = None
        kept = [name for name in GROUPS if self.lists[name] is not None]
        if weights is not None:
            self.lists = dict(zip(GROUPS, weights, strict=True))
            self.trainer = self.best = None
            self._stored = {}
            self.version, self.shared = next(_versions), False
        else:
            slopes = self._leave()
            if self.spec is not None and spec.sparse != self.spec.sparse:
                self._lay_out_again(spec, tuple(slopes or ()))
        self.spec, self.device, self.rows = spec, device, None
        self.net = MLP(
            spec.sizes,
            spec.hidden,
            spec.output,
            dtype=spec.dtype,
            device=device,
            init="zeros",
            dropout=spec.dropout,
            precision=spec.precision,
            sparse=spec.sparse,
        )
        if slopes:
            self._restore_slopes(slopes)
        self._sent = {}
        self.push()
        for name in GROUPS:
            if weights is not None or name not in kept:
                self._forget(name)

    def _lay_out_again(self, spec: Spec, learned: tuple[int, ...]) -> None:
        """Bring what is stored of the optimiser into the layout of another spec."""

        def laid_out(theta):
            old, new = (
                Layout(spec.sizes, learned, theta.itemsize, sparse=kind.sparse)
                for kind in (self.spec, spec)
            )
            result = Parameters(new, np.zeros((1, new.size), theta.dtype))
            for target, source in zip(result.all(), Parameters(old, theta).all(), strict=True):
                target[...] = source
            return result.buffer

        if self._stored.get("best") is not None:
            self._stored["best"] = laid_out(self._stored["best"])
        if self._stored.get("optimizer"):
            optimizer = dict(self._stored["optimizer"])
            optimizer["slots"] = {n: laid_out(slot) for n, slot in optimizer["slots"].items()}
            self._stored["optimizer"] = optimizer

    def move(self, device: str) -> None:
        """Set the device of a network that is still to be made."""
        self.device = device

    def _leave(self):
        """Drop the old network, but for weights and optimiser; returns its slopes {k: value}."""
        if self.net is None:
            return self._stored.pop("slopes", None)
        state = self.__getstate__()
        self.lists["coefs"], self.lists["intercepts"] = state["coefs"], state["intercepts"]
        self._stored = {key: state[key] for key in ("optimizer", "best")}
        self.net = self.trainer = self.best = None
        return state["slopes"]

    def _restore_slopes(self, slopes: dict[int, float]) -> None:
        with self.net.ops.on_device():
            for k, value in slopes.items():
                if self.net.parameters.slope[k] is not None:
                    self.net.parameters.slope[k].fill(value)

    def awake(self) -> MLP:
        """The network with the newest weights; made again if it was pickled."""
        if self.net is None:
            self.build(self.spec, device_or_cpu(self.device))
        else:
            self.push()
        return self.net

    # ------------------------------------------------------------ what it computes
    def outputs(self, X):
        """n^(K) (rows, N_K) of dense or sparse features, on their side."""
        with self.lock:
            return self._awake_for(X).forward(X)

    def _awake_for(self, X) -> MLP:
        """The network, in the layout for sparse rows if X is sparse."""
        net = self.awake()
        if not arrays.is_sparse(X) or net.shape.sparse:
            return net
        if self._training:  # on dense rows: a callback asks
            return net.like(sparse=True)
        self.build(self.spec._replace(sparse=True), self.device)
        return self.net

    def hidden(self, X, k: int):
        """n^(k) (rows, N_k), on the side that X is on."""
        with self.lock:
            net, rows, on_gpu = self._awake_for(X), X.shape[0], arrays.is_on_gpu(X)
            ops, noise = net.ops, [None] * (net.K + 1)
            x = arrays.features(X, "X", net, finite=False).array
            widths = sum(net.sizes[1 if net.shape.sparse else 0 :])
            chunk = max(1, CHUNK_BYTES // (3 * widths * net.dtype.itemsize))
            with (
                ops.on_device(),
                memory.explain_oom(net.shape, ops, min(rows, chunk), purpose="step"),
            ):
                out = (ops.xp if on_gpu else np).empty((rows, net.sizes[k]), net.dtype)

                def compute(start, stop):
                    part = arrays.to_device(arrays.some_rows(x, start, stop), net)
                    ws = net.network.workspaces.get(stop - start, "step")
                    propagate.forward(net.network, ws, part, noise, last=net.K)
                    n = net.values(ws.n[k])[0]
                    out[start:stop] = n if on_gpu else ops.to_host(n)

                memory.in_chunks(rows, chunk, compute)
            return out

    # ------------------------------------------------------------ the optimiser
    def optimizer_state(self) -> dict | None:
        """The trainer's state buffers, steps and numbers, on the host; None without a trainer."""
        trainer = self.trainer
        if trainer is None:
            return self._stored.get("optimizer")
        return optimizer_entry(trainer.state_dict(), trainer.optimizer, trainer.seed)

    def stored_seed(self, kind: type) -> int | None:
        """The seed of the trainer that was stored, if its optimiser is of that kind."""
        state = self._stored.get("optimizer")
        return state.get("seed") if state and type(state["optimizer"]) is kind else None

    def take_trainer(self, trainer, goes_on: bool) -> None:
        """Keep a new trainer; if it goes on, load the stored state of such an optimiser."""
        state = self._stored.pop("optimizer", None)
        self.trainer = trainer
        if not goes_on or state is None or type(state["optimizer"]) is not type(trainer.optimizer):
            return
        new = trainer.state_dict()
        for name, buffer in new["buffers"].items():
            stored = state["slots"].get(name)
            if stored is not None and stored.shape == buffer.shape:
                new["buffers"][name] = stored.astype(buffer.dtype)
        new["steps"], new["rates"]["issued"] = state["steps"], state["issued"]
        if state["factors"].keys() == trainer.rates.memory.keys():  # the same schedule, a plateau
            new["rates"]["memory"] = state["factors"]
        trainer.load_state_dict(new)
        trainer.retune(lr=state["optimizer"].lr)

    def remember_best(self) -> None:
        """Keep a copy of the weights, as the best so far."""
        with self.net.ops.on_device():
            self.best = self.net.parameters.buffer.copy()

    def forget_best(self) -> None:
        self.best = self._stored["best"] = None

    def recall_best(self) -> None:
        """Send the best weights of a pickle to the device."""
        stored = self._stored.pop("best", None)
        if stored is not None and stored.shape == self.net.parameters.buffer.shape:
            with self.net.ops.on_device():
                self.best = self.net.ops.to_device(stored.astype(self.net.dtype))

    def restore_best(self) -> None:
        """Copy the best weights, if any were remembered, into the network."""
        if self.best is not None:
            with self.net.ops.on_device():
                self.net.parameters.buffer[...] = self.best

    def weights(self) -> dict[str, Any]:
        """coefs, intercepts and slopes {k: value}, on the host."""
        weights: dict[str, Any] = {"slopes": self._stored.get("slopes", {})}
        for name in GROUPS:
            values = self.lists[name]
            newer = values is None or self._training  # than what users hold
            weights[name] = self._download(name) if newer and self.net else values
        if self.net is not None:
            with self.net.ops.on_device():
                slopes, to_host = self.net.parameters.slope, self.net.ops.to_host
                weights["slopes"] = {
                    k: float(to_host(s)[0]) for k, s in enumerate(slopes) if s is not None
                }
        return weights

    # ------------------------------------------------------------ pickling
    def __getstate__(self):
        state = {"spec": self.spec, "device": self.device, **self.weights()}
        state["optimizer"], state["best"] = self.optimizer_state(), self._stored.get("best")
        if self.best is not None:
            with self.net.ops.on_device():
                state["best"] = np.array(self.net.ops.to_host(self.best))
        return state

    def __setstate__(self, state):
        self._begin()
        self.spec, self.device = state["spec"], state["device"]
        self.lists = {name: state[name] for name in GROUPS}
        self._stored = {key: state[key] for key in ("slopes", "optimizer", "best")}


def _taken(name: str, values, sent: list, sizes, dtype) -> list:
    """Copies of a list's arrays in the network's dtype; where one equals the array that was sent to
    the bit, that array itself."""
    if len(values) != len(sent):
        raise ValueError(f"{name} has {len(values)} arrays; the network has {len(sent)} layers")
    taken, bits = [], f"u{dtype.itemsize}"
    for k, (value, old) in enumerate(zip(values, sent, strict=True), 1):
        shape = sizes[k - 1 : k + 1] if name == "coefs_" else sizes[k : k + 1]
        if np.shape(value) != shape:
            raise ValueError(
                f"{name}[{k - 1}] has shape {np.shape(value)}; layer {k} takes {shape}"
            )
        new = np.asarray(value, dtype)
        same = old is not None and np.array_equal(new.view(bits), old.view(bits))
        taken.append(old if same else np.array(new))
    return taken


def optimizer_entry(state: dict[str, Any], optimizer, seed: int) -> dict[str, Any]:
    """The entry of an optimiser in the state of a `FittedNetwork`.

    state: a trainer's state dictionary, of which the arrays are copied.
    """
    rates = state["rates"]
    return {
        "slots": {name: np.array(buffer) for name, buffer in state["buffers"].items()},
        "steps": np.array(state["steps"]),
        "optimizer": optimizer,
        "seed": seed,
        "issued": rates["issued"],
        "factors": dict(rates["memory"]),
    }


def device_or_cpu(device: str) -> str:
    """The device of a pickle, or the CPU where it cannot be used."""
    if device != "cpu" and devices.gpu_problem(devices.parse(device)[1]) is not None:
        return "cpu"
    return device


def draw(sizes, follows, rng) -> tuple[list, list]:
    """Draw initial weights in scikit-learn's order and by its rule.

    They are uniform in ±√(f / (N_{k-1} + N_k)), f = 2 for layers that a sigmoid follows, else 6;
    each layer's weights, then its biases.

    follows: an activation for each layer; the output counts as the last hidden layer's.
    """
    memory.check_weights(sizes)
    coefs, intercepts = [], []
    for fan_in, fan_out, f in zip(sizes[:-1], sizes[1:], follows, strict=True):
        factor = 2.0 if activation.find(f).name == "sigmoid" else 6.0
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(rng.uniform(-bound, bound, (fan_in, fan_out)))
        intercepts.append(rng.uniform(-bound, bound, fan_out))
    return coefs, intercepts
