"""The state of a training, which files, copies and shrinking stacks take as one dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backend.contract import Array, Factors
from gpumlp.backend.sources import SCALARS
from gpumlp.functions import schedule as schedules
from gpumlp.functions.optimizer import HYPERS
from gpumlp.model.network import Network
from gpumlp.training import history as histories
from gpumlp.training.device_state import DeviceState
from gpumlp.training.history import History
from gpumlp.training.learning_rates import LearningRates

RATE = SCALARS.index("RATE")


class TrainingState:
    """Holds all that changes while networks are trained.

    net:          whose parameters they are.
    buffers:      the optimiser's state, name -> (M, P), or None where it is not in use.
    device:       counters and losses on the device.
    seeds:        (M,) uint64, of order, dropout and drawn slopes.
    hyper:        (M, len(HYPERS)), the optimiser's numbers as the operations read them.
    factors:      of slices of the parameters on learning rate and decay, or None; they stay.
    rates:        the schedule, and how far it has come.
    history, epoch: of all fits so far.
    batches_done: of the epoch that has begun.
    epochs_left:  of the running or last fit; None before the first.

    numbers: (M, len(HYPERS)) float64, the optimiser's, without a plateau's factors.
    """

    def __init__(
        self,
        net: Network,
        buffers: dict[str, bool],
        seeds,
        numbers: np.ndarray,
        schedule: Any,
        factors: Factors | None = None,
    ):
        xp, theta = net.ops.xp, net.parameters.buffer
        self.net, self.numbers = net, numbers
        self.buffers: dict[str, Array | None] = {
            name: xp.zeros_like(theta) if used else None for name, used in buffers.items()
        }
        self.seeds = xp.asarray(seeds)
        self.hyper = xp.asarray(numbers.astype(net.dtype))
        self.factors = factors
        self.device = DeviceState.zeros(xp, net.M, net.dtype)
        self.rates = LearningRates(net, self.device, schedules.find(schedule))
        self.history = History()
        self.epoch = self.batches_done = 0
        self.epochs_left: int | None = None

    @property
    def used_buffers(self) -> dict[str, Array]:
        """The optimiser's buffers that are in use."""
        return {name: array for name, array in self.buffers.items() if array is not None}

    # ------------------------------------------------------------ on the device
    def make_room(self, steps: int, done: int = 0) -> None:
        """Make the tables those of so many batches, and keep the losses of the batches done."""
        with self.net.ops.on_device():
            self.device.make_room(self.net.ops.xp, steps, done)

    def apply_plateau(self) -> None:
        """Set the learning rates on the device: the optimiser's times the plateau's factors."""
        hyper = self.numbers.copy()
        hyper[:, HYPERS.index("LR")] *= self.rates.memory.get("factor", 1.0)
        with self.net.ops.on_device():
            self.hyper[...] = self.net.ops.to_device(hyper.astype(self.net.dtype))

    def stopped_at(self) -> np.ndarray:
        """(M,): 0, or why a network stands still, see `contract.State`; reads the device."""
        return self.net.ops.to_host(self.device.stopped_at).copy()

    def stop(self, stopped_at: np.ndarray) -> None:
        """Set which networks stand still from now on, (M,), as in `contract.State`."""
        if (stopped_at != self.stopped_at()).any():
            with self.net.ops.on_device():
                self.device.stopped_at[...] = self.net.ops.to_device(stopped_at)

    # ------------------------------------------------------------ taken and given back
    def state_dict(self, on_host: bool = True) -> dict[str, Any]:
        """The whole state; arrays are on the host or, with on_host False, the device's own."""
        get = self.net.ops.to_host if on_host else lambda array: array
        device, done = self.device, self.batches_done
        tables = {"losses": device.losses, "weights": device.weights} if done else {}
        return {
            "parameters": get(self.net.parameters.buffer),
            "sparse": self.net.layout.sparse,
            "buffers": {name: get(array) for name, array in self.used_buffers.items()},
            "steps": get(device.t),
            "stopped_at": get(device.stopped_at),
            "lr": get(device.scalars)[:, RATE],
            **{name: get(table)[:done] for name, table in tables.items()},
            "rates": self.rates.state(),
            "history": self.history.state(),
            "epoch": self.epoch,
            "batches_done": done,
            "epochs_left": self.epochs_left,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned; its arrays may be on the host or the device.

        Raises ValueError where the parameters' layout, buffers or a plateau's memory are not those
        of this training.
        """
        sparse, there = self.net.layout.sparse, state.get("sparse", False)
        if there != sparse:
            raise ValueError(
                f"the state is of a network with sparse={there}, whose W[1] lies in memory as "
                f"another than that of this one with sparse={sparse}"
            )
        buffers, known = state["buffers"], self.used_buffers
        if buffers.keys() != known.keys():
            raise ValueError(f"the optimizer's state has {list(buffers)}, not {list(known)}")
        self.epoch, self.epochs_left = state["epoch"], state["epochs_left"]
        self.batches_done = done = state["batches_done"]
        self.history = histories.from_state(state["history"])
        self.rates.load_state(state["rates"])
        device = self.device
        pairs = [
            (self.net.parameters.buffer, state["parameters"]),
            *((array, buffers[name]) for name, array in known.items()),
            (device.t, state["steps"]),
            (device.stopped_at, state["stopped_at"]),
            (device.scalars[:, RATE], state["lr"]),
        ]
        with self.net.ops.on_device():
            if done:
                self.make_room(done)  # not of all steps, which may be any number
                for name, table in (("losses", device.losses), ("weights", device.weights)):
                    pairs.append((table[:done], state[name]))
            for target, values in pairs:
                target[...] = self.net.ops.to_device(values)
        self.apply_plateau()


def take(state: dict[str, Any], members: np.ndarray, take_rows) -> dict[str, Any]:
    """Select some networks of a state dictionary, between two epochs.

    members: their numbers, (m,); take_rows(array, axis=0): these of an array on the device.
    """
    places = {m: i for i, m in enumerate(members.tolist())}
    history, rates = dict(state["history"]), dict(state["rates"])
    for name in ("loss", "val_loss", "val_accuracy", "lr"):
        history[name] = [np.asarray(values)[members].tolist() for values in history[name]]
    diverged = history["diverged"].items()
    history["diverged"] = {str(places[int(m)]): t for m, t in diverged if int(m) in places}
    rates["memory"] = {key: np.asarray(value)[members] for key, value in rates["memory"].items()}
    names = ("parameters", "steps", "stopped_at", "lr")
    return state | {
        **{name: take_rows(state[name]) for name in names},
        "buffers": {name: take_rows(array) for name, array in state["buffers"].items()},
        "history": history,
        "rates": rates,
    }
