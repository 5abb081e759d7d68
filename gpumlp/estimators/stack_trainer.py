"""The training of member estimators in one stack of networks, each by the course of its own fit."""

from __future__ import annotations

import functools
from dataclasses import fields, replace
from types import SimpleNamespace
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
    """One for all, with a number for each; AdamW without decay is Adam."""
    kind = max((type(each) for each in optimizers), key=lambda each: each is AdamW)
    if kind is AdamW:
        optimizers = [
            each if isinstance(each, AdamW) else AdamW(**vars(each), weight_decay=0.0)
            for each in optimizers
        ]
    first, numbers = optimizers[0], {}
    for name in (f.name for f in fields(first)):
        values = [getattr(each, name) for each in optimizers]
        shared = isinstance(values[0], bool | np.bool_)  # what kind of law it is
        numbers[name] = values[0] if shared else np.array(values, dtype=np.float64)
    return kind(**numbers)


def dropouts(runs: list[MemberTask]) -> Any:
    """The dropout of each hidden layer, one for each network."""
    hidden = len(runs[0].spec.sizes) - 2
    each = [np.broadcast_to(np.asarray(run.spec.dropout), hidden) for run in runs]
    return [np.array(layer, dtype=np.float64) for layer in np.transpose(each)]


class StackTrainer:
    """A stack in training: `run` trains it, and hands each member what its fit has come to.

    runs: the members in it; one whose course has ended stands still, and when half of a stack have
    ended, the others go on in a smaller one.
    """

    def __init__(
        self, runs: list[MemberTask], samples: Samples, given: Samples | None, device: str
    ):
        """samples: all rows, dense;  given: the validation set of all, where users gave one."""
        self.runs, self._samples, self._given = runs, samples, given
        self._device = device
        first = runs[0]
        weights = [run.weights() for run in runs]
        self.net = make_stack(first.spec, device, weights, dropouts(runs))
        del weights
        clip = [np.inf if run.est.clip_norm is None else run.est.clip_norm for run in runs]
        self.trainer = Trainer(
            self.net,
            first.loss,
            stacked_optimizer([run.optimizer for run in runs]),
            max(run.batch_size for run in runs),
            first.est.schedule,
            shuffle=False,
            seed=[run.seed for run in runs],
            clip_norm=None if np.isinf(clip).all() else np.array(clip),
            penalty_in_loss=True,
        )
        with self.net.ops.on_device():
            self._best: Any = None
            if any(run.est.early_stopping for run in runs):
                self._best = self.net.parameters.buffer.copy()
            given_rows = read(self.net, self.trainer.objective, *self._training_data())
            self._make_rows(given_rows)
        self._done = self._longest = 0  # epochs; and as many as each is to have at most
        self._going: list[tuple[int, MemberTask]] = []  # those that train in this epoch
        share_orders(runs)
        for run in runs:
            run.course.begin(run.validated)
        steps = max(run.steps for run in runs)
        self.trainer.rates.plan(steps, max(run.est.max_iter for run in runs) * steps)

    # ------------------------------------------------------------ the data
    def _training_data(self):
        """X, targets and weights of all rows: shared, where they are the same for all."""
        runs, samples = self.runs, self._samples
        count, none = samples.rows, runs[0].targets
        # Other rows may have classes that these networks have not.
        covered = np.zeros(count, bool)
        for rows in {id(rows): rows for run in runs for rows in (run.rows, run.held)}.values():
            if rows is not None:
                covered[rows] = True
        known = np.flatnonzero(covered)
        encoded = np.zeros((count, *none.shape[1:]), none.dtype)
        _, encoded[known] = runs[0].est._encoded_again(samples.y[known], samples.X.dtype)
        weight = samples.weight
        if any(run.weighs_classes for run in runs):
            weight = np.ones((len(runs), count), samples.X.dtype)
            if samples.weight is not None:
                weight[:] = samples.weight
            for own, run in zip(weight, runs, strict=True):
                if run.weight is not None:
                    own[run.train] = run.weight
        return self._seen(samples.X), encoded, weight

    def _seen(self, X):
        """The features, or those that each network sees, (M, R, k)."""
        if self.runs[0].columns is None:
            return X
        xp = self.net.ops.xp if arrays.is_on_gpu(X) else np
        return xp.stack([xp.take(X, xp.asarray(run.columns), axis=1) for run in self.runs])

    def _make_rows(self, given: Data):
        net, objective, runs = self.net, self.trainer.objective, self.runs
        self._rows = Rows.send(net, given, self.trainer.batch_size)
        self._order = np.full((len(runs), max(len(run.train) for run in runs)), -1, np.int32)
        self._evaluation: Any = None
        if not runs[0].validated:
            return
        if self._given is not None:
            X, _, encoded, weight = self._given
            self._evaluation = Evaluation(net, objective, self._seen(X), encoded, weight)
            return
        order: Any = np.full((len(runs), max(len(run.held) for run in runs)), -1, np.int32)
        for own, run in zip(order, runs, strict=True):
            own[: len(run.held)] = run.held
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
        net, runs, trainer = self.net, self.runs, self.trainer
        self._longest = max(run.est.max_iter for run in runs) if epochs is None else epochs
        told = SimpleNamespace(verbose=max(int(run.est.verbose) for run in runs))
        with (
            net.ops.on_device(),
            memory.explain_oom(
                net.shape, net.ops, trainer.batch_size, 2, memory.size_of(self._samples.X)
            ),
            blas_threads.limit_blas_threads(net.shape, trainer.batch_size),
            Interrupt() as interrupt,
            Progress(told, self._longest) as progress,
        ):
            again = False  # whether Ctrl-C came twice
            try:
                loop.run(self, interrupt, lambda: self._tell(told, progress))
            except KeyboardInterrupt:
                again = True
            self._hand_over(range(len(self.runs)))
            if again or self.trainer.history.interrupted:
                raise KeyboardInterrupt

    # ------------------------------------------------------------ see `loop.Fit`
    @property
    def epochs_left(self) -> int:
        """0 where every member's fit has ended, or each has had as many epochs as it was to."""
        longest = max(run.course.epochs_left for run in self.runs)
        return min(longest, max(0, self._longest - self._done))

    def train(self, interrupt) -> Epoch | None:
        self._done += 1
        self._going = [(m, run) for m, run in enumerate(self.runs) if run.course.epochs_left]
        if 2 * len(self._going) <= len(self.runs):
            self._go_on_with([m for m, _ in self._going])
            self._going = list(enumerate(self.runs))
        drawn: dict[int, Any] = {}
        for m, run in self._going:
            if run.draws not in drawn:
                drawn[run.draws] = run.course.next_order()
            order = drawn[run.draws]
            if order is not None:
                run.course.order = order
            self._order[m, : len(run.train)] = run.train if order is None else run.train[order]
        before = self.trainer.epoch
        epoch = self.trainer.run_epoch(self._rows, self._order, interrupt)
        return epoch if self.trainer.epoch > before else None

    def note(self, epoch: Epoch) -> None:
        for m, run in self._going:
            losses, weights = (table[: run.steps, m] for table in (epoch.losses, epoch.weights))
            run.course.trained(losses, weights, m in epoch.diverged)
        self.trainer.history.loss.append(np.array([run.course.est.loss_ for run in self.runs]))

    def validate(self) -> None:
        if self._evaluation is None:
            return
        values, accuracies = self._evaluation()
        known: list = []

        def outputs(m, count):
            """n^(K) of network m; those of all are computed once."""
            if not known:
                known.append(self._evaluation.outputs())
            return known[0][m, :count]

        for m, run in self._going:
            value = score = np.nan
            if not run.course.diverged:
                X, y, weight = self._held(run)
                value = float(values[m])
                accuracy = None if accuracies is None else float(accuracies[m])
                own = functools.partial(outputs, m, y.shape[0])
                try:
                    score = float(run.score(value, accuracy, own, X, y, weight))
                except Exception as error:  # as its fit alone would raise it; the others go on
                    run.course.error = error
            run.course.validated(value, score)
        losses = [run.course.est.validation_loss_curve_[-1] for run in self.runs]
        self.trainer.history.val_loss.append(np.array(losses))

    def judge(self, epoch: Epoch) -> None:
        for _, run in self._going:
            run.course.judge()
        self._follow(self._going)

    def _held(self, run: MemberTask):
        """X, where the score asks for it, y and weights of a member's validation set."""
        given = self._given
        if given is not None:
            X = array_io.host(given.X) if run.score.by_scikit_learn else None
            return X, given.y, given.weight
        if run.X_held is None and run.score.by_scikit_learn:
            run.X_held = array_io.host(estimator_rows.rows_of(self._samples.X, run.held))
        return run.X_held, run.y_held, run.weight_held

    def _follow(self, going):
        """Do what the courses say."""
        trainer, ops = self.trainer, self.net.ops
        improved = np.zeros((len(self.runs), 1), bool)
        improved[[m for m, run in going if run.course.improved]] = True
        if improved.any():
            best, theta = self._best, self.net.parameters.buffer
            ops.xp.copyto(best, theta, where=ops.to_device(improved))
        lr = np.array([run.course.lr for run in self.runs])
        optimizer: Any = trainer.optimizer
        if (lr != optimizer.lr).any():
            trainer.retune(lr=lr)
        ended = np.array([run.course.epochs_left == 0 for run in self.runs])
        if ended[[m for m, _ in going]].any():
            trainer.stop(ended)

    def _tell(self, told, progress):
        if told.verbose:
            going = sum(run.course.epochs_left > 0 for run in self.runs)
            told.n_iter_ = max(run.est.n_iter_ for run in self.runs)
            told.loss_ = np.mean([run.est.loss_ for run in self.runs])
            told.validation_scores_ = None
            progress.epoch()
            progress.say(f"{going} of {len(self.runs)} networks go on.")

    # ------------------------------------------------------------ leaving
    def keep(self, places) -> bool:
        """Those of these places go on in a smaller stack, if there are any."""
        members = [m for m, run in enumerate(self.runs) if run.place in places]
        if 0 < len(members) < len(self.runs):
            with self.net.ops.on_device():
                self._go_on_with(members)
        return bool(members)

    def _go_on_with(self, members: list[int]):
        """These alone, in a smaller stack."""
        self._hand_over(m for m in range(len(self.runs)) if m not in set(members))
        ops, old = self.net.ops, self._rows.data
        self.trainer = select(self.trainer, members)
        self.net = self.trainer.net
        self.runs = [self.runs[m] for m in members]
        index = ops.to_device(np.array(members))

        def own(array):
            return array if array is None or len(array) == 1 else ops.xp.take(array, index, axis=0)

        self._best = own(self._best)
        self._make_rows(Data(*map(own, old)))

    def _hand_over(self, members):
        """What these networks have come to becomes their estimators'."""
        ops, trainer = self.net.ops, self.trainer
        theta = ops.to_host(self.net.parameters.buffer)
        best: Any = None if self._best is None else ops.to_host(self._best)
        trained = trainer.state_dict()
        memory_of_rates = trained["rates"]["memory"]
        for m in members:
            run = self.runs[m]
            chosen = best if run.course.goes_back else theta
            state = weights_of(self.net, chosen[m : m + 1])
            used = run.optimizer.state_buffers()
            part = {
                "buffers": {n: b[m : m + 1] for n, b in trained["buffers"].items() if used.get(n)},
                "steps": trained["steps"][m : m + 1],
                "rates": {
                    "issued": run.steps * run.est.n_iter_,
                    "memory": {name: v[m : m + 1] for name, v in memory_of_rates.items()},
                },
            }
            optimizer = replace(run.optimizer, lr=run.course.lr)
            state["optimizer"] = optimizer_entry(part, optimizer, run.seed)
            state["best"] = best[m : m + 1].copy() if run.est.early_stopping else None
            state |= {"spec": run.spec, "device": self._device}
            if run.columns is not None:
                state = widened(state, run.columns, self._samples.X.shape[1])
            run.est._engine = FittedNetwork()
            run.est._engine.__setstate__(state)


def weights_of(net, theta) -> dict[str, Any]:
    """coefs, intercepts and slopes of a row (1, P) of parameters on the host."""
    views = Parameters(net.layout, theta)
    return {
        "coefs": [np.ascontiguousarray(W[0].T) for W in views.W[1:]],
        "intercepts": [b[0].copy() for b in views.b[1:]],
        "slopes": {k: float(s[0]) for k, s in enumerate(views.slope) if s is not None},
    }
