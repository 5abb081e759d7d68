"""The bytes that a training step must move besides its GEMMs: what the kernels' headers state, a
line for each kernel.  (A GEMM's own operands are in the GEMM's time.)"""

from benchmarks.networks import Network
from gpumlp.functions.activation import activations

FLOAT = 4
# The elements of operands of GEMMs; bf16 keeps everything else in float32.
OPERAND = {"float32": FLOAT, "tf32": FLOAT, "bf16": 2}
ADAM_BUFFERS = 2


def other_bytes(network: Network) -> dict[str, int]:
    """operation -> bytes of one step with Adam, float32 data in the device's memory."""
    *hidden, outputs = network.sizes[1:]
    operand = OPERAND[network.precision]
    units, batch = sum(hidden), network.batch
    keeps_z = activations[network.hidden].df_from == "z"
    labelled = network.loss == "cross_entropy"
    moved = {
        # reads one Source, writes one operand
        "gather": batch * network.sizes[0] * (FLOAT + operand),
        # reads theta, writes its copy for the GEMMs
        "cast_bf16": network.count * (FLOAT + operand) if operand != FLOAT else 0,
        # reads z; writes n, and z + b where f' needs it
        "activate": batch * units * operand * (3 if keeps_z else 2),
        # reads u and, unless the targets are labels, y (again from the caches); writes delta
        "loss": batch * outputs * (FLOAT * (1 if labelled else 2) + operand),
        # reads delta and n (or z), writes delta; of the output delta alone, for the bias gradient
        "backprop": batch * (3 * units + outputs) * operand,
        # reads g; the weights too where penalties are noted, which they are not here
        "prepare_update": network.count * FLOAT,
        # reads g; reads and writes theta and its buffers
        "update": network.count * FLOAT * (1 + 2 * (1 + ADAM_BUFFERS)),
    }
    return {kernel: (network.models or 1) * count for kernel, count in moved.items()}


def step_limit(network: Network, gemms: float, copy_bandwidth: float) -> float:
    """Seconds that a step cannot go below: its GEMMs, then the other bytes as fast as a copy."""
    return gemms + sum(other_bytes(network).values()) / copy_bandwidth
