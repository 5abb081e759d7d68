"""What MLPClassifier and MLPRegressor have beyond scikit-learn's."""

import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, log_loss, make_scorer, mean_absolute_error
from sklearn.preprocessing import scale
from sklearn.utils.class_weight import compute_sample_weight

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

IRIS = scale(datasets.load_iris().data), datasets.load_iris().target
TWO = IRIS[0], (IRIS[1] == 1).astype(int)
LABELS = datasets.make_multilabel_classification(120, 8, n_classes=3, random_state=0)
DIABETES = scale(datasets.load_diabetes().data), scale(datasets.load_diabetes().target)


def small(cls, **arguments):
    defaults = {
        "hidden_layer_sizes": (6,),
        "max_iter": 30,
        "random_state": 0,
        "learning_rate_init": 0.02,
    }
    return cls(**(defaults | arguments))


def weight_norm(model):
    return sum((coef**2).sum() for coef in model.coefs_)


# ---------------------------------------------------------------- activations, losses, outputs
@pytest.mark.parametrize("name", [n for n, f in gpumlp.activations.items() if not f.rows])
def test_every_activation(name):
    model = small(MLPClassifier, activation=name).fit(*IRIS)
    assert np.isfinite(model.loss_curve_).all() and model.loss_ < model.loss_curve_[0]
    regressor = small(MLPRegressor, activation=[name, "tanh"], hidden_layer_sizes=(4, 3))
    assert np.isfinite(regressor.fit(*DIABETES).predict(DIABETES[0])).all()


def test_an_activation_for_each_layer_is_used_and_drawn_for():
    X, y = DIABETES
    model = small(MLPRegressor, hidden_layer_sizes=(5, 4), activation=["tanh", "relu"], max_iter=1)
    model.fit(X, y)
    n1 = np.tanh(X @ model.coefs_[0] + model.intercepts_[0])
    n2 = np.maximum(n1 @ model.coefs_[1] + model.intercepts_[1], 0)
    np.testing.assert_allclose(model.transform(X, layer=1), n1)
    np.testing.assert_allclose(model.transform(X, layer=2), n2)
    np.testing.assert_allclose(model.transform(X), n2)
    np.testing.assert_allclose(
        model.transform(sparse.csr_array(X), layer=-1).ravel(), model.predict(X)
    )
    with pytest.raises(ValueError, match=r"layer = 4; it is 1 \.\. 3"):
        model.transform(X, layer=4)
    same = small(MLPRegressor, hidden_layer_sizes=(5, 4), activation=["logistic"] * 2)
    single = small(MLPRegressor, hidden_layer_sizes=(5, 4), activation="logistic")
    np.testing.assert_array_equal(same.fit(X, y).coefs_[2], single.fit(X, y).coefs_[2])


CLASS_LOSSES = [name for name, loss in gpumlp.losses.items() if loss.classes]


@pytest.mark.parametrize("loss", ["log_loss", *CLASS_LOSSES, "squared_error", "huber"])
@pytest.mark.parametrize("targets", [IRIS, TWO, LABELS], ids=["classes", "two", "labels"])
def test_every_loss_classifies(loss, targets):
    X, y = scale(targets[0]), targets[1]
    model = small(MLPClassifier, loss=loss, max_iter=150, activation="tanh").fit(X, y)
    assert np.mean(model.predict(X) == y) > 0.8
    if loss in ("hinge", "squared_hinge", "exponential"):
        assert not hasattr(model, "predict_proba") and model.out_activation_ == "identity"
        decision = model.decision_function(X)
        assert decision.shape == (y.shape if y is not IRIS[1] else (150, 3))
        best = decision.argmax(axis=1) if y is IRIS[1] else decision > 0
        np.testing.assert_array_equal(best, model.predict(X))
    else:
        assert not hasattr(model, "decision_function")
        probability = model.predict_proba(X)
        assert probability.min() >= 0
        if y is not LABELS[1]:
            np.testing.assert_allclose(probability.sum(axis=1), 1)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "log_cosh", "quantile"])
def test_losses_of_regression(loss):
    X, y = DIABETES
    model = small(MLPRegressor, loss=loss, max_iter=100).fit(X, y)
    assert model.score(X, y) > 0.4 and model.out_activation_ == "identity"


def test_a_loss_object():
    X, y = DIABETES
    huber = gpumlp.losses["huber"](delta=1e3)  # so wide that it is the squared error
    squared = small(MLPRegressor).fit(X, y)
    np.testing.assert_allclose(small(MLPRegressor, loss=huber).fit(X, y).loss_, squared.loss_)


def test_quantiles():
    X = np.random.RandomState(0).uniform(-1, 1, (2000, 1))
    y = X[:, 0] + np.random.RandomState(1).exponential(size=2000)
    for quantile in (0.1, 0.5, 0.9):
        model = small(MLPRegressor, loss="quantile", quantile=quantile, max_iter=40).fit(X, y)
        assert np.mean(y < model.predict(X)) == pytest.approx(quantile, abs=0.04)


def test_output_activation():
    X, y = DIABETES
    model = small(MLPRegressor, output_activation="softplus").fit(X, y)
    assert model.predict(X).min() > 0 and model.out_activation_ == "softplus"
    model = small(MLPRegressor, loss="poisson", output_activation="softplus").fit(X, np.exp(y))
    assert model.predict(X).min() > 0
    model = small(MLPClassifier, output_activation="log_softmax").fit(*IRIS)
    reference = small(MLPClassifier).fit(*IRIS)
    np.testing.assert_allclose(model.predict_proba(IRIS[0]), reference.predict_proba(IRIS[0]))
    model = small(MLPClassifier, output_activation="logistic", loss="binary_cross_entropy")
    np.testing.assert_allclose(model.fit(*IRIS).predict_proba(IRIS[0]).sum(axis=1), 1)
    with pytest.raises(ValueError, match="use 'logistic'"):
        small(MLPClassifier, output_activation="softmax").fit(*TWO)


# ---------------------------------------------------------------- penalties, noise, rates
def test_l1_makes_weights_small_or_zero():
    X, y = DIABETES
    free = small(MLPRegressor, alpha=0).fit(X, y)
    held = small(MLPRegressor, alpha=0, l1=30).fit(X, y)
    size = [sum(np.abs(coef).sum() for coef in model.coefs_) for model in (free, held)]
    assert size[1] < 0.5 * size[0]
    # The penalty is in the loss that is reported, divided by the batch's weight.
    begun = small(MLPRegressor, alpha=0, l1=30, max_iter=1, batch_size=442).fit(X, y)
    plain = small(MLPRegressor, alpha=0, max_iter=1, batch_size=442).fit(X, y)
    zero = small(MLPRegressor, learning_rate_init=1e-300, max_iter=1).fit(X, y)
    l1 = 30 * sum(np.abs(coef).sum() for coef in zero.coefs_) / 442
    np.testing.assert_allclose(begun.loss_ - plain.loss_, l1, rtol=1e-6)


def test_weight_decay_is_decoupled():
    """One step with a gradient of zero: W <- (1 - lr decay) W."""
    X, y = np.zeros((10, 3)), np.zeros(10)
    arguments = {"activation": "identity", "alpha": 0, "max_iter": 1, "hidden_layer_sizes": ()}
    before = small(MLPRegressor, **arguments, learning_rate_init=1e-300).fit(X, y)
    after = small(MLPRegressor, **arguments, weight_decay=5.0).fit(X, y)
    np.testing.assert_allclose(after.coefs_[0], before.coefs_[0] * (1 - 0.02 * 5), rtol=1e-12)


def test_dropout_is_for_training_only():
    X, y = IRIS
    plain, dropped = small(MLPClassifier), small(MLPClassifier, dropout=0.5)
    assert plain.fit(X, y).loss_ < dropped.fit(X, y).loss_
    np.testing.assert_array_equal(dropped.predict_proba(X), dropped.predict_proba(X))
    again = small(MLPClassifier, dropout=0.5).fit(X, y)
    assert again.loss_curve_ == dropped.loss_curve_
    other = small(MLPClassifier, dropout=0.5, random_state=1).fit(X, y)
    assert other.loss_curve_ != dropped.loss_curve_
    small(MLPClassifier, hidden_layer_sizes=(4, 3), dropout=[0.1, 0.3]).fit(X, y)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", "plateau", lambda t: 0.99**t])
def test_schedules(schedule):
    model = small(MLPClassifier, schedule=schedule, tol=0).fit(*IRIS)
    constant = small(MLPClassifier, tol=0).fit(*IRIS)
    assert model.loss_curve_[0] == pytest.approx(constant.loss_curve_[0], rel=0.2)
    if schedule != "plateau":
        assert model.loss_curve_ != constant.loss_curve_


def test_a_schedule_lasts_for_max_iter_epochs():
    trainer = small(MLPClassifier, schedule="cosine", tol=0, max_iter=10).fit(*IRIS)._engine.trainer
    assert trainer.history.lr[0] == pytest.approx(0.02) and len(trainer.history.lr) == 10
    assert trainer.history.lr[-1] < 0.001


def test_clip_norm():
    X, y = DIABETES
    sgd = {"solver": "sgd", "learning_rate_init": 0.5, "activation": "identity", "max_iter": 100}
    with pytest.raises(ValueError, match="clip_norm"):
        small(MLPRegressor, **sgd).fit(100 * X, y)
    small(MLPRegressor, **(sgd | {"learning_rate_init": 1e-4}), clip_norm=1.0).fit(100 * X, y)


def test_label_smoothing():
    for X, y in (IRIS, TWO):
        arguments = {"max_iter": 400, "tol": 0, "alpha": 0, "activation": "tanh"}
        sure = small(MLPClassifier, **arguments).fit(X, y).predict_proba(X)
        smooth = small(MLPClassifier, **arguments, label_smoothing=0.3).fit(X, y).predict_proba(X)
        classes = smooth.shape[1]
        assert sure.max() > 0.999
        assert smooth.max() == pytest.approx(1 - 0.3 + 0.3 / classes, abs=0.05)


def test_class_weight():
    X, y = TWO
    y = np.where(np.arange(150) % 5 == 0, y, 0)  # the second class is rare
    balanced = small(MLPClassifier, class_weight="balanced").fit(X, y)
    weights = compute_sample_weight("balanced", y)
    by_hand = small(MLPClassifier).fit(X, y, weights)
    assert balanced.loss_curve_ == by_hand.loss_curve_
    plain = small(MLPClassifier).fit(X, y)
    assert balanced_accuracy_score(y, balanced.predict(X)) > balanced_accuracy_score(
        y, plain.predict(X)
    )
    both = small(MLPClassifier, class_weight={0: 1, 1: 3}).fit(X, y, np.full(150, 2.0))
    by_hand = small(MLPClassifier).fit(X, y, np.where(y == 1, 6.0, 2.0))
    assert both.loss_curve_ == by_hand.loss_curve_
    small(MLPClassifier, class_weight="balanced").fit(*LABELS)
    with pytest.raises(ValueError, match="balanced"):
        balanced.partial_fit(X, y)


# ---------------------------------------------------------------- validation
@pytest.mark.parametrize("cls, data", [(MLPClassifier, IRIS), (MLPRegressor, DIABETES)])
def test_a_validation_set_of_the_users_own(cls, data):
    X, y = data
    train, held = np.arange(len(X)) % 3 != 0, np.arange(len(X)) % 3 == 0
    weight = np.linspace(0.5, 2, held.sum())
    more = {"X_val": X[held], "y_val": y[held], "sample_weight_val": weight}
    model = small(cls).fit(X[train], y[train], **more)
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    score = model.score(X[held], y[held], weight)
    assert model.validation_scores_[-1] == pytest.approx(score)
    assert model.best_validation_score_ == max(model.validation_scores_)
    plain = small(cls).fit(X[train], y[train])
    np.testing.assert_array_equal(plain.loss_curve_, model.loss_curve_)
    if cls is MLPClassifier:
        value = log_loss(y[held], model.predict_proba(X[held]), sample_weight=weight)
        assert model.validation_loss_curve_[-1] == pytest.approx(value)


def test_early_stopping_goes_back_to_the_best_weights():
    X, y = DIABETES
    model = small(
        MLPRegressor, early_stopping=True, learning_rate_init=0.2, n_iter_no_change=4, max_iter=200
    )
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert model.converged_ and model.n_iter_ < 200
    assert model.validation_scores_[-1] < model.best_validation_score_
    assert model.score(X[1::2], y[1::2]) == pytest.approx(model.best_validation_score_)


@pytest.mark.parametrize("scoring", [
    "loss", "neg_log_loss", "roc_auc_ovr", "f1_macro", make_scorer(balanced_accuracy_score),
    lambda estimator, X, y: -np.sum(estimator.coefs_[0] ** 2),
])  # fmt: skip
def test_any_metric_can_stop_a_fit(scoring):
    X, y = IRIS
    model = small(MLPClassifier, scoring=scoring, early_stopping=True, n_iter_no_change=3)
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    if callable(scoring) and not hasattr(scoring, "_score_func"):
        assert model.best_validation_score_ == pytest.approx(-np.sum(model.coefs_[0] ** 2))
    elif scoring in ("loss", "neg_log_loss"):
        value = -log_loss(y[1::2], model.predict_proba(X[1::2]))
        assert model.best_validation_score_ == pytest.approx(value)
    else:
        assert model.best_validation_score_ > 0.5


def test_a_metric_of_regression():
    X, y = DIABETES
    model = small(MLPRegressor, scoring="neg_mean_absolute_error")
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    error = mean_absolute_error(y[1::2], model.predict(X[1::2]))
    assert model.validation_scores_[-1] == pytest.approx(-error)


def test_validation_sets_that_cannot_be_used():
    X, y = IRIS
    for more, message in [
        ({"X_val": X}, "belong together"),
        ({"y_val": y}, "belong together"),
        ({"X_val": X[:, :2], "y_val": y}, "features"),
        ({"X_val": X, "y_val": y + 1}, "classes"),
        ({"X_val": X, "y_val": y, "sample_weight_val": np.zeros(150)}, "zero"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(MLPClassifier).fit(X, y, **more)
    with pytest.raises(ValueError, match="lbfgs"):
        small(MLPClassifier, solver="lbfgs").fit(X, y, X_val=X, y_val=y)
    with pytest.raises(ValueError, match="no_such"):
        small(MLPClassifier, scoring="no_such").fit(X, y, X_val=X, y_val=y)


# ---------------------------------------------------------------- partial_fit and warm_start
def test_partial_fit_with_early_stopping_and_a_pickle_between():
    X, y = IRIS
    model = small(MLPClassifier, early_stopping=True, n_iter_no_change=3, learning_rate_init=0.3)
    more = {"X_val": X[1::2], "y_val": y[1::2]}
    for epoch in range(200):
        model.partial_fit(X[::2], y[::2], classes=[0, 1, 2], **more)
        if epoch == 3:
            model = pickle.loads(pickle.dumps(model))
        if model.converged_:
            break
    assert model.converged_ and len(model.validation_scores_) == epoch + 1 < 200
    assert model.score(X[1::2], y[1::2]) == pytest.approx(model.best_validation_score_)


def test_partial_fit_of_several_labels_needs_no_classes():
    X, y = scale(LABELS[0]), LABELS[1]
    model = small(MLPClassifier).partial_fit(X[:60], y[:60])
    for _ in range(30):
        model.partial_fit(X[:60], y[:60]).partial_fit(X[60:], y[60:])
    assert model.predict(X).shape == y.shape and np.mean(model.predict(X) == y) > 0.8
    with pytest.raises(ValueError, match="labels"):
        small(MLPClassifier).partial_fit(X, y, classes=[0, 1])
    small(MLPClassifier).partial_fit(X, y, classes=[0, 1, 2])


def test_warm_start_can_keep_the_optimizer():
    X, y = IRIS
    whole = small(MLPClassifier, shuffle=False, max_iter=10).fit(X, y)
    kept = small(
        MLPClassifier, shuffle=False, max_iter=5, warm_start=True, keep_optimizer=True
    ).fit(X, y)
    pickled = pickle.loads(pickle.dumps(kept))
    kept.fit(X, y)
    np.testing.assert_array_equal(kept.coefs_[0], whole.coefs_[0])
    np.testing.assert_array_equal(pickled.fit(X, y).coefs_[0], whole.coefs_[0])
    assert kept.loss_curve_ == whole.loss_curve_


# ---------------------------------------------------------------- callbacks
class Recorder(gpumlp.Callback):
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_fit_begin(self, trainer, history):
        self.seen.append("begin")

    def on_epoch_end(self, trainer, history):
        self.seen.append(history.loss[-1])
        if len(history.loss) == self.stop_at:
            trainer.stop()

    def on_fit_end(self, trainer, history):
        self.seen.append("end")


def test_callbacks():
    X, y = IRIS
    recorder = Recorder(stop_at=4)
    model = small(MLPClassifier, callbacks=[recorder]).fit(X, y)
    assert recorder.seen == ["begin", *model.loss_curve_, "end"] and model.n_iter_ == 4
    model.partial_fit(X, y)
    assert recorder.seen[6:] == ["begin", model.loss_, "end"]


def test_the_engines_early_stopping():
    X, y = DIABETES
    stopping = gpumlp.EarlyStopping(patience=3)
    model = small(MLPRegressor, callbacks=[stopping], learning_rate_init=0.2, max_iter=300)
    model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert model.n_iter_ == stopping.best_epoch + 3 < 300
    error = 0.5 * np.mean((model.predict(X[1::2]) - y[1::2]) ** 2)
    assert stopping.best == pytest.approx(error)
    first = model.n_iter_
    assert model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2]).n_iter_ == first


def test_ctrl_c_keeps_what_was_reached():
    class Impatient(gpumlp.Callback):
        def on_epoch_end(self, trainer, history):
            if len(history.loss) == 3:
                raise KeyboardInterrupt

    model = small(MLPClassifier, callbacks=[Impatient()])
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(*IRIS)
    assert model.n_iter_ == 3 and len(model.predict(IRIS[0])) == 150


def test_class_weights_of_classes_that_a_batch_lacks():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    model = gpumlp.MLPClassifier((4,), class_weight={0: 5.0, 1: 2.0}, random_state=0)
    model.partial_fit(x[y != 1], y[y != 1], classes=[0, 1, 2])
    by_hand = gpumlp.MLPClassifier((4,), random_state=0)
    weight = np.where(y == 0, 5.0, 1.0)[y != 1]
    by_hand.partial_fit(x[y != 1], y[y != 1], classes=[0, 1, 2], sample_weight=weight)
    np.testing.assert_array_equal(model.coefs_[0], by_hand.coefs_[0])


def test_early_stopping_objects_are_not_for_partial_fit():
    model = gpumlp.MLPClassifier(callbacks=[gpumlp.EarlyStopping(3)])
    with pytest.raises(ValueError, match="EarlyStopping cannot stop a loop of partial_fit"):
        model.partial_fit(np.zeros((6, 2)), [0, 1, 0, 1, 0, 1], classes=[0, 1])


def test_a_resumed_fit_may_be_longer(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3

    def model(epochs, **more):
        return gpumlp.MLPClassifier((4,), max_iter=epochs, random_state=0, **more)

    with pytest.warns(ConvergenceWarning):
        model(3, callbacks=[gpumlp.Checkpoint(tmp_path)]).fit(x, y)
        longer = gpumlp.resume(tmp_path).set_params(max_iter=8).fit(x, y)
        whole = model(8).fit(x, y)
    assert longer.n_iter_ == 8
    np.testing.assert_array_equal(longer.coefs_[0], whole.coefs_[0])
