"""What happened, epoch by epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class History:
    """A history lists what came of each epoch: one entry an epoch, a number, or (M,) for a stack.

    Attributes
    ----------
    loss : list
        The mean over the epoch's batches, each before its update, weighted by samples.
    val_loss : list
        The loss on the validation set, after the epoch; empty without one.
    val_accuracy : list
        The accuracy there, for losses on classes.
    lr : list
        The learning rate of the epoch's last update.
    seconds : list of float
        The time of the epoch, with validation.
    interrupted : bool
        Whether Ctrl-C ended the training.
    diverged : dict of int to int
        Network -> the update that was not finite, or its loss or gradient.
    """

    loss: list[Any] = field(default_factory=list)
    val_loss: list[Any] = field(default_factory=list)
    val_accuracy: list[Any] = field(default_factory=list)
    lr: list[Any] = field(default_factory=list)
    seconds: list[Any] = field(default_factory=list)
    interrupted: bool = False
    diverged: dict[int, int] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return len(self.loss)

    def last(self, name: str) -> Any:
        """Return the newest entry of a list.

        Parameters
        ----------
        name : str
            "loss", "val_loss", "val_accuracy", "lr" or "seconds".

        Raises
        ------
        ValueError
            Where there is no such list, or it is empty.
        """
        values = getattr(self, name, None)
        if not isinstance(values, list):
            raise ValueError(f"there is no {name!r} in the history")
        if not values:
            need = " and a loss on classes" if name == "val_accuracy" else ""
            raise ValueError(f"there is no {name}: train with validation=(x, y){need}")
        return values[-1]

    def state(self) -> dict[str, Any]:
        """Return plain lists and numbers, for files."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def from_state(state: dict[str, Any]) -> History:
    """The history that `History.state` described."""
    import numpy as np

    fields: dict[str, Any] = {}
    for key, value in state.items():
        listed = isinstance(value, list)
        fields[key] = (
            [np.array(v) if isinstance(v, list) else v for v in value] if listed else value
        )
    fields["diverged"] = {int(m): t for m, t in state["diverged"].items()}
    return History(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): int(v) for k, v in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
