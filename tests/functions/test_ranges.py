"""The ends of the ranges of public numbers: what lies on them is taken or refused as documented."""

import numpy as np
import pytest

import gpumlp
from gpumlp import activations, losses, schedules

JUST_BELOW_1 = np.nextafter(1, 0)
# what takes the number, its name, numbers at the ends that are taken, and refused
ENDS = [
    *((law, name, [0.0], [-1e-300]) for law in (gpumlp.SGD, gpumlp.Adam, gpumlp.RMSprop)
      for name in ("lr", "l1", "l2")),
    (gpumlp.AdamW, "weight_decay", [0.0], [-1e-300]),
    (gpumlp.SGD, "momentum", [0.0, JUST_BELOW_1], [-1e-300, 1.0]),
    (gpumlp.RMSprop, "momentum", [0.0, JUST_BELOW_1], [-1e-300, 1.0]),
    (gpumlp.RMSprop, "rho", [0.0, JUST_BELOW_1], [-1e-300, 1.0]),
    (gpumlp.Adam, "beta1", [0.0, JUST_BELOW_1], [-1e-300, 1.0]),
    (gpumlp.Adam, "beta2", [0.0, JUST_BELOW_1], [-1e-300, 1.0]),
    (gpumlp.Adam, "eps", [1e-30], [0.0, 0.9e-30]),
    (schedules["step"], "every", [1e-300], [0, -1]),
    (schedules["step"], "decay", [0, 1], [-1e-300]),
    (schedules["exponential"], "decay", [0, 1], [-1e-300]),
    (schedules["inverse_scaling"], "power", [0], [-1e-300]),
    (schedules["cosine"], "warmup", [0], [-1e-300]),
    (schedules["cosine"], "floor", [0], [-1e-300]),
    (schedules["one_cycle"], "rise", [1e-300, JUST_BELOW_1], [0, 1]),
    (schedules["one_cycle"], "start", [1e-300], [0]),
    (schedules["one_cycle"], "end", [1e-300], [0]),
    (schedules["plateau"], "decay", [1e-300, JUST_BELOW_1], [0, 1]),
    (schedules["plateau"], "patience", [1], [0]),
    (schedules["plateau"], "delta", [0], [-1e-300]),
    (schedules["plateau"], "floor", [0, 1], [-1e-300, 1 + 1e-9]),
    (gpumlp.EarlyStopping, "patience", [1], [0]),
    (gpumlp.EarlyStopping, "delta", [0], [-1e-300]),
    (activations["leaky_relu"], "slope", [0, 1e9], [np.nan, np.inf]),
    (losses["huber"], "delta", [1e-6], [0, 0.999e-6]),
    (losses["quantile"], "q", [0, 1], [-1e-9, 1 + 1e-9]),
    (losses["cross_entropy"], "label_smoothing", [0, 1], [-1e-9, 1 + 1e-9]),
    (losses["focal"], "gamma", [0], [-1e-9]),
]  # fmt: skip


def case(value) -> str:
    return getattr(value, "__name__", None) or getattr(value, "name", None) or str(value)


@pytest.mark.parametrize("takes, name, taken, refused", ENDS, ids=case)
def test_the_ends_of_a_range(takes, name, taken, refused):
    for value in taken:
        takes(**{name: value})
    for value in refused:
        with pytest.raises(ValueError):
            takes(**{name: value})
