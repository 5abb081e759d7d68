"""What happened, epoch by epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass
class History:
    """One entry an epoch in each list: a number, or for a stack an array (M,).

    loss:          the mean over the epoch's batches, each before its update, weighted by samples
    val_loss:      on the validation set, after the epoch; empty without one
    val_accuracy:  the same, for losses on classes
    lr:            the learning rate of the epoch's last update
    seconds:       of the epoch, with validation
    interrupted:   Ctrl-C ended the training
    diverged:      network -> the update that was not finite, or its loss or gradient
    """

    loss: list = field(default_factory=list)
    val_loss: list = field(default_factory=list)
    val_accuracy: list = field(default_factory=list)
    lr: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    interrupted: bool = False
    diverged: dict = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return len(self.loss)

    def last(self, name: str):
        """The newest entry of a list, e.g. "val_loss"."""
        values = getattr(self, name, None)
        if not isinstance(values, list):
            raise ValueError(f"there is no {name!r} in the history")
        if not values:
            need = " and a loss on classes" if name == "val_accuracy" else ""
            raise ValueError(f"there is no {name}: train with validation=(x, y){need}")
        return values[-1]

    def state(self) -> dict:
        """Plain lists and numbers, for files."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def from_state(state: dict) -> History:
    """The history that `History.state` described."""
    import numpy as np

    seen: dict = {}
    for key, value in state.items():
        listed = isinstance(value, list)
        seen[key] = [np.array(v) if isinstance(v, list) else v for v in value] if listed else value
    seen["diverged"] = {int(m): t for m, t in state["diverged"].items()}
    return History(**seen)


def _plain(value):
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): int(v) for k, v in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
