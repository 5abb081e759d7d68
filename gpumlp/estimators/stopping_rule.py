"""scikit-learn's stopping rule: the order of the samples, what each epoch leaves on the estimator,
how the learning rate moves, when the fit ends.

Nothing is trained here: `stochastic.Fit` for one network, and `StackTrainer` for a stack of them,
ask a StoppingRule for the order of the next epoch, tell it the losses, and do what it then says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SMALLEST_RATE = 1e-6  # an adaptive learning rate at or below it ends the fit
ADAPTIVE_DIVISOR = 5


class StoppingRule:
    """Decides after each epoch of a fit whether it ends, and at which learning rate it goes on.

    An epoch is next_order(), trained(...), validated(...) if there is a validation set, and
    judge(); after it

    epochs_left: 0 if the fit ends.
    lr:          the learning rate from now on.
    improved:    the weights are the best so far, and to be remembered; true also after `begin` if
                 those at the beginning are.
    message:     a line for verbose fits, or "".

    sizes: rows of each batch;  lr: the learning rate to begin with;  random: the generator that the
    orders are drawn from;  incremental: one epoch of a partial_fit.
    """

    def __init__(self, estimator, sizes, lr: float, random, incremental: bool = False):
        self.est, self.sizes, self.lr, self.random = estimator, sizes, lr, random
        self.incremental = incremental
        self.order: Any = None  # of the epoch's samples; there is one when the fit has begun
        self.epochs_left = 0
        self.diverged = self.improved = False
        self.error: Exception | None = None  # that ends the fit
        self.message = ""

    def begin(self, validated: bool):
        """Begin a fit; validated: whether there is a validation set."""
        est = self.est
        self.epochs_left = 1 if self.incremental else est.max_iter
        self.order = np.arange(self.sizes.sum())
        est.n_iter_ = 0
        est.converged_ = False
        if est.early_stopping:
            # A warm-started fit has no best weights before it beats the score of those before: else
            # it ends with its last weights, as in scikit-learn.
            self.improved = est.best_validation_score_ is None
            if self.improved:
                est.best_validation_score_ = -np.inf
        elif est.best_loss_ is None:
            est.best_loss_ = np.inf
        if validated and est.validation_scores_ is None:
            est.validation_scores_, est.validation_loss_curve_ = [], []

    def next_order(self) -> np.ndarray | None:
        """The order of the epoch's samples; None where they are not shuffled."""
        if not self.est.shuffle:
            return None
        # as sklearn.utils.shuffle permutes the order of the epoch before
        self.order = self.order[self.random.permutation(len(self.order))]
        return self.order

    def trained(self, losses, weights, diverged: bool):
        """Write an epoch's loss to the estimator.

        losses, weights: of its batches;  diverged: whether the network has stopped.
        """
        est = self.est
        est.n_iter_ += 1
        loss = _mean_loss(losses, weights, self.sizes)
        if diverged:
            self.diverged = True
            loss = loss if not np.isfinite(loss) else np.nan
        est.loss_ = loss
        est.t_ += len(self.order)
        est.loss_curve_.append(loss)

    def validated(self, value: float, score: float):
        """Write loss and score of the validation set to the estimator; NaN after a divergence."""
        self.est.validation_loss_curve_.append(value)
        self.est.validation_scores_.append(score)

    def judge(self):
        """Decide whether the fit ends, and at which rate it goes on."""
        self._count_stalled()
        ends = self._ends() or self.diverged or self.error is not None
        self.epochs_left = 0 if ends else self.epochs_left - 1

    def _count_stalled(self):
        """Count the epochs since the score rose, or the loss fell, by tol."""
        est = self.est
        if est.early_stopping:
            score = est.validation_scores_[-1]
            stalled = score < est.best_validation_score_ + est.tol
        else:
            stalled = est.loss_ > est.best_loss_ - est.tol
            est.best_loss_ = est.loss_ if est.loss_ < est.best_loss_ else est.best_loss_
        est._stalled = est._stalled + 1 if stalled else 0
        self.improved = False
        if est.validation_scores_ is not None:
            score, best = est.validation_scores_[-1], est.best_validation_score_
            if best is None or score > best:
                est.best_validation_score_ = score
                self.improved = est.early_stopping

    def _ends(self) -> bool:
        """Whether the fit has converged; moves the learning rate."""
        est = self.est
        self.message = ""
        by_sgd = est.solver == "sgd"
        if by_sgd and est.learning_rate == "invscaling":
            with np.errstate(over="ignore"):  # a rate of 0, where a power of whole numbers would
                divisor = np.float64(est.t_ + 1) ** float(est.power_t)  # take all time and memory
            self.lr = est.learning_rate_init / float(divisor)
        if est._stalled <= est.n_iter_no_change:
            return False
        reason = "validation score has not risen" if est.early_stopping else "loss has not fallen"
        message = f"The {reason} by more than tol={est.tol:g} for {est.n_iter_no_change:g} epochs."
        if by_sgd and est.learning_rate == "adaptive" and self.lr > SMALLEST_RATE:
            self.lr /= ADAPTIVE_DIVISOR
            self.message = f"{message} The learning rate is now {self.lr:g}."
            est._stalled = 0
            return False
        self.message = f"{message} Stopping."
        est.converged_ = True
        return True

    @property
    def unfinished(self) -> bool:
        """Whether max_iter ended the fit, or a partial_fit's epoch of that number, too early."""
        est = self.est
        ended = est.converged_ or self.diverged or self.error is not None
        return est.n_iter_ == est.max_iter and not (ended or self.incremental)

    @property
    def goes_back(self) -> bool:
        """Whether the best weights take the place of the last at the end."""
        est = self.est
        return est.early_stopping and (not self.incremental or est.converged_)

    @property
    def failure(self) -> str | None:
        """The message about a fit that diverged; None for any other."""
        if not self.diverged:
            return None
        return (
            "the loss or its gradient became NaN or infinite in epoch "
            f"{self.est.n_iter_}: scale the data, lower learning_rate_init, or set clip_norm"
        )


def _mean_loss(losses, weights, sizes) -> float:
    """The mean of the batches' losses by rows, as scikit-learn has it even where samples have
    weights; a batch without any weight does not count."""
    counts = np.where(weights > 0, sizes, 0)
    return float(np.where(weights > 0, losses, 0) @ counts / counts.sum())
