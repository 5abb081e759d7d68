"""A trained stack of networks, as estimators keep it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.estimators.fitted_network import device_or_cpu
from gpumlp.model.mlp import MLP
from gpumlp.utils.locks import Lock


class StoredStack:
    """A stack of networks; in pickles it is host arrays, and is made again when it is needed, on
    its device, or on the CPU where there is no such GPU."""

    def __init__(self, net: MLP):
        self._net: MLP | None = net
        self._state: dict[str, Any] = {}
        self._lock = Lock()  # several threads may predict; a network has one workspace

    @property
    def net(self) -> MLP:
        with self._lock:
            if self._net is None:
                arguments = self._state["arguments"]
                device = device_or_cpu(arguments["device"])
                net = MLP(**{**arguments, "device": device, "init": "zeros"})
                with net.ops.on_device():
                    net.parameters.buffer[...] = net.ops.to_device(self._state["theta"])
                self._net, self._state = net, {}
            return self._net

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """n^(K) of all networks, (M, rows, N_K)."""
        net = self.net
        with self._lock:
            return net.forward(x)

    def __getstate__(self) -> dict[str, Any]:
        net = self._net
        if net is None:
            return self._state
        arguments = {
            "sizes": net.sizes,
            "hidden": list(net.f[1:-1]),
            "output": net.f[-1],
            "models": net.models,
            "dtype": str(net.dtype),
            "device": net.device,
            "dropout": net.dropout,
            "scale": list(net.shape.scaled[1:]) or False,
        }
        return {"arguments": arguments, "theta": np.array(net.ops.to_host(net.parameters.buffer))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._net, self._state, self._lock = None, state, Lock()
