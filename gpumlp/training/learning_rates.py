"""Keep the schedule's factors on the device, where `prepare_update` looks up each network's."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpumlp.functions.schedule import Plateau, Schedule
from gpumlp.utils import checks

AHEAD = 1024  # updates for which factors are computed at once, at least


class LearningRates:
    """Keeps a table of the schedule's factors on the device.

    table[t - first[0]]: the factor of the update after t updates; None for a constant rate.
    Beyond the updates that `extend` was called for the table holds anything.

    One table serves all networks: how many updates a network has made may differ, the schedule does
    not.  A plateau's factors, one per network, are memory["factor"] (M,), which the trainer puts
    into the learning rates themselves.
    """

    def __init__(self, net, state, schedule):
        self._net, self._state = net, state
        self.schedule = schedule
        self.steps_per_epoch: int | None = None
        self.total: int | None = None  # updates of all fits, when the running one will have ended
        self.issued = 0  # updates asked for so far; a network that skipped some is behind
        self._until = 0
        self.table = None
        self.first = net.ops.xp.zeros(1, np.int64)
        self.memory = schedule.begin(net.M) if self._by_plateau else {}

    def state(self) -> dict[str, Any]:
        """The state of the schedule; memory: of a plateau, name -> (M,)."""
        return {
            "issued": self.issued,
            "steps_per_epoch": self.steps_per_epoch,
            "total": self.total,
            "memory": {name: value.copy() for name, value in self.memory.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Load what `state` returned; raises ValueError for the memory of another schedule."""
        self.issued, self.total = state["issued"], state["total"]
        self.steps_per_epoch = state["steps_per_epoch"]
        if state["memory"].keys() != self.memory.keys():
            raise ValueError(f"rates.memory has {list(state['memory'])}, not {list(self.memory)}")
        for name, values in state["memory"].items():
            known = self.memory[name]
            if np.shape(values) != known.shape:
                raise ValueError(
                    f"rates.memory.{name} is of {len(values)} networks, not {len(known)}"
                )
            self.memory[name] = np.array(values, known.dtype)

    @property
    def _by_plateau(self) -> bool:
        return isinstance(self.schedule, Plateau)

    def plan(self, steps_per_epoch: int, steps: int, resume: bool = False):
        """Plan the schedule of a fit of so many updates; a resumed one keeps its length."""
        end = self.issued + steps
        self.total = max(end, self.total or 0) if resume else end
        self.steps_per_epoch = steps_per_epoch
        self._until = 0  # the factors may differ from those worked out before

    def extend(self, steps: int):
        """Extend the table to the next updates; raises ValueError for a factor that is none."""
        needed = self.issued + steps
        if self.schedule is not None and not self._by_plateau and needed > self._until:
            start = self._fewest()
            until = max(needed, self.issued + AHEAD)
            if self.total is not None and needed <= self.total:
                until = min(until, self.total)  # a function may end where the fit ends
            factors = self.factors(np.arange(start, until))
            usable = _usable(factors)
            if start + usable < needed:
                raise ValueError(
                    f"schedule = {checks.shown(self.schedule)} gave the factor {factors[usable]} "
                    f"for update {start + usable}: it is negative or not finite"
                )
            self._until = start + usable
            self._write(factors[:usable])
            self.first.fill(start)
        self.issued = needed

    def _write(self, factors):
        """Write factors into the table, whose address captured steps know: it is replaced only by a
        larger one."""
        xp = self._net.ops.xp
        if self.table is None or len(self.table) < len(factors):
            self.table = xp.zeros(max(AHEAD, len(factors)), self._net.dtype)
        self.table[: len(factors)] = xp.asarray(factors)

    def _fewest(self) -> int:
        """The fewest updates made by any network that still moves; reads the device."""
        t, stopped_at = (self._net.ops.to_host(a) for a in (self._state.t, self._state.stopped_at))
        return int(t[stopped_at == 0].min(initial=self.issued))

    def factors(self, steps: np.ndarray) -> np.ndarray:
        """The factor of each update, in the network's dtype."""
        function = self.schedule
        if isinstance(function, Schedule):
            function = functools.partial(
                function.factors, steps_per_epoch=self.steps_per_epoch, total=self.total
            )
        try:
            values = function(steps)
            with np.errstate(over="ignore"):  # `extend` says what is infinite
                values = np.asarray(values, dtype=self._net.dtype)
            values = np.broadcast_to(values, steps.shape)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"schedule = {checks.shown(self.schedule)} takes an array of updates and gives "
                f"their factors, but: {error}"
            ) from error
        return np.ascontiguousarray(values)

    def observe(self, history) -> bool:
        """Show an epoch to a plateau; whether its factors may have changed."""
        if not self._by_plateau:
            return False
        monitor = self.schedule.monitor or ("val_loss" if history.val_loss else "loss")
        self.schedule.observe(self.memory, np.atleast_1d(history.last(monitor)))
        return True

    def at(self, member: int, step: int) -> float:
        """The factor of one network in the update after `step` updates."""
        if self._by_plateau:
            return float(self.memory["factor"][member])
        return 1.0 if self.schedule is None else float(self.factors(np.array([step]))[0])


def _usable(factors: np.ndarray) -> int:
    """How many factors come before the first that is negative or not finite."""
    good = np.isfinite(factors) & (factors >= 0)
    return len(good) if good.all() else int(good.argmin())
