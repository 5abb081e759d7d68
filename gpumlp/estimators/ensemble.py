"""A fitted ensemble: many networks as one, asked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from gpumlp.estimators.fitted_network import GROUPS, Spec, device_or_cpu
from gpumlp.model import arrays
from gpumlp.model.mlp import MLP
from gpumlp.model.parameters import Parameters
from gpumlp.utils.locks import Lock

if TYPE_CHECKING:
    from gpumlp.utils.aliases import Array, Features


class Ensemble:
    """An ensemble holds its fitted members, and for predictions their networks in one stack.

    The stack is made when it is first needed.  An ensemble takes the place that the `FittedNetwork`
    has of a single network.  Whoever asks for the estimators may change them: from then on they are
    looked at before the stack works, and what has changed in their weights is sent.

    Parameters
    ----------
    estimators : list of estimators
        The fitted members.
    diverged : (M,) array of bool
        Those that have no say in the predictions.
    """

    has_weights = True

    def __init__(self, estimators: list[Any], diverged: np.ndarray) -> None:
        self._estimators, self.diverged = estimators, diverged
        self.net: Any = None
        self._shown = False  # the estimators
        self._sparse = False  # whether the stack has been asked about sparse rows
        # spec, device, the members' `FittedNetwork.version`
        self._made_of: tuple[Any, ...] = (None, "", [])
        self._sent: dict[int, np.ndarray] = {}  # row of the stack -> its parameters, where known
        self._lock = Lock()

    @property
    def estimators(self) -> list[Any]:
        """The members, which whoever asks may change."""
        self._shown = True
        return self._estimators

    @property
    def _asked(self) -> list[Any]:
        return [e for e, out in zip(self._estimators, self.diverged, strict=True) if not out]

    @property
    def count(self) -> int:
        """Networks that are asked."""
        return len(self._asked)

    @property
    def spec(self) -> Spec:
        """What the members' networks are made from."""
        return self._asked[0]._engine.spec

    @property
    def lists(self) -> NoReturn:
        raise AttributeError("an ensemble has the weights of many networks: see its estimators_")

    def handed_out(self, name: str) -> Any:
        return self.lists

    def take(self, name: str, values: Any) -> Any:
        return self.lists

    def move(self, device: str) -> None:
        """Let the networks be made there."""
        for estimator in self.estimators:
            estimator._engine.move(device)

    def awake(self) -> MLP:
        """The stack of networks."""
        with self._lock:
            if self.net is None or self._shown:
                engines = [member._ready() for member in self._asked]
                outputs = {member.out_activation_ for member in self._asked}
                if len(outputs) > 1:
                    raise ValueError(
                        f"out_activation_ differs among the estimators_: {', '.join(outputs)}"
                    )
                self._renew(engines)
            return self.net

    def _renew(self, engines: list[Any]) -> None:
        """Make the stack, or send the rows of theta that have changed since, in one copy."""
        spec, device = self.spec, device_or_cpu(engines[0].device)
        spec = spec._replace(sparse=spec.sparse or self._sparse)
        made_of = spec, device, [engine.version for engine in engines]
        *kind, before = self._made_of
        if self.net is None or [spec, device] != kind or len(before) != len(engines):
            self.net = make_stack(spec, device, [engine.weights() for engine in engines])
            self._made_of, self._sent = made_of, {}
            return
        ops, theta, changed = self.net.ops, self.net.parameters.buffer, {}
        with ops.on_device():
            for m, engine in enumerate(engines):
                if engine.version != before[m]:
                    weights = engine.weights()
                elif engine.shared:
                    weights = {name: engine.listed(name) for name in GROUPS}
                else:
                    continue
                sent = self._sent.get(m)
                row = np.array(ops.to_host(theta[m : m + 1]) if sent is None else sent)
                write(Parameters(self.net.layout, row), 0, weights)
                if sent is None or row.tobytes() != sent.tobytes():
                    changed[m] = row
            if changed:
                rows = ops.to_device(np.concatenate(list(changed.values())))
                for m, row in zip(changed, rows, strict=True):
                    theta[m] = row
        self._made_of = made_of
        self._sent |= changed

    def outputs(self, X: Features) -> Array:
        """n^(K) (M, rows, N_K) of features, sparse ones too, on their side."""
        with self._lock:
            if arrays.is_sparse(X) and not self._sparse:
                self._sparse, self.net = True, None
            return self.awake().forward(X)

    def hidden(self, X: Features, k: int) -> Array:
        """n^(k) of all members side by side, (rows, M N_k), on the side that X is on."""
        parts = [member._engine.hidden(X, k) for member in self._asked]
        net = self.awake()
        with net.ops.on_device():
            xp = np if isinstance(parts[0], np.ndarray) else net.ops.xp
            return xp.concatenate(parts, axis=1)

    def __getstate__(self) -> dict[str, Any]:
        return {"estimators": self._estimators, "diverged": self.diverged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["estimators"], state["diverged"])  # type: ignore[misc]


def pooled(outputs: Array, left_to_do: str, xp: Any) -> Array:
    """One output (rows, N_K) for those of all members, (M, rows, N_K), such that it stands for the
    mean of their probabilities.

    left_to_do: what makes an output a probability, see `_from_outputs_to_probabilities`.
    """
    if left_to_do == "exp":
        return xp.log(xp.exp(outputs).mean(axis=0))
    if left_to_do == "shares":
        outputs = outputs / outputs.sum(axis=2, keepdims=True)
    return outputs.mean(axis=0)


def empty_stack(spec: Spec, device: str, models: int, dropout: Any = 0.0) -> MLP:
    """A stack of so many networks, whose weights are still to be given."""
    return MLP(
        spec.sizes,
        spec.hidden,
        spec.output,
        models=models,
        dtype=spec.dtype,
        device=device,
        init="zeros",
        dropout=dropout,
        precision=spec.precision,
        sparse=spec.sparse,
    )


def make_stack(spec: Spec, device: str, states: list[dict[str, Any]], dropout: Any = 0.0) -> MLP:
    """A stack of networks with these weights: coefs, intercepts and slopes of each."""
    net = empty_stack(spec, device, len(states), dropout)
    with net.ops.on_device():
        theta = np.array(net.ops.to_host(net.parameters.buffer))
        views = Parameters(net.layout, theta)
        for m, state in enumerate(states):
            write(views, m, state)
        net.parameters.buffer[...] = net.ops.to_device(theta)
    return net


def write(views: Parameters, m: int, state: dict[str, Any]) -> None:
    """coefs, intercepts and slopes, where there are such, become those of network m."""
    for k, (coef, intercept) in enumerate(zip(state["coefs"], state["intercepts"], strict=True), 1):
        views.W[k][m] = np.asarray(coef).T
        views.b[k][m] = intercept
    for k, slope in state.get("slopes", {}).items():
        views.slope[k][m] = slope
