"""What activations and losses have in common: a name, constants, and a place in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from gpumlp.utils import checks

F = TypeVar("F", bound="Function")


class Function:
    """A function has a name, and constants in `parameters`.

    The kinds are frozen dataclasses; `table` holds the built-in ones of the kind, and `mathematics`
    is what tells a built-in one from a user's own of the same name.
    """

    name: str
    parameters: dict[str, float]
    table: ClassVar[Mapping[str, Any]]

    @property
    def mathematics(self) -> object:
        """What differs between two functions of one name."""
        raise NotImplementedError

    @property
    def built_in(self) -> bool:
        """Whether it is one of the table, perhaps with other constants."""
        known = self.table.get(self.name)
        return known is not None and known.mathematics == self.mathematics

    @property
    def p(self) -> tuple[float, ...]:
        """The constants, in the order that the functions index them."""
        return tuple(self.parameters.values())

    def __call__(self: F, **parameters: float) -> F:
        """Return this function with other constants, e.g. `activations["leaky_relu"](slope=0.2)`.

        Parameters
        ----------
        **parameters : float
            Constants by their names; those that are left out stay.

        Raises
        ------
        TypeError
            For a constant that the function has not.
        ValueError
            For a constant that is no finite number, or out of range.
        """
        unknown = set(parameters) - set(self.parameters)
        if unknown:
            takes = ", ".join(self.parameters) or "no constants"
            raise TypeError(f"{self.name} takes {takes}, not {', '.join(sorted(unknown))}")
        for key, value in parameters.items():
            checks.number(value, f"{self.name}: {key}", checks.finite())
        changed = {key: float(value) for key, value in parameters.items()}
        return replace(self, parameters={**self.parameters, **changed})  # type: ignore[type-var]

    def __repr__(self) -> str:
        constants = ", ".join(f"{key}={value:g}" for key, value in self.parameters.items())
        return f"{self.name}({constants})" if constants else self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        # A built-in is pickled by its name: its functions cannot be.
        if self.built_in:
            return _restored, (type(self), self.name, self.parameters)
        return super().__reduce__()

    @classmethod
    def find(cls: type[F], wanted: Any, kind: str) -> F:
        """The one of that name, or the one given; kind: the argument's name, for the message."""
        if isinstance(wanted, cls):
            return wanted
        if isinstance(wanted, str) and wanted in cls.table:
            return cls.table[wanted]
        names = ", ".join(map(repr, cls.table))
        raise checks.ParameterError(
            f"{kind} = {checks.shown(wanted)} must be one of {names}, or a gpumlp.{cls.__name__}"
        )


def _restored(cls: type[F], name: str, parameters: dict[str, float]) -> F:
    return cls.table[name](**parameters)
