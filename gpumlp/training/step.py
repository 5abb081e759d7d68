"""Update networks on a batch: forward, backward, and (14)(15)."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.backend.contract import Array, Batch, Factors, Noise, Occurring, State
from gpumlp.model import slices
from gpumlp.model.blocks import shared
from gpumlp.model.network import Network
from gpumlp.model.objective import Objective
from gpumlp.model.parameters import Gradient
from gpumlp.training.learning_rates import LearningRates
from gpumlp.training.state import TrainingState


@dataclass
class TrainingStep:
    """Updates networks; all that an update reads and writes stays on the device.

    family:    the optimiser's operation.
    grad:      the gradient, in the layout of the parameters.
    buffers:   the optimiser's state, (M, P) each, or None where it is not in use.
    hyper:     (M, len(HYPERS)), the optimiser's numbers.
    rates:     whose table of the schedule's factors may be replaced.
    device:    counters and losses.
    noise:     of each layer, see `Network.noise`.
    penalised: the parameters whose penalties are added to the loss, or None.
    factors:   of slices of the parameters on learning rate and decay, or None.
    lazy:      whether only the weights of features that occur in a batch move.
    """

    net: Network
    objective: Objective
    family: str
    grad: Gradient
    buffers: list[Array | None]
    seeds: Array
    hyper: Array
    rates: LearningRates
    device: State
    noise: list[Noise | None]
    penalised: Array | None
    factors: Factors | None
    lazy: bool

    @classmethod
    def of(cls, state: TrainingState, objective, optimizer, penalty_in_loss: bool):
        """The step of a whole training."""
        net = state.net
        theta = net.parameters.buffer
        return cls(
            net=net,
            objective=objective,
            family=optimizer.family,
            grad=Gradient.zeros(net),
            buffers=list(state.buffers.values()),
            seeds=state.seeds,
            hyper=state.hyper,
            rates=state.rates,
            device=state.device,
            noise=net.noise(state.seeds, state.device.t),
            penalised=theta if penalty_in_loss else None,
            factors=state.factors,
            lazy=optimizer.lazy,
        )

    def take(self, members: slice, net: Network) -> TrainingStep:
        """The step of some networks of the stack, `net`, on their parts of all arrays."""
        device, seeds = self.device, self.seeds[members]
        part = {name: getattr(device, name)[members] for name in PER_NETWORK}
        losses, weights = device.losses[:, members], device.weights[:, members]
        return TrainingStep(
            net=net,
            objective=self.objective,
            family=self.family,
            grad=self.grad.take(members),
            buffers=[shared(buffer, members) for buffer in self.buffers],
            seeds=seeds,
            hyper=self.hyper[members],
            rates=self.rates,
            device=State(losses=losses, weights=weights, **part),
            noise=net.noise(seeds, part["t"]),
            penalised=shared(self.penalised, members),
            factors=self.factors,
            lazy=self.lazy,
        )

    @property
    def replaced(self) -> tuple:
        """The arrays of a captured update that may be replaced between two fits."""
        return self.device.losses, self.rates.table

    def update(self, ws, batch: Batch, parts: int = 1) -> None:
        """Update all networks: forward and backward by `parts` slices of the batch, and (14)(15).

        The loss of each network before the update is left in ws.loss.
        """
        net, device = self.net, self.device
        slices.loss_and_backward(net, ws, batch, self.objective, self.grad, self.noise, parts)
        net.ops.prepare_update(
            self.grad.buffer,
            ws.loss,
            batch.w_sum,
            self.hyper,
            self.rates.table,
            self.rates.first,
            device,
            self.penalised,
            0 if self.penalised is None else net.layout.decayed,
        )
        # (14)  W^(k) <- W^(k) - lr (dL/dW^(k) + l2 W^(k));  (15)  b^(k) <- b^(k) - lr dL/db^(k)
        net.ops.update(
            self.family,
            net.parameters.buffer,
            self.grad.buffer,
            self.buffers,
            device.scalars,
            self.hyper,
            device.t,
            device.stopped_at,
            net.layout.decayed,
            self.factors,
            Occurring(self.grad.occurs, net.sizes[1]) if self.lazy else None,
        )


PER_NETWORK = ("t", "stopped_at", "cursor", "norm", "scalars")  # of State, (M, ...)
