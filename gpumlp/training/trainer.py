"""Training: many epochs of updates, validation, callbacks, and how a fit ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.functions import initializer
from gpumlp.functions.optimizer import Adam, Optimizer
from gpumlp.model import arrays, blas_threads, memory, slices, workspace
from gpumlp.model.graph_cache import GraphCache
from gpumlp.model.mlp import MLP
from gpumlp.model.objective import Objective
from gpumlp.training import callback, device_state, divergence, executors, loop
from gpumlp.training import factors as of_slices
from gpumlp.training import folds as of_rows
from gpumlp.training import progress as bars
from gpumlp.training.device_state import Epoch
from gpumlp.training.evaluate import Evaluation
from gpumlp.training.history import History
from gpumlp.training.learning_rates import LearningRates
from gpumlp.training.placement import make_rows
from gpumlp.training.rows import Rows, check_count
from gpumlp.training.state import RATE, TrainingState
from gpumlp.training.step import TrainingStep
from gpumlp.training.trainer_fit import TrainerFit
from gpumlp.utils import checks
from gpumlp.utils.interrupt import Interrupt

if TYPE_CHECKING:
    from gpumlp.functions.loss import Loss
    from gpumlp.training.callback import Callback
    from gpumlp.utils.aliases import Array, Data, LossLike, PerNetwork, ScheduleLike


class Trainer:
    """A trainer minimises the loss of a network, or of all networks of a stack in the same passes.

    Each update is a step of the optimiser, (14) and (15), along the gradient of one minibatch.

    Parameters
    ----------
    net : MLP
        The network or the stack; its parameters are changed in place.
    loss : str or Loss, default "cross_entropy"
        A name of `gpumlp.losses`, or an object.
    optimizer : SGD, RMSprop, Adam, AdamW or Lion, optional
        None is `Adam()`, with the learning rate 1e-3.  Its numbers may be one for each network.
    batch_size : int, default 128
        Rows of a minibatch; fewer rows make one batch.
    schedule : str, Schedule, Plateau or callable, optional
        The factor on the learning rate: a name of `gpumlp.schedules`, one of its objects, or a
        function that takes an array of the updates' numbers, from 0, and gives their factors.
        None is a constant rate.
    shuffle : bool, default True
        Whether each epoch takes the rows in a new order, by the network's own seed.
    reduction : {"mean", "sum"}, default "mean"
        The (weighted) mean over the batch's samples, or their sum, as (12) and (13) print it.
    seed : int or (M,) array of int, default 0
        Of order, dropout and drawn slopes; of a number, network m of a stack has seed + m.
    clip_norm : float or (M,) array, optional
        A gradient whose norm is larger is shortened to it, each network's by itself; infinity, or
        None for all, is no limit.
    penalty_in_loss : bool, default False
        Whether the losses of the history contain the optimiser's L1 and L2 penalties.
    factors : dict of str to (rate, decay), optional
        For the groups of parameters "W", "b", "s" and "slope": rate multiplies the learning rate,
        decay the penalties and the weight decay.  Both are numbers from 0 on, or one for each of
        the K layers.  A group that is left out has (1, 1) if it is "W", else (1, 0).  Networks with
        factors train by operations, also where `resident` is True; penalty_in_loss allows factors
        on the rate only.

    Attributes
    ----------
    net, optimizer, batch_size, shuffle, reduction, seed, clip_norm, penalty_in_loss, factors
        As given, and checked.
    loss : Loss
        The loss that is trained.
    history : History
        Of all fits so far.
    epoch : int
        Epochs of all fits so far.
    steps : int or (M,) array
        Updates made.
    lr : float or (M,) array
        The learning rate of the last update.
    epochs_left : int or None
        Of the running or last fit, or of the fit in which its file was written.
    batches_done : int
        Batches of the epoch in which Ctrl-C ended the fit.
    diverged : dict of int to int
        Network -> the update that was not finite, or its loss or gradient.
    resident : bool or None
        Whether epochs on rows that lie on a GPU are to be the work of the persistent kernel, where
        that is possible; None: if it is estimated to be faster by far
        (gpumlp/training/persistent.py).

    Raises
    ------
    ValueError
        For arguments that are out of range, and for a loss that does not fit the network's output.
    MemoryError
        Where the optimiser's state does not fit, with the bytes that it would take.

    Notes
    -----
    A second `fit` goes on where the first stopped: optimiser, schedule and order included.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> net = gpumlp.MLP((4, 8, 2), device="cpu")
    >>> trainer = gpumlp.Trainer(net, optimizer=gpumlp.Adam(1e-2), batch_size=32)
    >>> history = trainer.fit(x, y, epochs=5, progress=False)
    >>> history.epochs, trainer.steps
    (5, 35)
    """

    resident: bool | None = None

    def __init__(
        self,
        net: MLP,
        loss: LossLike = "cross_entropy",
        optimizer: Optimizer | None = None,
        batch_size: int = 128,
        schedule: ScheduleLike | None = None,
        shuffle: bool = True,
        reduction: str = "mean",
        seed: PerNetwork = 0,
        clip_norm: PerNetwork | None = None,
        penalty_in_loss: bool = False,
        factors: dict[str, Any] | None = None,
    ) -> None:
        optimizer = Adam() if optimizer is None else optimizer
        if not isinstance(optimizer, Optimizer):
            wanted = "None, or an object such as gpumlp.Adam(1e-3)"
            raise checks.ParameterError(f"optimizer = {checks.shown(optimizer)} must be {wanted}")
        if not isinstance(net, MLP):
            raise checks.ParameterError(f"net = {checks.shown(net)} must be a gpumlp.MLP")
        self.net, self.optimizer = net, optimizer
        self.batch_size = checks.number(batch_size, "batch_size", checks.COUNT)
        self.shuffle = checks.flag(shuffle, "shuffle")
        self.reduction, self.seed, self.clip_norm = reduction, seed, clip_norm
        if clip_norm is not None:
            lengths = checks.Interval(0, np.inf, "(]")
            checks.per_network(clip_norm, "clip_norm", lengths, net.M)
        self.penalty_in_loss = checks.flag(penalty_in_loss, "penalty_in_loss")
        self.factors = of_slices.checked(factors, net.shape)
        if self.penalty_in_loss and of_slices.changes(self.factors, "decay"):
            raise checks.ParameterError(
                f"factors = {checks.shown(factors)} change the decay; penalty_in_loss counts "
                "the penalties of W alone"
            )
        if optimizer.lazy and not net.shape.sparse:
            law = type(optimizer).__name__
            raise checks.ParameterError(f"{law}: lazy = True needs a network with sparse=True")
        if optimizer.lazy and self.penalty_in_loss:
            raise checks.ParameterError(
                "penalty_in_loss = True counts the penalties of all weights; with lazy=True only "
                "those of features that occur are applied"
            )
        self.objective = Objective(net, loss, reduction)
        self.callbacks: list[callback.Callback] = []  # of the running fit
        self.owner: Any = None  # an estimator's running fit, which checkpoints then hold
        # What the callbacks remembered of the fit in which the trainer's file was written.
        self.unfinished: list[callback.CallbackState] | None = None
        self.resuming = False  # whether the next fit is to go on with that one
        self._stopping = self._fitting = False
        buffers = optimizer.state_buffers()
        numbers = self._numbers(optimizer)
        seeds = initializer.seeds(seed, net.M)
        with (
            net.ops.on_device(),
            memory.explain_oom(net.shape, net.ops, self.batch_size, sum(buffers.values())),
        ):
            on_device = of_slices.on_device(self.factors, net.network)
            self.state = TrainingState(net.network, buffers, seeds, numbers, schedule, on_device)
            self._step = TrainingStep.of(
                self.state, self.objective, optimizer, self.penalty_in_loss
            )
        self._slices: dict[int, int] = {}  # of the batches of `step`, by their rows
        self._graphs = GraphCache(net.ops)  # of `step`; a fit's belong to its rows

    # ------------------------------------------------------------ what it has come to
    @property
    def history(self) -> History:
        """The losses and rates of all fits so far."""
        return self.state.history

    @history.setter
    def history(self, history: History) -> None:
        self.state.history = history

    @property
    def epoch(self) -> int:
        """Epochs of all fits so far."""
        return self.state.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.state.epoch = epoch

    @property
    def epochs_left(self) -> int | None:
        """Epochs left of the running or last fit, or of that in which its file was written."""
        return self.state.epochs_left

    @epochs_left.setter
    def epochs_left(self, epochs: int | None) -> None:
        self.state.epochs_left = epochs

    @property
    def batches_done(self) -> int:
        """Batches of the epoch in which Ctrl-C ended the fit."""
        return self.state.batches_done

    @property
    def rates(self) -> LearningRates:
        """The schedule, and how far it has come."""
        return self.state.rates

    @property
    def loss(self) -> Loss:
        """The `Loss` that is trained."""
        return self.objective.loss

    @property
    def steps(self) -> int | np.ndarray:
        """Updates made: a number, or (M,) for a stack; reads the device."""
        t = self.net.ops.to_host(self.state.device.t)
        return t.copy() if self.net.models is not None else int(t[0])

    @property
    def diverged(self) -> dict[int, int]:
        """Network -> the update that was not finite, or its loss or gradient; reads the device."""
        return device_state.diverged(self.state.stopped_at())

    @property
    def lr(self) -> float | np.ndarray:
        """The learning rate of the last update: a number, or (M,) for a stack; reads the device."""
        lr = self.net.ops.to_host(self.state.device.scalars)[:, RATE]
        return lr.copy() if self.net.models is not None else float(lr[0])

    @property
    def _state_buffers(self) -> int:
        return len(self.state.used_buffers)

    # ------------------------------------------------------------ one update
    def step(self, x: Data, y: Data, sample_weight: Data | None = None) -> Array:
        """Make one update on exactly this batch, without waiting for the device.

        Parameters
        ----------
        x, y, sample_weight
            As in `MLP.loss_and_grad`.  Host arrays are checked for NaN; for arrays on the device
            that would mean to wait, so that a loss that is not finite shows in `diverged`, and the
            network stops moving.  Sparse rows on the device are waited for, since the places of
            their non-zeros are checked.

        Returns
        -------
        scalar, or (M,) array for a stack
            The loss before the update, on the network's device.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `MLP.loss_and_grad`; ValueError also for a schedule that counts epochs, before the
            first `fit`.
        """
        net, network = self.net, self.net.network
        checked = arrays.features(x, "x", net, finite=False)
        rows = check_count(checked.array.shape[1], "x")
        if rows not in self._slices:
            cores = net.ops.threads(net.shape, self.objective)
            self._slices[rows] = slices.number(net.shape, rows, cores)
        parts = self._slices[rows]
        with (
            net.ops.on_device(),
            memory.explain_oom(net.shape, net.ops, rows, self._state_buffers),
            blas_threads.limit_blas_threads(net.shape, rows, parts > 1),
        ):
            memory.check_total(net.ops, workspace.least(net.shape, rows))
            if checked.on_host:
                arrays.check_features(checked, "x", net)
            batch = net.batch(checked.array, y, self.objective, sample_weight, values=False)
            self.rates.extend(1)
            ws = network.workspaces.get(rows, "fit")
            staged = network.stage(batch, ws)
            kind = staged.labels is None, staged.dense is None
            # Sparse rows are not copied: what is captured reads the user's.
            rows_read = (staged.x.values, staged.x.columns) if net.shape.sparse else ()
            work = partial(self._step.update, ws, staged, parts)
            self._graphs.run(kind, work, ws, *self._step.replaced, *rows_read)
            loss = ws.loss.copy()
        return loss if net.models is not None else loss[0]

    # ------------------------------------------------------------ many
    def run_epoch(
        self,
        rows: Rows,
        order: Array | None = None,
        interrupt: Interrupt | None = None,
        first: int = 0,
    ) -> Epoch:
        """Make one pass over the rows; the only reading of the device is at its end.

        Parameters
        ----------
        rows : Rows
            The data of the fit.
        order : (1 or M, L) array, optional
            The rows in this order, instead of the trainer's own.
        interrupt : Interrupt, optional
            Ends the pass after the running updates, once Ctrl-C was pressed.
        first : int, default 0
            The batch to begin with, where those before were made by a fit that is resumed.

        Returns
        -------
        Epoch
            Losses, weights and learning rates, on the host.
        """
        net, state = self.net, self.state
        if order is not None:
            rows.arrange(order)
        elif self.shuffle:
            rows.shuffle(state.seeds, state.epoch)
        state.make_room(rows.steps, first)
        state.device.cursor.fill(first)
        state.rates.extend(rows.steps - first)
        executor = self._executor(rows)

        def interrupted() -> bool:
            return bool(interrupt and interrupt.asked)

        done = first
        with blas_threads.limit_blas_threads(net.shape, rows.batch_size, executor.slices > 1):
            while done < rows.steps and not interrupted():
                done += executor.run(self._step, rows, done, rows.steps - done, interrupted)
        state.rates.issued -= rows.steps - done  # the interrupt came before these
        state.epoch += done == rows.steps
        state.batches_done = done % rows.steps
        return state.device.read(net.ops.to_host, done)

    def _executor(self, rows: Rows) -> executors.Executor:
        """The executor for these rows, which is chosen again only where something has changed."""
        resident = self.resident if self.state.factors is None else False
        kind = rows.batch_size, resident
        if rows.executor is None or rows.executor[0] != kind:
            arguments = self.net.shape, self.net.ops, self.objective, self.optimizer
            executor = executors.choose(*arguments, rows.batch_size, rows.source, resident)
            rows.executor = kind, executor
        return rows.executor[1]

    # ------------------------------------------------------------ the optimiser's numbers
    def _numbers(self, optimizer: Optimizer) -> np.ndarray:
        """The optimiser's numbers (M, len(HYPERS)) float64, which the network's dtype can hold."""
        hyper = optimizer.hyper(self.net.M, self.clip_norm)
        for name in optimizer.intervals:
            place = f"{type(optimizer).__name__}: {name}"
            checks.within(getattr(optimizer, name, None), place, self.net.dtype)
        checks.within(self.clip_norm, "clip_norm", self.net.dtype)
        return hyper

    def retune(self, **numbers: Any) -> None:
        """Give the optimiser other numbers from the next update on; its state stays.

        Parameters
        ----------
        **numbers
            Arguments of the optimiser's class, e.g. lr=0.01.  Whether there is momentum stays, and
            whether updates are lazy.

        Raises
        ------
        TypeError
            For a number that the optimiser has not.
        ValueError
            For one that is out of range, or that needs another state; for another `lazy`.
        """
        known = [f.name for f in fields(self.optimizer)]  # type: ignore[arg-type]
        for name in numbers.keys() - set(known):
            law = type(self.optimizer).__name__
            raise TypeError(f"retune: {law} has no number {name!r}; it has {', '.join(known)}")
        changed = replace(self.optimizer, **numbers)  # type: ignore[type-var]
        if changed.state_buffers() != self.optimizer.state_buffers():
            raise ValueError(
                f"{', '.join(numbers)}: the state of {self.optimizer} has no place for it; make a "
                "Trainer with the other optimizer"
            )
        if changed.lazy != self.optimizer.lazy:
            raise ValueError(
                f"retune: lazy = {changed.lazy}; which weights move stays: make a Trainer with the "
                "other optimizer"
            )
        self.state.numbers = self._numbers(changed)
        self.optimizer = changed
        self.state.apply_plateau()

    # ------------------------------------------------------------ fits
    def fit(
        self,
        x: Data,
        y: Data,
        epochs: int = 10,
        validation: Sequence[Data] | None = None,
        callbacks: Callback | Iterable[Callback] | None = (),
        progress: bool = True,
        sample_weight: Data | None = None,
        resume: bool | None = None,
        folds: Sequence[Data] | None = None,
    ) -> History:
        """Train for some epochs.

        Parameters
        ----------
        x : ([M,] R, N_0) array
            Training samples in rows, for all networks or for each its own; of networks with
            sparse=True a sparse matrix, of which only the non-zeros take memory.  Data larger than
            a GPU's free memory stay where they are, which may be a memory-mapped file, and pieces
            of each epoch are sent while the GPU computes on others; the results are the same.
        y : ([M,] R, N_K) array, or ([M,] R)
            Targets or labels, see `MLP.loss_and_grad`.
        epochs : int, default 10
            Passes over the rows, 1 or more.
        validation : (x, y) or (x, y, sample_weight), optional
            Samples on which the loss, and for losses on classes the accuracy, are computed after
            each epoch.
        callbacks : Callback or iterable of them, default ()
            Such as `EarlyStopping` and `Checkpoint`.
        progress : bool, default True
            Whether there is a bar on the terminal.
        sample_weight : ([M,] R) array, optional
            The weight of each sample, 0 or more; None is 1.
        resume : bool, optional
            Whether to go on with the fit in which the trainer's file, a checkpoint, was written, as
            if it had not ended: its schedule keeps its length, an epoch that had begun is finished,
            early stopping knows what it had seen.  `epochs`, which may be 0, is then what is left
            of it, `epochs_left`.  None: if the trainer comes from `gpumlp.resume`.
        folds : (training (M, L), held_out (M, L')) of int arrays, optional
            Instead of a validation set: the numbers of the rows of x that each network trains on,
            and of those that it is validated on.  So a stack is a whole cross-validation, and x is
            there once.

        Returns
        -------
        History
            `history`, which a later fit continues.

        Raises
        ------
        DivergenceError
            Where a loss, gradient or update of a single network is not finite; finite weights are
            in place.  In a stack that network stands still, a warning says so, and the others go
            on.
        TypeError, ValueError
            For data that do not fit the network or the loss, for NaN and infinity, and for data of
            another number of batches than those of the fit to be resumed.
        MemoryError
            Where a batch does not fit, with the bytes that it would take.

        Notes
        -----
        Ctrl-C ends the fit after the running update, with the network trained so far and
        history.interrupted set.
        """
        resume = None if resume is None else checks.flag(resume, "resume")
        resume = (self.resuming if resume is None else resume) and self.unfinished is not None
        epochs = checks.number(epochs, "epochs", checks.NATURAL if resume else checks.COUNT)
        progress = checks.flag(progress, "progress")
        net = self.net
        if validation is not None and not (
            isinstance(validation, list | tuple) and len(validation) in (2, 3)
        ):
            raise checks.ParameterError(
                f"validation = {checks.shown(validation)} must be None, (x, y), or "
                "(x, y, sample_weight)"
            )
        if folds is not None and validation is not None:
            raise checks.ParameterError("folds hold rows out; give them, or validation")
        observers = callback.listed(callbacks)
        data_bytes = memory.size_of(x, y, *(validation or ()))
        with (
            net.ops.on_device(),
            memory.explain_oom(
                net.shape, net.ops, self.batch_size, self._state_buffers, data_bytes
            ),
            blas_threads.limit_blas_threads(net.shape, self.batch_size),
        ):
            orders = net.M if self.shuffle else 1
            rows = make_rows(net, self.objective, x, y, sample_weight, self.batch_size, orders)
            evaluation: Any = validation and Evaluation(net, self.objective, *validation)
            if folds is not None:
                evaluation = self._divide(rows, folds, (x, y, sample_weight))
            self.callbacks = sorted(observers, key=lambda observer: observer.goes_last)
            try:
                self._fitting = True
                self._begin(rows, epochs, resume)
                return self._fit(rows, evaluation, progress)
            finally:
                self.callbacks, self._fitting = [], False

    def _divide(self, rows: Rows, folds: Sequence[Data], data: Sequence[Any]) -> Evaluation:
        """Each network takes the rows of its fold; returns what it is validated on."""
        training, held_out = of_rows.checked(folds, self.net.M, rows.count)
        rows.choose(training)
        x, y, weight = data if rows.source is None else rows.arrays
        return Evaluation(self.net, self.objective, x, y, weight, held_out, values=False)

    def _begin(self, rows: Rows, epochs: int, resume: bool) -> None:
        """Begin a new fit, or go on with the one that a checkpoint was written in."""
        history, steps = self.history, self.rates.steps_per_epoch
        if resume and steps != rows.steps:
            raise ValueError(
                f"the fit to be resumed had {steps} batches an epoch, and these data make "
                f"{rows.steps}; give the same data, or resume=False for a new fit"
            )
        history.interrupted = False
        self.epochs_left = epochs
        if resume:
            self._stopping = bool((self.state.stopped_at() != 0).all())
        else:
            self.state.batches_done = 0
            self.release()
        divergence.report(self, self.diverged)
        self.rates.plan(rows.steps, epochs * rows.steps - self.batches_done, resume)
        for observer in self.callbacks:
            observer.on_fit_begin(self, history)
        if resume:
            callback.restore(self.unfinished or (), self.callbacks, self.net.ops.to_device)
        self.unfinished, self.resuming = None, False

    def _fit(self, rows: Rows, evaluation: Evaluation | None, progress: bool) -> History:
        history = self.history
        fit = TrainerFit(self, rows, evaluation)
        with Interrupt() as interrupt, bars.bar(self.epochs_left, progress) as bar:

            def show() -> None:
                bar.total = bar.n + 1 + (self.epochs_left or 0)  # a callback may have changed it
                bar.set_postfix_str(bars.line(history), refresh=False)
                bar.update()

            loop.run(fit, interrupt, show)
            if history.interrupted:
                for observer in self.callbacks:
                    observer.on_interrupt(self, history)
        for observer in self.callbacks:
            observer.on_fit_end(self, history)
        self.release()
        return history

    def public(self, values: np.ndarray) -> float | np.ndarray:
        """Values (M,) as users see them: of a single network a number."""
        return np.array(values) if self.net.models is not None else float(values[0])

    def notice_stopped(self) -> None:
        """The fit ends where no network moves any more; reads the device."""
        self._stopping |= bool((self.state.stopped_at() != 0).all())

    @property
    def stopping(self) -> bool:
        """Whether a callback has asked for the end of the fit, or no network moves any more."""
        return self._stopping

    def reschedule(self, epochs: int) -> None:
        """End the running fit after so many more epochs; its schedule ends with the last one.

        Parameters
        ----------
        epochs : int
            1 or more; for callbacks, at the end of an epoch.

        Raises
        ------
        ValueError
            Where no fit is running.
        """
        epochs = checks.number(epochs, "epochs", checks.COUNT)
        steps = self.rates.steps_per_epoch
        if not self._fitting or steps is None:
            raise ValueError("reschedule: no fit is running")
        self.epochs_left = epochs
        self.rates.plan(steps, epochs * steps)

    def release(self) -> None:
        """Undo `stop`; a network that diverged stands still nevertheless, see `revive`."""
        self._stop(np.maximum(self.state.stopped_at(), 0))

    def revive(self) -> None:
        """Let networks that diverged move again, with the weights and the state that they kept.

        Change something first, for example by `retune(lr=...)`.
        """
        self._stop(np.zeros_like(self.state.stopped_at()))
        self.history.diverged.clear()

    def stop(self, members: Data | None = None) -> None:
        """End the fit after this epoch, for all networks or for some.

        Parameters
        ----------
        members : (M,) array of bool, optional
            The networks that stop; None is all.  The fit ends when none is left.

        Raises
        ------
        ValueError
            For anything else.
        """
        stopped_at = self.state.stopped_at()
        chosen = np.ones(len(stopped_at), bool) if members is None else np.asarray(members)
        if chosen.dtype != bool or chosen.shape not in ((), stopped_at.shape):
            wanted = f"True or False for each of {len(stopped_at)} networks"
            raise checks.ParameterError(f"members = {checks.shown(members)} must be {wanted}")
        self._stop(np.where(chosen & (stopped_at == 0), -1, stopped_at))

    def _stop(self, stopped_at: np.ndarray) -> None:
        self.state.stop(stopped_at)
        self._stopping = bool((stopped_at != 0).all())

    def state_dict(self) -> dict[str, Any]:
        """Return all that training has come to, for a trainer of the same arguments.

        Returns
        -------
        dict
            Weights, the optimiser's state, counters and history, on the host.
        """
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Parameters
        ----------
        state : dict
            Of a trainer of the same arguments.

        Raises
        ------
        ValueError
            Where the optimiser's state or a plateau's memory are of another training, or the state
            is of a network with another `sparse`.
        """
        self.state.load_state_dict(state)
        self._stopping = bool((self.state.stopped_at() != 0).all())
