"""The classes of a classifier, and the coding of its targets by them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target, unique_labels

from gpumlp.estimators import contents
from gpumlp.estimators.input_checks import naming
from gpumlp.functions import activation
from gpumlp.functions import loss as losses


class Classes:
    """Keeps the classes of an MLPClassifier, and codes targets by them."""

    loss: Any
    output_activation: Any
    warm_start: bool
    n_outputs_: int
    _coding: Any
    _output_for: Any
    _targets: Any

    @property
    def classes_(self) -> np.ndarray:
        """The labels, in ascending order; may be set."""
        if "classes_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no classes_ before fit")
        return vars(self)["classes_"]

    @classes_.setter
    def classes_(self, classes):
        classes = contents.native(np.asarray(classes))
        with naming("classes_"):
            ascending = np.array_equal(np.unique(classes), classes)
        if not ascending:
            raise ValueError(
                f"classes_ = {classes.tolist()}; they are in ascending order, each once, as the "
                "outputs are that coefs_ lead to"
            )
        binarizer = vars(self).get("_binarizer")
        if binarizer is not None:
            if len(classes) != len(binarizer.classes_):
                raise ValueError(
                    f"classes_ = {classes.tolist()}; the network is one of "
                    f"{len(binarizer.classes_)} classes"
                )
            binarizer = copy.copy(binarizer)
            binarizer.classes_ = classes
            self._binarizer = binarizer
        vars(self)["classes_"] = classes

    def _take_coding(self, binarizer):
        """Take the classes of a fitted LabelBinarizer."""
        self._binarizer, vars(self)["classes_"] = binarizer, binarizer.classes_

    def _know_classes(self, outputs: int):
        """Make the coding of classes that were set by hand, and check it against the outputs."""
        if "_binarizer" not in vars(self):
            if "classes_" not in vars(self):
                raise NotFittedError(
                    f"{type(self).__name__} has weights and no classes_: set classes_ too, the "
                    "labels in ascending order, or call fit"
                )
            multilabel = outputs > 1 and self._labels_by_hand
            targets = np.eye(outputs, dtype=int) if multilabel else self.classes_
            self._binarizer = LabelBinarizer().fit(targets)
            self._binarizer.classes_ = self.classes_
        self._take_coding(self._binarizer)
        classes = len(self.classes_)
        wanted = 1 if self._binarizer.y_type_ == "binary" else classes
        if outputs != wanted:
            raise ValueError(
                f"classes_ has {classes} labels, for which the network has {wanted} outputs; that "
                f"of coefs_ has {outputs}"
            )

    @property
    def _labels_by_hand(self) -> bool:
        """Whether an out_activation_ that was set is scikit-learn's for several labels at once."""
        usual = self.loss == "log_loss" and self.output_activation is None
        return usual and activation.find(self._output_for("softmax")).name == "sigmoid"

    # ------------------------------------------------------------ targets
    def _first_classes(self, y, classes):
        """Keep the classes of the first partial_fit; those of later ones must agree."""
        known = vars(self).get("classes_")
        if classes is not None:
            contents.refuse(classes, "classes", contents.NO_LABELS)
            with naming("classes"):
                classes = contents.native(unique_labels(classes))
        if known is not None:
            if classes is not None and not np.array_equal(known, classes):
                raise ValueError(
                    f"classes = {classes.tolist()}; in the first call they were {known.tolist()}"
                )
            return
        y = self._targets(y, "y")
        with naming("y"):
            multilabel = type_of_target(y).startswith("multilabel")
        if multilabel:
            binarizer = LabelBinarizer().fit(y)
            count = len(binarizer.classes_)
            if classes is not None and len(classes) != count:
                raise ValueError(f"classes = {classes.tolist()}, and y has {count} labels")
        elif classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        else:
            with naming("classes"):
                binarizer = LabelBinarizer().fit(classes)
        self._take_coding(binarizer)

    def _encoded(self, y, dtype, first, incremental):
        """y as labels, and coded for the network; the classes are set, unless the fit goes on."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        goes_on = self.warm_start or incremental
        if incremental and (codes := self._known_codes(y, dtype)) is not None:
            return y, codes
        contents.refuse_labels(y, "y")
        if self._coding is not None:
            self._take_coding(self._coding)
        elif "classes_" in vars(self) and goes_on:
            self._check_classes(y)
            if "_binarizer" not in vars(self):  # they were set by hand
                self._take_coding(LabelBinarizer().fit(y if y.ndim > 1 else self.classes_))
        else:
            self._take_coding(LabelBinarizer().fit(y))
        return y, self._code(y, dtype)

    def _encoded_again(self, y, dtype):
        """The same for a validation set, whose classes must be among those of the fit."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        contents.refuse_labels(y, "y_val")
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(f"y_val has classes {unknown} that y has not")
        return y, self._code(y, dtype)

    def _check_classes(self, y):
        """Raise ValueError for new classes and, with warm_start, for missing ones."""
        classes = unique_labels(y)
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    f"warm_start needs the same classes: they were {self.classes_}, y has {classes}"
                )
        elif len(unknown := np.setdiff1d(classes, self.classes_)):
            raise ValueError(f"y has classes {unknown}; those of this fit are {self.classes_}")

    def _known_codes(self, y, dtype) -> np.ndarray | None:
        """`_code` of whole numbers that are all known classes, in a loop of partial_fit; None where
        there is more to check."""
        known = vars(self)
        if self.warm_start or self._coding is not None or "_binarizer" not in known:
            return None
        if y.ndim != 1 or y.dtype.kind not in "iu" or y.dtype != self.classes_.dtype:
            return None
        codes = np.searchsorted(self.classes_, y)
        if codes.max() == len(self.classes_) or not np.array_equal(self.classes_[codes], y):
            return None
        return self._code(y, dtype, codes)

    @property
    def _several(self) -> bool:
        """More than two classes, of which one is right: an output for each."""
        return self._binarizer.y_type_ == "multiclass"

    def _code(self, y, dtype, codes=None) -> np.ndarray:
        """y as the network takes it: the classes' numbers, or 0 and 1 for each output.

        codes: the classes' numbers, where they are known.
        """
        if codes is not None and self._binarizer.y_type_ == "binary" and len(self.classes_) == 2:
            return codes[:, np.newaxis].astype(dtype)
        if self._several and (self.loss == "log_loss" or losses.find(self.loss).classes):
            codes = np.searchsorted(self.classes_, y) if codes is None else codes
            return codes.astype(np.int32)
        return self._binarizer.transform(y).astype(dtype)
