"""An estimator's network: the host copies of its weights, its trainer, and how both are pickled."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np

from gpumlp import activation, arrays, memory, propagate
from gpumlp import device as devices
from gpumlp.network import CHUNK_BYTES, MLP
from gpumlp.parameters import Parameters
from gpumlp.threads import Lock

GROUPS = ("coefs", "intercepts")


class Spec(NamedTuple):
    """What a network is made from, but for its device."""

    sizes: tuple[int, ...]
    hidden: tuple
    output: Any
    dtype: str
    dropout: Any
    precision: str = "float32"


class Engine:
    """The network `net` (None until it is needed) and its `trainer` (None before a stochastic fit).

    coefs (N_{k-1}, N_k) and intercepts (N_k,) are lists of NumPy arrays, as scikit-learn has them.
    Users may keep such a list, change its arrays in place, replace an item or assign a whole list:
    from the moment that a list has been handed out, it is read again before the network works, and
    written again after a `partial_fit`.  A list that nobody asked for costs nothing.

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
        self.best: Any = None  # theta of the best validation score, on the device
        self.lists: dict[str, Any] = dict.fromkeys(GROUPS)
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
        if self.lists[name] is None:
            if self.net is None:
                raise AttributeError(f"{name}_ does not exist before fit, or before it is set")
            self.lists[name] = self._download(name)
        return self.lists[name]

    def _download(self, name: str) -> list[np.ndarray]:
        net = self.net
        with net.ops.on_device():
            parameters = Parameters(net.layout, np.array(net.ops.to_host(net.parameters.buffer)))
        if name == "coefs":
            return [np.ascontiguousarray(W[0].T) for W in parameters.W[1:]]
        return [b[0].copy() for b in parameters.b[1:]]

    def push(self) -> None:
        """What users may have changed becomes the network's."""
        if self._training or all(values is None for values in self.lists.values()):
            return
        net = self.net
        with net.ops.on_device():
            buffer = np.array(net.ops.to_host(net.parameters.buffer))
            parameters = Parameters(net.layout, buffer)
            targets = {"coefs": [W[0].T for W in parameters.W[1:]]}
            targets["intercepts"] = [b[0] for b in parameters.b[1:]]
            for name, values in self.lists.items():
                if values is not None:
                    _fill(f"{name}_", targets[name], values)
            net.parameters.buffer[...] = net.ops.to_device(buffer)

    @contextlib.contextmanager
    def training(self, in_place: bool):
        """Within, the network's weights are ahead of the lists that users hold; at the end these
        are written, or left to be what they were."""
        self._training = True
        try:
            yield
        finally:
            self._training = False
            self._pull(in_place)

    def _pull(self, in_place: bool) -> None:
        for name, values in self.lists.items():
            if values is None:
                continue
            if not in_place:
                self.lists[name] = None
                continue
            for k, new in enumerate(self._download(name)):
                old = values[k]
                if isinstance(old, np.ndarray) and old.flags.writeable and old.dtype == new.dtype:
                    old[...] = new
                else:
                    values[k] = new

    # ------------------------------------------------------------ the network
    def build(self, spec: Spec, device: str, weights=None) -> None:
        """The network of that description on that device ("cpu" or "cuda:i").

        weights: coefs and intercepts to begin with; without them those that are there go on.
        """
        if weights is None and (spec, device) == (self.spec, self.device) and self.net is not None:
            self.push()
            return
        slopes = None
        held = [name for name in GROUPS if self.lists[name] is not None]
        if weights is not None:
            self.lists = dict(zip(GROUPS, weights, strict=True))
            self.trainer = self.best = None
            self._stored = {}
        else:
            slopes = self._leave()
        self.spec, self.device = spec, device
        self.net = MLP(
            spec.sizes,
            spec.hidden,
            spec.output,
            dtype=spec.dtype,
            device=device,
            init="zeros",
            dropout=spec.dropout,
            precision=spec.precision,
        )
        if slopes:
            self._restore_slopes(slopes)
        self.push()
        for name in GROUPS:
            if weights is not None or name not in held:
                self.lists[name] = None

    def move(self, device: str) -> None:
        """Let a network that is still to be made be made there."""
        self.device = device

    def _leave(self):
        """Take what must survive off the old network; the slopes {k: value} are returned."""
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
        """n^(K) (rows, N_K) of features, sparse ones too; on their side, in chunks that fit the
        device."""
        with self.lock:
            net = self.awake()
            if not hasattr(X, "toarray"):
                return net.forward(X)
            parts = [net.forward(part) for part in dense_parts(X, net)]
            return np.concatenate(parts)

    def hidden(self, X, k: int):
        """n^(k) (rows, N_k), on the side that X is on."""
        with self.lock:
            net, rows, on_gpu = self.awake(), X.shape[0], arrays.is_on_gpu(X)
            ops, noise = net.ops, [None] * (net.K + 1)
            chunk = max(1, CHUNK_BYTES // (3 * sum(net.sizes) * net.dtype.itemsize))
            with ops.on_device(), memory.explained(net, min(rows, chunk), purpose="step"):
                out = (ops.xp if on_gpu else np).empty((rows, net.sizes[k]), net.dtype)

                def compute(start, stop):
                    part = X[start:stop]
                    part = part.toarray() if hasattr(part, "toarray") else part
                    ws = net.workspaces.get(stop - start, "step")
                    x = arrays.settle(part, net)[None]
                    propagate.forward(net, ws, x, noise, last=net.K)
                    n = net.values(ws.n[k])[0]
                    out[start:stop] = n if on_gpu else ops.to_host(n)

                memory.in_chunks(rows, chunk, compute)
            return out

    # ------------------------------------------------------------ the optimiser
    def optimizer_state(self) -> dict | None:
        """The trainer's slots, steps and numbers, on the host; None without a trainer."""
        trainer = self.trainer
        if trainer is None:
            return self._stored.get("optimizer")
        ops = self.net.ops
        with ops.on_device():
            slots = {
                name: np.array(ops.to_host(buffer))
                for name, buffer in trainer.slots.items()
                if buffer is not None
            }
            return {
                "slots": slots,
                "steps": np.array(ops.to_host(trainer.state.t)),
                "optimizer": trainer.optimizer,
                "seed": trainer.seed,
                "issued": trainer.rates.issued,
                "factors": dict(trainer.rates.memory),
            }

    def stored_seed(self, kind: type) -> int | None:
        """Of the trainer that was stored, if its optimiser is of that kind."""
        state = self._stored.get("optimizer")
        return state.get("seed") if state and type(state["optimizer"]) is kind else None

    def take_trainer(self, trainer, goes_on: bool) -> None:
        """A new trainer; if it goes on, with what was stored of one of the same law."""
        state = self._stored.pop("optimizer", None)
        self.trainer = trainer
        if not goes_on or state is None or type(state["optimizer"]) is not type(trainer.optimizer):
            return
        ops, itemsize = self.net.ops, self.net.dtype.itemsize
        with ops.on_device():
            for name, stored in state["slots"].items():
                buffer = trainer.slots[name]
                if buffer is not None and stored.shape == buffer.shape:
                    buffer[...] = ops.to_device(stored.astype(f"f{itemsize}"))
            trainer.state.t[...] = ops.to_device(state["steps"])
        trainer.rates.issued = state["issued"]
        trainer.rates.memory = dict(state["factors"])
        trainer.retune(lr=state["optimizer"].lr)

    def remember_best(self) -> None:
        with self.net.ops.on_device():
            self.best = self.net.parameters.buffer.copy()

    def forget_best(self) -> None:
        self.best = self._stored["best"] = None

    def recall_best(self) -> None:
        """The best weights of a pickle come back to the device."""
        stored = self._stored.pop("best", None)
        if stored is not None and stored.shape == self.net.parameters.buffer.shape:
            with self.net.ops.on_device():
                self.best = self.net.ops.to_device(stored.astype(self.net.dtype))

    def restore_best(self) -> None:
        """The best weights, if any were remembered, become the network's."""
        if self.best is not None:
            with self.net.ops.on_device():
                self.net.parameters.buffer[...] = self.best

    # ------------------------------------------------------------ pickling
    def __getstate__(self):
        state: dict[str, Any] = {"spec": self.spec, "device": self.device, "slopes": {}}
        for name in GROUPS:
            values = self.lists[name]
            newer = values is None or self._training  # than what users hold
            state[name] = self._download(name) if newer and self.net else values
        state["optimizer"], state["best"] = self.optimizer_state(), self._stored.get("best")
        if self.net is not None:
            ops = self.net.ops
            with ops.on_device():
                for k, slope in enumerate(self.net.parameters.slope):
                    if slope is not None:
                        state["slopes"][k] = float(ops.to_host(slope)[0])
                if self.best is not None:
                    state["best"] = np.array(ops.to_host(self.best))
        else:
            state["slopes"] = self._stored.get("slopes", {})
        return state

    def __setstate__(self, state):
        self._begin()
        self.spec, self.device = state["spec"], state["device"]
        self.lists = {name: state[name] for name in GROUPS}
        self._stored = {key: state[key] for key in ("slopes", "optimizer", "best")}


def _fill(name: str, targets: list, values) -> None:
    if len(values) != len(targets):
        raise ValueError(f"{name} has {len(values)} arrays; the network has {len(targets)} layers")
    for k, (target, value) in enumerate(zip(targets, values, strict=True), 1):
        if np.shape(value) != target.shape:
            raise ValueError(
                f"{name}[{k - 1}] has shape {np.shape(value)}; layer {k} takes {target.shape}"
            )
        target[...] = value


def device_or_cpu(device: str) -> str:
    """The device of a pickle, or the CPU where it is not to be had."""
    if device != "cpu" and devices.gpu_problem(devices.parse(device)[1]) is not None:
        return "cpu"
    return device


def dense_parts(X, net):
    """Chunks of sparse rows, dense."""
    for start in range(0, X.shape[0], net.chunk_rows):
        yield X[start : start + net.chunk_rows].toarray()


def draw(sizes, follows, rng) -> tuple[list, list]:
    """Initial weights in scikit-learn's order and by its rule: uniform in ±√(f / (N_{k-1} + N_k)),
    f = 2 for layers that a sigmoid follows, else 6; each layer's weights, then its biases.

    follows: an activation for each layer; the output counts as the last hidden layer's.
    """
    coefs, intercepts = [], []
    for fan_in, fan_out, f in zip(sizes[:-1], sizes[1:], follows, strict=True):
        factor = 2.0 if activation.find(f).name == "sigmoid" else 6.0
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(rng.uniform(-bound, bound, (fan_in, fan_out)))
        intercepts.append(rng.uniform(-bound, bound, fan_out))
    return coefs, intercepts
