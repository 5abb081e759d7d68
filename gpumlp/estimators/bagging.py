"""Fit an estimator with n_models: the members of an ensemble, their seeds, rows and features."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from gpumlp.backend import device as devices
from gpumlp.estimators.ensemble import Ensemble
from gpumlp.estimators.hyperparameters import PER_MEMBER, of_each, random_of
from gpumlp.estimators.member_task import Member
from gpumlp.estimators.messages import warn
from gpumlp.estimators.stack_fitter import fit_members
from gpumlp.estimators.validation import Samples, split_rows
from gpumlp.model import arrays, memory


def fit(est, X, y, sample_weight, validation) -> None:
    """Fit an ensemble; validation: X_val, y_val and sample_weight_val, or None for each."""
    device = devices.resolve(est.device)
    est._forget()
    samples = est._samples(X, y, sample_weight, device, True, False)
    sparse = arrays.is_sparse(samples.X)
    spec, *_ = est._plan(samples.X.shape[1], samples.X.dtype, samples.encoded, sparse)
    val = est._given(validation, device, samples)
    inputs = _count(est.max_features, samples.X.shape[1])
    memory.check_weights((inputs, *spec.sizes[1:]), est.n_models)
    members = members_of(est, samples, val is not None)
    validation = (None,) * 3 if val is None else (val.X, val.y, val.weight)
    estimators = [member.estimator for member in members]
    try:
        errors = fit_members(members, samples.X, samples.y, samples.weight, validation)
    except KeyboardInterrupt:
        if not all(estimator._has_weights for estimator in estimators):
            raise
        warn("training was interrupted; the weights are those that it has come to")
        errors = [None] * len(members)
    _raise_or_warn(estimators, errors)
    diverged = np.array([error is not None for error in errors])
    est._engine = Ensemble(estimators, diverged)
    est.estimators_samples_ = [member.rows for member in members]
    est.estimators_features_ = [member.columns for member in members]
    est.estimators_held_out_ = [member.held_out for member in members]
    for estimator in estimators:
        if hasattr(est, "feature_names_in_"):
            estimator.feature_names_in_ = est.feature_names_in_
    est.diverged_ = diverged
    est.n_layers_ = len(est._engine.spec.sizes)
    est.n_iter_ = max(estimator.n_iter_ for estimator in estimators)
    est.loss_ = float(np.mean([estimator.loss_ for estimator in est._engine._asked]))
    est.converged_ = all(estimator.converged_ for estimator in estimators)


def _raise_or_warn(estimators, errors):
    """Raise the error of a member without weights, or where all have diverged; else warn."""
    for estimator, error in zip(estimators, errors, strict=True):
        if error is not None and not estimator._has_weights:
            raise error
    failed = [error for error in errors if error is not None]
    if len(failed) == len(errors):
        raise failed[0]
    if failed:
        warn(
            f"{len(failed)} of {len(errors)} networks have no say in the predictions: {failed[0]}",
            ConvergenceWarning,
        )


def members_of(est, samples: Samples, validated: bool) -> list[Member]:
    """Draw the members: their seeds, rows and features.

    validated: whether there is a validation set.  Else early stopping watches rows that are held
    out before the others are drawn with replacement: none is on both sides.
    """
    rows, features = samples.X.shape
    random_state = est.random_state
    seeded = isinstance(random_state, Integral)
    # Not the numbers that member 0 begins with: its seed is the ensemble's.
    rng = np.random.RandomState([random_state, 1]) if seeded else random_of(random_state)
    per_member = {name: of_each(est, name) for name in PER_MEMBER}
    take = _count(est.max_features, features)
    members = []
    for m in range(est.n_models):
        seed = (int(random_state) + m) % 2**32 if seeded else int(rng.randint(2**31 - 1))
        member = clone(est)
        vars(member).update(
            n_models=None,
            bootstrap=False,
            max_features=None,
            random_state=seed,
            **{name: values[m] for name, values in per_member.items()},
        )
        index = held_out = None
        if est.bootstrap:
            drawn_from = np.arange(rows)
            if est.early_stopping and not validated:
                drawn_from, held_out = split_rows(est, samples.y, rng)
            index = drawn_from[rng.randint(0, len(drawn_from), len(drawn_from))]
        columns = np.sort(rng.permutation(features)[:take]) if take < features else None
        members.append(Member(member, index, columns, vars(est).get("_binarizer"), held_out))
    return members


def _count(max_features, features: int) -> int:
    """The number of features that a member sees, by its `max_features`."""
    if max_features is None:
        return features
    if isinstance(max_features, Integral):
        if int(max_features) > features:
            raise ValueError(f"max_features = {max_features} of {features} features")
        return int(max_features)
    return max(1, int(max_features * features))
