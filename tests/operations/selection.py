"""Some of the checks, enough to run every kernel and each of its branches, for slower runs.

`python -m tests.operations.selection` runs them on the stand-in for CuPy in a process of its own;
`simt.sanitize.run` starts it so that the kernels are instrumented.
"""

import sys

from . import bf16, layers, losses, metrics, minibatches, noise, persistent_kernel, sparse, updates

SELECTION = {
    "tanh": lambda ops: _layer(ops, "float32", "tanh", (70, 37)),
    "tanh by 128 bits": lambda ops: _layer(ops, "float32", "tanh", (130, 8)),
    "tanh in pairs": lambda ops: _layer(ops, "float32", "tanh", (37, 130)),
    "tanh in float64": lambda ops: _layer(ops, "float64", "tanh", (70, 37)),
    "tanh in float64 by 128 bits": lambda ops: _layer(ops, "float64", "tanh", (70, 132)),
    "identity": lambda ops: layers.check_backprop(ops, "float32", 3, "identity", (70, 132)),
    "prelu": lambda ops: _layer(ops, "float32", "prelu", (130, 40)),
    "prelu, one element": lambda ops: _layer(ops, "float32", "prelu", (1, 1)),
    "scale": lambda ops: layers.check_scale(ops, "float32", 3, (70, 37)),
    "scale by 128 bits": lambda ops: layers.check_scale(ops, "float32", 3, (130, 8)),
    "scale in float64": lambda ops: layers.check_scale(ops, "float64", 3, (70, 132)),
    "scale into bfloat16": lambda ops: bf16.check_scale(ops, 3, (37, 136)),
    "sparse product": lambda ops: sparse.check_product(ops, "float32", 3, "own", (70, 37)),
    "sparse product by 128 bits": lambda ops: sparse.check_product(
        ops, "float32", 3, "shared", (70, 132)
    ),
    "sparse product in float64": lambda ops: sparse.check_product(
        ops, "float64", 3, "slice", (37, 8)
    ),
    "sparse product in bfloat16": lambda ops: bf16.check_sparse_product(ops, 3, "own", (37, 136)),
    "sparse product of bfloat16": lambda ops: bf16.check_sparse_product(
        ops, 3, "own", (37, 136), "float32"
    ),
    "sparse gradient": lambda ops: sparse.check_gradient(ops, "float32", 3, "own", (70, 37)),
    "sparse gradient of a slice": lambda ops: sparse.check_gradient(
        ops, "float32", 3, "slice", (37, 64), 1000
    ),
    "sparse gradient in order": lambda ops: sparse.check_order(ops, "float32"),
    "sparse gradient in bfloat16": lambda ops: bf16.check_sparse_gradient(ops, 3, "own", (37, 37)),
    "rows without non-zeros": lambda ops: sparse.check_no_nonzeros(ops, "float32", 3),
    "softmax": lambda ops: layers.check_softmax(ops, "float32", 3, "softmax", (37, 37)),
    "dropout": lambda ops: noise.check_dropout_and_f(ops, "float32", 3, (37, 37), "gelu"),
    "dropout by 128 bits": lambda ops: noise.check_dropout_and_f(
        ops, "float32", 3, (37, 8), "gelu"
    ),
    "drawn slopes": lambda ops: noise.check_drawn_slopes(ops, "float32", 3, (3, 37)),
    "drawn slopes by 128 bits": lambda ops: noise.check_drawn_slopes(ops, "float32", 3, (3, 8)),
    "dropout, f' from n": lambda ops: noise.check_dropout_and_f(
        ops, "float32", 3, (37, 37), "sigmoid"
    ),
    "Philox": noise.check_known_answers,
    "gelu in bfloat16": lambda ops: _bf16_layer(ops, "gelu", (37, 8)),
    "tanh in bfloat16": lambda ops: _bf16_layer(ops, "tanh", (70, 37)),
    "prelu in bfloat16": lambda ops: _bf16_layer(ops, "prelu", (70, 40)),
    "dropout in bfloat16": lambda ops: bf16.check_dropout_mask(ops, 3, (37, 8)),
    "cross entropy in bfloat16": lambda ops: bf16.check_loss(ops, 3, *losses.NATURAL[6], (71, 10)),
    "gather into bfloat16": lambda ops: bf16.check_gather(ops, 3, "float32", 1096),
    "copies in bfloat16": lambda ops: bf16.check_narrow(ops, 2053, 3),
    "copies to any place": bf16.check_narrow_places,
    "relu of NaN": lambda ops: layers.check_not_finite(ops, "float32", "relu"),
    "squared error": lambda ops: losses.check_loss(ops, "float32", 3, *losses.NATURAL[0], (37, 37)),
    "squared error, NaN without weight": lambda ops: losses.check_loss(
        ops, "float32", 3, *losses.NATURAL[0], (9, 3), broken=True
    ),
    "cross entropy": lambda ops: losses.check_loss(ops, "float32", 3, *losses.NATURAL[6], (71, 10)),
    "cross entropy by 128 bits": lambda ops: losses.check_loss(
        ops, "float32", 3, *losses.NATURAL[6], (71, 12)
    ),
    "targets that begin anywhere": lambda ops: losses.check_targets_anywhere(
        ops, "float32", "softmax"
    ),
    "cross entropy, NaN without weight": lambda ops: losses.check_loss(
        ops, "float32", 3, *losses.NATURAL[6], (9, 37), broken=True
    ),
    "cross entropy in float64": lambda ops: losses.check_loss(
        ops, "float64", 1, *losses.NATURAL[6], (70, 10)
    ),
    "large logits": lambda ops: losses.check_large_logits(ops, "float32"),
    "prepare_update": lambda ops: updates.check_advance(ops, "float32", 3, 12320, penalty=True),
    "events": lambda ops: updates.check_events(ops, "float32"),
    "SGD": lambda ops: _update(ops, 3),
    "RMSprop": lambda ops: _update(ops, 6),
    "Adam": lambda ops: _update(ops, 8),
    "plain epsilon": lambda ops: updates.check_plain_epsilon(ops, "float32", 3),
    "overflow": lambda ops: updates.check_overflow(ops, "float32", 3, *updates.CASES[8]),
    "factors": lambda ops: updates.check_factors(ops, "float32", 3, *updates.CASES[9]),
    "occurring": lambda ops: sparse.check_update(ops, "float32", 3, *sparse.CASES[0]),
    "occurring, with factors": lambda ops: sparse.check_update(
        ops, "float32", 3, *sparse.CASES[3], units=3, factors=True
    ),
    "occurring, overflow": lambda ops: sparse.check_overflow(ops, "float32", 3, *sparse.CASES[1]),
    "frozen": lambda ops: updates.check_frozen(ops, "float32", "Adam"),
    "gather": lambda ops: minibatches.check_gather(ops, "float32", 3, "float32", 37),
    "gather by 128 bits": lambda ops: minibatches.check_gather(ops, "float32", 3, "float32", 132),
    "gather bytes": lambda ops: minibatches.check_gather(
        ops, "float32", 3, "uint8", 8, targets="dense", shared=True
    ),
    "gather targets": lambda ops: minibatches.check_gather(
        ops, "float32", 3, "float32", 3, targets="dense"
    ),
    "gather many rows": lambda ops: minibatches.check_gather(
        ops, "float32", 3, "uint8", 1, targets=None, rows=4400
    ),
    "gather into float64": lambda ops: minibatches.check_gather(ops, "float64", 1, "float32", 8),
    "gather sparse rows": lambda ops: sparse.check_gather(ops, "float32", 3),
    "gather beyond 32 bits": minibatches.check_gather_far,
    "accumulate_metrics": lambda ops: metrics.check_tally(ops, "float32", 3, "largest", (130, 3)),
    "tally by 128 bits": lambda ops: metrics.check_tally(ops, "float32", 3, "largest", (37, 36)),
    "tally of bits": lambda ops: metrics.check_tally(ops, "float32", 3, "at 0.5", (37, 37)),
    "shuffle": lambda ops: minibatches.check_shuffle(ops, 3, 1100, epoch=9),
    "persistent_kernel": lambda ops: _resident(ops, "prelu and rrelu with dropout", padded=True),
    "resident by 128 bits": lambda ops: _resident(
        ops, "packs, drawn slopes and dropout", padded=True
    ),
    "resident, stopped": lambda ops: _resident(ops, "learned slope at the output", stopped=True),
    "resident, rests": lambda ops: _resident(ops, "rests of every product"),
    "resident, f' of the output": lambda ops: _resident(ops, "learned slope at the output"),
    "resident in float64": lambda ops: persistent_kernel.check(
        ops, "float64", "gelu, values", 1, own=True
    ),
}


def _layer(ops, dtype, name, shape):
    layers.check_activate(ops, dtype, 3, name, shape)
    layers.check_backprop(ops, dtype, 3, name, shape)


def _bf16_layer(ops, name, shape):
    bf16.check_activate(ops, 3, name, shape)
    for stored in "uint16", "float32":
        bf16.check_backprop(ops, 3, name, shape, stored)


def _update(ops, number):
    updates.check_update(ops, "float32", 3, *updates.CASES[number], size=4224, decayed=4128)


def _resident(ops, case, **options):
    persistent_kernel.check(ops, "float32", case, 2, **options)


def in_few_blocks(check):
    """The check with as few blocks as on large arrays: each thread takes several rows."""

    def run(ops):
        from gpumlp.backend.cuda import cupy_ops

        enough, cupy_ops.ENOUGH = cupy_ops.ENOUGH, 1
        try:
            check(ops)
        finally:
            cupy_ops.ENOUGH = enough

    return run


IN_MANY_BLOCKS = dict(SELECTION)
SELECTION = {name: in_few_blocks(check) for name, check in SELECTION.items()}


def run(names=None):
    """These checks, or all, on the kernels."""
    from gpumlp import backend

    for name in names or SELECTION:
        SELECTION[name](backend.get("cuda:0"))


if __name__ == "__main__":
    from tests import standin

    standin.install()
    run(sys.argv[1:])
    print("every check passed")
