"""Train several estimators as one stack of networks, each by the stopping rule of its own fit."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from typing import Any

import numpy as np

from gpumlp.backend.contract import Data
from gpumlp.estimators import array_io, estimator_rows
from gpumlp.estimators.ensemble import make_stack
from gpumlp.estimators.feature_subset import widened
from gpumlp.estimators.fitted_network import FittedNetwork, optimizer_entry
from gpumlp.estimators.member_task import MemberTask, share_orders
from gpumlp.estimators.messages import Progress
from gpumlp.estimators.validation import Samples
from gpumlp.functions.optimizer import AdamW, Optimizer
from gpumlp.model import arrays, blas_threads, memory
from gpumlp.model.parameters import Parameters
from gpumlp.training import loop
from gpumlp.training.device_state import Epoch
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.rows import Rows, read
from gpumlp.training.select import select
from gpumlp.training.trainer import Trainer
from gpumlp.utils.interrupt import Interrupt


def stacked_optimizer(optimizers: list[Any]) -> Optimizer:
    """Join optimisers into one, with a number for each network; AdamW without decay is Adam."""
    kind = max((type(optimizer) for optimizer in optimizers), key=lambda cls: cls is AdamW)
    if kind is AdamW:
        optimizers = [
            optimizer
            if isinstance(optimizer, AdamW)
            else AdamW(**vars(optimizer), weight_decay=0.0)
            for optimizer in optimizers
        ]
    first, numbers = optimizers[0], {}
    for name in (f.name for f in fields(first)):
        values = [getattr(optimizer, name) for optimizer in optimizers]
        shared = isinstance(values[0], bool | np.bool_)  # which update rule it is
        numbers[name] = values[0] if shared else np.array(values, dtype=np.float64)
    return kind(**numbers)


def dropouts(tasks: list[MemberTask]) -> Any:
    """The dropout rates of each hidden layer, (M,): one for each network."""
    hidden = len(tasks[0].spec.sizes) - 2
    rates = [np.broadcast_to(np.asarray(task.spec.dropout), hidden) for task in tasks]
    return [np.array(layer, dtype=np.float64) for layer in np.transpose(rates)]


class StackTrainer:
    """Trains a stack, and gives each member's estimator what its fit has come to.

    tasks: the members in the stack; one whose fit has ended stands still, and when half of a stack
           have ended, the others go on in a smaller one.
    """

    def __init__(
        self, tasks: list[MemberTask], samples: Samples, validation: Samples | None, device: str
    ):
        """samples: all rows, dense;  validation: the users' own, of all members, or None."""
        self.tasks, self._samples, self._validation = tasks, samples, validation
        self._device = device
        first = tasks[0]
        weights = [task.weights() for task in tasks]
        self.net = make_stack(first.spec, device, weights, dropouts(tasks))
        del weights
        clip = [np.inf if task.est.clip_norm is None else task.est.clip_norm for task in tasks]
        self.trainer = Trainer(
            self.net,
            first.loss,
            stacked_optimizer([task.optimizer for task in tasks]),
            max(task.batch_size for task in tasks),
            first.est.schedule,
            shuffle=False,
            seed=[task.seed for task in tasks],
            clip_norm=None if np.isinf(clip).all() else np.array(clip),
            penalty_in_loss=True,
        )
        with self.net.ops.on_device():
            self._best: Any = None
            if any(task.est.early_stopping for task in tasks):
                self._best = self.net.parameters.buffer.copy()
            self._make_rows(read(self.net, self.trainer.objective, *self._training_data()))
        self._done = self._longest = 0  # epochs; and as many as each is to have at most
        self._going: list[tuple[int, MemberTask]] = []  # those that train in this epoch
        share_orders(tasks)
        for task in tasks:
            task.rule.begin(task.validated)
        steps = max(task.steps for task in tasks)
        self.trainer.rates.plan(steps, max(task.est.max_iter for task in tasks) * steps)

    # ------------------------------------------------------------ the data
    def _training_data(self):
        """X, targets and weights of all rows: shared, where they are the same for all."""
        tasks, samples = self.tasks, self._samples
        count, none = samples.rows, tasks[0].targets
        # Other rows may have classes that these networks have not.
        covered = np.zeros(count, bool)
        for rows in {
            id(rows): rows for task in tasks for rows in (task.rows, task.held_out)
        }.values():
            if rows is not None:
                covered[rows] = True
        known = np.flatnonzero(covered)
        encoded = np.zeros((count, *none.shape[1:]), none.dtype)
        _, encoded[known] = tasks[0].est._encoded_again(samples.y[known], samples.X.dtype)
        weight = samples.weight
        if any(task.weighs_classes for task in tasks):
            weight = np.ones((len(tasks), count), samples.X.dtype)
            if samples.weight is not None:
                weight[:] = samples.weight
            for member_weight, task in zip(weight, tasks, strict=True):
                if task.weight is not None:
                    member_weight[task.train] = task.weight
        return self._seen(samples.X), encoded, weight

    def _seen(self, X):
        """The features, or those that each network sees, (M, R, k)."""
        if self.tasks[0].columns is None:
            return X
        xp = self.net.ops.xp if arrays.is_on_gpu(X) else np
        return xp.stack([xp.take(X, xp.asarray(task.columns), axis=1) for task in self.tasks])

    def _make_rows(self, data: Data):
        """Send the training rows to the device, and make the `Evaluation`, if there is one."""
        net, objective, tasks = self.net, self.trainer.objective, self.tasks
        self._rows = Rows.send(net, data, self.trainer.batch_size)
        self._order = np.full((len(tasks), max(len(task.train) for task in tasks)), -1, np.int32)
        self._evaluation: Any = None
        if not tasks[0].validated:
            return
        if self._validation is not None:
            X, _, encoded, weight = self._validation
            self._evaluation = Evaluation(net, objective, self._seen(X), encoded, weight)
            return
        order: Any = np.full((len(tasks), max(len(task.held_out) for task in tasks)), -1, np.int32)
        for member_order, task in zip(order, tasks, strict=True):
            member_order[: len(task.held_out)] = task.held_out
        x, y, _ = self._rows.arrays
        # Some of the rows that are trained on: their values have been looked at.
        self._evaluation = Evaluation(
            net, objective, x, y, self._samples.weight, order, values=False
        )

    # ------------------------------------------------------------ the epochs
    def run(self, epochs: int | None = None):
        """Train all to their ends, or until each has had so many epochs; then they can go on.

        Ctrl-C raises KeyboardInterrupt, when the members have got what they had come to.
        """
        net, tasks, trainer = self.net, self.tasks, self.trainer
        self._longest = max(task.est.max_iter for task in tasks) if epochs is None else epochs
        verbose = max(int(task.est.verbose) for task in tasks)
        with (
            net.ops.on_device(),
            memory.explain_oom(
                net.shape, net.ops, trainer.batch_size, 2, memory.size_of(self._samples.X)
            ),
            blas_threads.limit_blas_threads(net.shape, trainer.batch_size),
            Interrupt() as interrupt,
            Progress(verbose, self._longest) as progress,
        ):
            again = False  # whether Ctrl-C came twice
            try:
                loop.run(self, interrupt, lambda: self._report(progress))
            except KeyboardInterrupt:
                again = True
            self._hand_over(range(len(self.tasks)))
            if again or self.trainer.history.interrupted:
                raise KeyboardInterrupt

    # ------------------------------------------------------------ see `loop.Fit`
    @property
    def epochs_left(self) -> int:
        """0 where every member's fit has ended, or each has had as many epochs as it was to."""
        longest = max(task.rule.epochs_left for task in self.tasks)
        return min(longest, max(0, self._longest - self._done))

    def train(self, interrupt) -> Epoch | None:
        self._done += 1
        self._going = [(m, task) for m, task in enumerate(self.tasks) if task.rule.epochs_left]
        if 2 * len(self._going) <= len(self.tasks):
            self._go_on_with([m for m, _ in self._going])
            self._going = list(enumerate(self.tasks))
        drawn: dict[int, Any] = {}
        for m, task in self._going:
            if task.draws not in drawn:
                drawn[task.draws] = task.rule.next_order()
            order = drawn[task.draws]
            if order is not None:
                task.rule.order = order
            self._order[m, : len(task.train)] = task.train if order is None else task.train[order]
        before = self.trainer.epoch
        epoch = self.trainer.run_epoch(self._rows, self._order, interrupt)
        return epoch if self.trainer.epoch > before else None

    def note(self, epoch: Epoch) -> None:
        for m, task in self._going:
            losses, weights = (table[: task.steps, m] for table in (epoch.losses, epoch.weights))
            task.rule.trained(losses, weights, m in epoch.diverged)
        self.trainer.history.loss.append(np.array([task.rule.est.loss_ for task in self.tasks]))

    def validate(self) -> None:
        if self._evaluation is None:
            return
        values, accuracies = self._evaluation()
        all_outputs: list = []

        def outputs(m, count):
            """n^(K) of network m; those of all are computed once."""
            if not all_outputs:
                all_outputs.append(self._evaluation.outputs())
            return all_outputs[0][m, :count]

        for m, task in self._going:
            value = score = np.nan
            if not task.rule.diverged:
                X, y, weight = self._validation_set(task)
                value = float(values[m])
                accuracy = None if accuracies is None else float(accuracies[m])
                member_outputs = functools.partial(outputs, m, y.shape[0])
                try:
                    score = float(task.score(value, accuracy, member_outputs, X, y, weight))
                except Exception as error:  # as its fit alone would raise it; the others go on
                    task.rule.error = error
            task.rule.validated(value, score)
        losses = [task.rule.est.validation_loss_curve_[-1] for task in self.tasks]
        self.trainer.history.val_loss.append(np.array(losses))

    def judge(self, epoch: Epoch) -> None:
        for _, task in self._going:
            task.rule.judge()
        self._apply_rules()

    def _validation_set(self, task: MemberTask):
        """X, where the score asks for it, y and weights of a member's validation set."""
        validation = self._validation
        if validation is not None:
            X = array_io.host(validation.X) if task.score.by_scikit_learn else None
            return X, validation.y, validation.weight
        if task.X_val is None and task.score.by_scikit_learn:
            task.X_val = array_io.host(estimator_rows.rows_of(self._samples.X, task.held_out))
        return task.X_val, task.y_val, task.weight_val

    def _apply_rules(self):
        """Keep the best weights, set the learning rates and stop networks, as their rules say."""
        trainer, ops = self.trainer, self.net.ops
        improved = np.zeros((len(self.tasks), 1), bool)
        improved[[m for m, task in self._going if task.rule.improved]] = True
        if improved.any():
            best, theta = self._best, self.net.parameters.buffer
            ops.xp.copyto(best, theta, where=ops.to_device(improved))
        lr = np.array([task.rule.lr for task in self.tasks])
        optimizer: Any = trainer.optimizer
        if (lr != optimizer.lr).any():
            trainer.retune(lr=lr)
        ended = np.array([task.rule.epochs_left == 0 for task in self.tasks])
        if ended[[m for m, _ in self._going]].any():
            trainer.stop(ended)

    def _report(self, progress: Progress):
        if progress.shown:
            going = sum(task.rule.epochs_left > 0 for task in self.tasks)
            epoch = max(task.est.n_iter_ for task in self.tasks)
            progress.epoch(epoch, np.mean([task.est.loss_ for task in self.tasks]))
            progress.say(f"{going} of {len(self.tasks)} networks go on.")

    # ------------------------------------------------------------ leaving
    def keep(self, places) -> bool:
        """Keep the members of these places, in a smaller stack; whether there are any."""
        members = [m for m, task in enumerate(self.tasks) if task.place in places]
        if 0 < len(members) < len(self.tasks):
            with self.net.ops.on_device():
                self._go_on_with(members)
        return bool(members)

    def _go_on_with(self, members: list[int]):
        """Train these networks alone from now on, in a smaller stack."""
        self._hand_over(m for m in range(len(self.tasks)) if m not in set(members))
        ops, old = self.net.ops, self._rows.data
        self.trainer = select(self.trainer, members)
        self.net = self.trainer.net
        self.tasks = [self.tasks[m] for m in members]
        index = ops.to_device(np.array(members))

        def take_rows(array):
            return array if array is None or len(array) == 1 else ops.xp.take(array, index, axis=0)

        self._best = take_rows(self._best)
        self._make_rows(Data(*map(take_rows, old)))

    def _hand_over(self, members):
        """Give these networks' estimators the weights and the optimiser's state."""
        ops, trainer = self.net.ops, self.trainer
        theta = ops.to_host(self.net.parameters.buffer)
        best: Any = None if self._best is None else ops.to_host(self._best)
        trained = trainer.state_dict()
        memory_of_rates = trained["rates"]["memory"]
        for m in members:
            task = self.tasks[m]
            chosen = best if task.rule.goes_back else theta
            state = weights_of(self.net, chosen[m : m + 1])
            used = task.optimizer.state_buffers()
            part = {
                "buffers": {n: b[m : m + 1] for n, b in trained["buffers"].items() if used.get(n)},
                "steps": trained["steps"][m : m + 1],
                "rates": {
                    "issued": task.steps * task.est.n_iter_,
                    "memory": {name: v[m : m + 1] for name, v in memory_of_rates.items()},
                },
            }
            optimizer = replace(task.optimizer, lr=task.rule.lr)
            state["optimizer"] = optimizer_entry(part, optimizer, task.seed)
            state["best"] = best[m : m + 1].copy() if task.est.early_stopping else None
            state |= {"spec": task.spec, "device": self._device}
            if task.columns is not None:
                state = widened(state, task.columns, self._samples.X.shape[1])
            task.est._engine = FittedNetwork()
            task.est._engine.__setstate__(state)


def weights_of(net, theta) -> dict[str, Any]:
    """coefs, intercepts and slopes of a row (1, P) of parameters on the host."""
    views = Parameters(net.layout, theta)
    return {
        "coefs": [np.ascontiguousarray(W[0].T) for W in views.W[1:]],
        "intercepts": [b[0].copy() for b in views.b[1:]],
        "slopes": {k: float(s[0]) for k, s in enumerate(views.slope) if s is not None},
    }
