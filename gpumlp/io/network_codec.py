"""Networks in files: their arguments as JSON, their parameters as arrays W.1, b.1, s.1, slope.1,
..., each name with a prefix where a file holds several networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.functions import activation
from gpumlp.io import file_arrays, named
from gpumlp.io.trainer_codec import plain
from gpumlp.model.mlp import MLP


def describe(net: MLP, prefix: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All but the metadata: the description, and the arrays."""
    about = {
        "sizes": list(net.sizes),
        "activations": [named.function_state(f) for f in net.f[1:]],
        "models": net.models,
        "dtype": str(net.dtype),
        "seed": plain(net.seed),
        "init": net.init if isinstance(net.init, str) else None,
        "dropout": plain(net.dropout),
        **({"scale": list(net.shape.scaled[1:])} if net.shape.scaled else {}),
        "precision": net.precision,
        "tune": net.tune,
        **({"sparse": True} if net.shape.sparse else {}),
        "products": net.ops.export_algorithms(),
    }
    return about, file_arrays.named(net.layout, net.ops.to_host(net.parameters.buffer), prefix)


def restore(
    state: dict[str, Any], arrays, device: str, custom: dict[str, Any], prefix: str = ""
) -> MLP:
    """The network that was described, on that device; SchemaError before it takes memory that its
    arrays in the file do not take."""
    functions = [
        named.find(activation.activations, custom, described, "activation")
        for described in state["activations"]
    ]
    file_arrays.check_shapes(state, functions, arrays, prefix)
    net = MLP(
        state["sizes"],
        functions[:-1],
        functions[-1],
        models=state["models"],
        dtype=state["dtype"],
        device=device,
        init="zeros",
        seed=state["seed"],
        dropout=state["dropout"],
        scale=state.get("scale", False),
        precision=state.get("precision", "float32"),
        tune=state.get("tune", False),
        sparse=state.get("sparse", False),
    )
    net.ops.load_algorithms(state.get("products", {}))
    net.init = state["init"]
    with net.ops.on_device():
        net.parameters.buffer[...] = net.ops.to_device(file_arrays.gathered(net, arrays, prefix))
    return net
