"""The constructor's parameters, of which a subclass's own constructor may list only some."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, TypeVar

import numpy as np

T = TypeVar("T", bound=type)


def keep(estimator, arguments: dict[str, Any]) -> None:
    """Set a constructor's arguments (its `locals()`) as attributes, untouched."""
    for name, value in arguments.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def with_defaults(cls: T) -> T:
    """Set the constructor's defaults on the class, for subclasses that never call it."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    cls._defaults = {  # type: ignore[attr-defined]
        name: parameter.default for name, parameter in signature.parameters.items()
    }
    del cls._defaults["self"]  # type: ignore[attr-defined]
    for name, default in cls._defaults.items():  # type: ignore[attr-defined]
        setattr(cls, name, default)
    return cls


class Constructed:
    """Gives all parameters to subclasses whose own constructor lists some of them.

    scikit-learn knows the listed ones.  Another one is what the constructor makes it, else the
    default.
    """

    _defaults: ClassVar[dict[str, Any]]  # of all parameters
    _param_names: list[str]

    @classmethod
    def _get_param_names(cls):
        """The listed parameters, as scikit-learn finds them, but looked up once for each class:
        searches ask for them many times for every fit."""
        if "_param_names" not in vars(cls):
            cls._param_names = super()._get_param_names()  # type: ignore[misc]
        return cls._param_names

    def _all_params(self) -> dict[str, Any]:
        """get_params(deep=False), with the parameters that the constructor does not list."""
        names = {*self._defaults, *self._get_param_names()}
        return {name: getattr(self, name) for name in sorted(names)}

    def set_params(self, **params):
        """Set parameters as scikit-learn does; what a constructor derives from them follows."""
        if self._defaults.keys() <= set(self._get_param_names()):
            return super().set_params(**params)  # type: ignore[misc]
        before = self._constructed()
        super().set_params(**params)  # type: ignore[misc]
        for name, value in self._constructed().items():
            if name not in before or not np.array_equal(before[name], value):
                setattr(self, name, value)
        return self

    def _constructed(self) -> dict[str, Any]:
        """The attributes that the constructor derives from the parameters that it lists."""
        listed = self.get_params(deep=False)  # type: ignore[attr-defined]
        made = vars(type(self)(**listed))
        return {name: value for name, value in made.items() if name not in listed}
