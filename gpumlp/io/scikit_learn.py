"""Networks from scikit-learn's fitted MLPs, and the other way round."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.estimators.fitted import FITTED, check_sizes, labels
from gpumlp.io import weights as parameters
from gpumlp.model.mlp import MLP
from gpumlp.utils import checks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from gpumlp.estimators.base import BaseMLP

# The names of what both have: scikit-learn's, and the engine's.
HIDDEN = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
OUTPUT = {"identity": "identity", "exp": "exp", "logistic": "sigmoid", "softmax": "softmax"}


def from_sklearn(
    estimator: MLPClassifier | MLPRegressor, device: str = "auto", dtype: DTypeLike | None = None
) -> MLP:
    """Make a network of a fitted MLPClassifier or MLPRegressor of scikit-learn.

    net.forward(x) is then what the estimator's predict_proba gives (for two classes: its second
    column), or a regressor's predict, as (B, N_K).

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        A fitted one.
    device : str, default "auto"
        As of `MLP`.
    dtype : {"float32", "float64"}, optional
        None takes that of the estimator's weights.

    Returns
    -------
    MLP
        A classifier's classes_ are its metadata["classes"], a list.

    Raises
    ------
    TypeError
        For another kind of object.
    sklearn.exceptions.NotFittedError
        Before it is fitted.
    """
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, MLPClassifier | MLPRegressor):
        raise TypeError(
            "from_sklearn takes a fitted MLPClassifier or MLPRegressor of scikit-learn, not "
            f"{type(estimator).__name__}; of a pipeline or a search, the MLP in it"
        )
    check_is_fitted(estimator)
    coefs, intercepts = (_weights(estimator, name) for name in ("coefs_", "intercepts_"))
    sizes = check_sizes(coefs, intercepts)
    net = MLP(
        sizes,
        HIDDEN[estimator.activation],
        (OUTPUT | HIDDEN)[_out_activation(estimator, sizes[-1])],
        dtype=coefs[0].dtype.newbyteorder("=") if dtype is None else dtype,
        device=device,
        init="zeros",
    )
    values = parameters.read(net)
    for k in range(1, net.K + 1):
        # scikit-learn writes z = x W + b: its weights are (fan_in, fan_out).
        values.W[k][...] = coefs[k - 1].T
        values.b[k][...] = intercepts[k - 1]
    parameters.write(net, values)
    classes = getattr(getattr(estimator, "_label_binarizer", estimator), "classes_", None)
    if classes is not None:
        net.metadata["classes"] = labels(np.asarray(classes))
    return net


def _weights(estimator: Any, name: str) -> list[np.ndarray]:
    if not hasattr(estimator, name):
        raise ValueError(f"this {type(estimator).__name__} has no {name}: set {name}, or fit it")
    return [np.asarray(array) for array in getattr(estimator, name)]


def _out_activation(estimator: Any, outputs: int) -> str:
    """out_activation_, or what scikit-learn makes of targets with so many outputs."""
    from sklearn.base import is_classifier

    if hasattr(estimator, "out_activation_"):
        return estimator.out_activation_
    if not is_classifier(estimator):
        return "exp" if getattr(estimator, "loss", "") == "poisson" else "identity"
    binarizer = getattr(estimator, "_label_binarizer", None)
    several = getattr(binarizer, "y_type_", "").startswith("multilabel")
    return "logistic" if outputs == 1 or several else "softmax"


def to_sklearn(
    net: MLP | BaseMLP, classes: ArrayLike | None = None, *, model: int | None = None
) -> Any:
    """Make a fitted MLPClassifier or MLPRegressor of scikit-learn that predicts as a network does.

    The output activation says which: softmax a classifier; sigmoid with one output a classifier of
    two classes, with several a multilabel classifier; identity a regressor, exp one with
    loss="poisson".  predict_proba, or a regressor's predict, equals net.forward.

    Parameters
    ----------
    net : MLP, or a fitted MLPClassifier or MLPRegressor of gpumlp
        Of an estimator the new one takes over parameters, classes and curves, except for those that
        scikit-learn does not have.
    classes : array-like, optional
        The labels of the outputs, in ascending order, as scikit-learn has them; None takes
        net.metadata["classes"], or else 0, 1, ....
    model : int, optional
        Which network of a stack.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor
        Made of a network, it has scikit-learn's defaults for training, and partial_fit goes on from
        these weights; nothing is known of how they were made, so n_iter_ and t_ are 0, loss_curve_
        is empty, and there is no loss_.

    Raises
    ------
    ValueError
        For what scikit-learn's MLP cannot be: hidden activations other than identity, sigmoid, tanh
        and relu, or not the same in each layer; other output activations.  For `classes` or `model`
        that do not fit the network.

    Notes
    -----
    Softmax over two classes becomes the equal single sigmoid of the difference, which is how
    scikit-learn writes two classes.
    """
    if hasattr(net, "_as_network"):
        return _from_estimator(net, classes, model)
    parameters.check_network(net, "to_sklearn")
    W, b = _one_network(net, model)
    hidden, output = _hidden(net), _output(net)
    arguments = {"hidden_layer_sizes": net.sizes[1:-1], "activation": hidden}
    x = np.zeros((1, net.sizes[0]), net.dtype)  # a row for scikit-learn to make its attributes from
    if output in ("softmax", "logistic"):
        if output == "softmax" and net.sizes[-1] == 2:
            W[-1], b[-1] = W[-1][1:] - W[-1][:1], b[-1][1:] - b[-1][:1]
        estimator = _classifier(arguments, x, net, output, classes)
    elif classes is not None:
        raise ValueError(f"classes are given, but the output activation {output} is a regressor's")
    else:
        estimator = _regressor(arguments, x, net, output)
    estimator.coefs_ = [np.ascontiguousarray(weights.T) for weights in W]
    estimator.intercepts_ = b
    _forget_training(estimator)
    return estimator


def _from_estimator(estimator: Any, classes: ArrayLike | None, model: int | None) -> Any:
    """scikit-learn's estimator for one of gpumlp's."""
    from sklearn.base import is_classifier

    if classes is not None or model is not None:
        raise ValueError("classes and model go with a network; the estimator has its own classes")
    net, _, left_to_do = estimator._as_network()
    if left_to_do in ("exp", "one", "shares"):
        raise ValueError(
            f"scikit-learn's MLPClassifier of {len(estimator.classes_)} classes has no output "
            f"activation {estimator.out_activation_!r}"
        )
    made = to_sklearn(net, getattr(estimator, "classes_", None))
    if is_classifier(made) != is_classifier(estimator):
        raise ValueError(
            f"scikit-learn's {type(estimator).__name__} has no output activation "
            f"{estimator.out_activation_!r}"
        )
    fixed = ("hidden_layer_sizes", "activation", "loss")
    params = estimator._all_params()
    made.set_params(**{k: params[k] for k in made.get_params() if k in params and k not in fixed})
    for name in FITTED:
        if name in vars(estimator):
            setattr(made, name, copy.deepcopy(getattr(estimator, name)))
    return made


def _one_network(net: MLP, model: int | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Copies of W^(1) .. W^(K) and of b^(1) .. b^(K)."""
    values = parameters.read_products(net)
    W, b = values.W[1:], values.b[1:]
    if net.models is None:
        if model is not None:
            raise ValueError(f"model = {model}, but the network is not a stack")
    else:
        model = checks.number(model, "model", checks.Interval(0, net.models, "[)", whole=True))
        W, b = [weights[model] for weights in W], [biases[model] for biases in b]
    return [weights.copy() for weights in W], [biases.copy() for biases in b]


def _hidden(net: MLP) -> str:
    """scikit-learn's name of the one activation of all hidden layers."""
    names = {engine: name for name, engine in HIDDEN.items()}
    used = dict.fromkeys(f.name for f in net.f[1 : net.K])
    for f in net.f[1 : net.K]:
        if not f.built_in or f.name not in names:
            raise ValueError(
                f"scikit-learn's MLP has no activation {f.name!r}; it has {', '.join(HIDDEN)}"
            )
    if len(used) > 1:
        raise ValueError(
            "scikit-learn's MLP has one activation for all hidden layers; here there are "
            f"{', '.join(used)}"
        )
    return names[next(iter(used))] if used else "relu"


def _output(net: MLP) -> str:
    """scikit-learn's name of the output activation."""
    names = {engine: name for name, engine in OUTPUT.items()}
    f = net.f[net.K]
    if not f.built_in or f.name not in names:
        raise ValueError(
            f"scikit-learn's MLP has no output activation {f.name!r}; it has {', '.join(OUTPUT)}"
        )
    if f.name == "softmax" and net.sizes[-1] == 1:
        raise ValueError("softmax over one output is always 1; scikit-learn has no such MLP")
    return names[f.name]


def _classifier(
    arguments: dict[str, Any], x: np.ndarray, net: MLP, output: str, classes: ArrayLike | None
) -> MLPClassifier:
    """An MLPClassifier with every attribute of a fitted one, its weights still to be replaced."""
    from sklearn.neural_network import MLPClassifier

    outputs = net.sizes[-1]
    multilabel = output == "logistic" and outputs > 1
    wanted = 2 if outputs == 1 else outputs
    if classes is None:
        stored = net.metadata if isinstance(net.metadata, dict) else {}
        classes = stored.get("classes", range(wanted))
    classes = np.asarray(classes)
    if classes.shape != (wanted,):
        raise ValueError(
            f"classes has shape {classes.shape}; {outputs} outputs of {output} take ({wanted},)"
        )
    if not np.array_equal(np.unique(classes), classes):
        raise ValueError(
            f"classes = {classes.tolist()}; scikit-learn has them in ascending order, each once"
        )
    estimator = MLPClassifier(**arguments)
    if not multilabel:
        return estimator.partial_fit(x, classes[:1], classes=classes)
    if not np.array_equal(classes, np.arange(outputs)):
        raise ValueError(
            f"classes = {classes.tolist()}; a multilabel MLP of scikit-learn has 0 .. {outputs - 1}"
        )
    return estimator.partial_fit(x, np.zeros((1, outputs), int), classes=classes)


def _regressor(arguments: dict[str, Any], x: np.ndarray, net: MLP, output: str) -> MLPRegressor:
    """An MLPRegressor with every attribute of a fitted one, its weights still to be replaced."""
    from sklearn.neural_network import MLPRegressor

    if output == "exp":
        if "loss" not in MLPRegressor().get_params():
            raise ValueError("the output activation exp needs scikit-learn 1.7 or newer")
        arguments = arguments | {"loss": "poisson"}
    y = np.zeros((1, net.sizes[-1]))
    return MLPRegressor(**arguments).partial_fit(x, y[:, 0] if net.sizes[-1] == 1 else y)


def _forget_training(estimator: Any) -> None:
    """What the row of zeros left behind: scikit-learn's values before the first epoch."""
    estimator.n_iter_ = estimator.t_ = 0
    estimator.loss_curve_ = []
    estimator.best_loss_ = np.inf
    # The optimiser's moments; partial_fit makes it anew.
    for name in ("loss_", "_optimizer"):
        if hasattr(estimator, name):
            delattr(estimator, name)
