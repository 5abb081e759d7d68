"""Forward and backward propagation, equations (1)-(13).

A batch is stored one sample a row, so that z = W n + b of one sample reads Z = N W^T + b here, and
an index in the code is the index in the equation: slot 0 is the input or None.
"""

from __future__ import annotations

from gpumlp.backend.sparse_rows import SparseRows
from gpumlp.functions.activation import activations

IDENTITY = activations["identity"]


def forward(net, ws, x, noise, last: int):
    """z^(k) and n^(k) of layers 1..K into the workspace; of the last layer only z, unless last = K.

    x (1 or M, B, N_0), or `SparseRows` if the network's shape is sparse.  noise[k] is the
    randomness of layer k in training, or None.
    """
    make_operands(net)
    first_product(net, ws, x)
    remaining_layers(net, ws, noise, last)


def make_operands(net):
    """net.operands <- each W^(k) that the products do not take from the parameters themselves."""
    if net.bf16 is not None:
        net.ops.cast_bf16(net.parameters.buffer, net.bf16)
    for k in net.layout.s:
        # W^(k) = V^(k) diag(s^(k)), so that z^(k) = V^(k) (s^(k) * n^(k-1)) + b^(k)
        net.ops.scale(net.parameters.W[k], net.parameters.s[k], net.operands[k])


def first_product(net, ws, x):
    """z^(1) without its bias: all of `forward` that reads x."""
    if net.shape.sparse:
        WT = net.operands[1].transpose(0, 2, 1)  # as it is stored
        ws.n[0] = x
        if isinstance(x, SparseRows):
            net.ops.sparse_product(x, WT, out=ws.z[1])
        else:
            net.ops.gemm(x, WT, out=ws.z[1])
        return
    if net.bf16 is not None and x.dtype != net.shape.stored:
        bits = ws.x[: len(x)]
        net.ops.cast_bf16(net.ops.xp.ascontiguousarray(x), bits)
        x = bits
    ws.n[0] = x
    net.ops.gemm(x, net.operands[1], out=ws.z[1], tb=True)


def remaining_layers(net, ws, noise, last: int):
    """The rest of `forward`."""
    ops, W, b, z, n = net.ops, net.operands, net.parameters.b, ws.z, ws.n
    for k in range(1, net.K + 1):
        # (1)(3)(5)(8)  z^(k) = W^(k) n^(k-1) + b^(k); the bias is added with f
        if k > 1:
            ops.gemm(n[k - 1], W[k], out=z[k], tb=True)
        if k <= last:
            # (2)(4)(6)(9)  n^(k) = f^(k)(z^(k))
            ops.activate(net.f[k], z[k], b[k], n[k], net.p[k], noise[k])


def predict(net, x):
    """n^(K) (M, B, N_K) of x (1 or M, B, N_0) on the device; a buffer that is used again."""
    ws, noise = net.workspaces.get(x.shape[1], "predict"), [None] * (net.K + 1)
    make_operands(net)
    # The first product reads x where it lies; all that follows is on buffers of our own.
    first_product(net, ws, x)
    net.graphs.run("predict", lambda: remaining_layers(net, ws, noise, last=net.K), ws)
    return ws.n[net.K]


def loss_and_backward(net, ws, batch, objective, grad, noise):
    """L and every gradient of one batch: the whole of (1)-(13).

    batch: a `Batch`; objective: the loss as this network's output meets it (an `Objective`);
    grad: a `Gradient`, overwritten.  The loss of each network is left in ws.loss.
    """
    make_operands(net)
    backpropagate(net, ws, batch, objective, grad, noise)


def backpropagate(net, ws, batch, objective, grad, noise):
    """`loss_and_backward` with the operands as they are; of a slice of a batch, for example."""
    ops, K = net.ops, net.K
    W, n, z, delta, f = net.operands, ws.n, ws.z, ws.delta, net.f
    fused = objective.pair.fused
    first_product(net, ws, batch.x)
    remaining_layers(net, ws, noise, last=K - 1 if fused else K)

    # (7) L(y, ŷ), and delta^(K) = dL/dz^(K) if fused, else dL/dŷ
    objective.evaluate(net, ws, batch, delta[K])

    for k in range(K, 0, -1):
        # (11)  delta^(k) = f^(k)'(z^(k)) * (W^(k+1))^T delta^(k+1);  (13)  dL/db^(k) = delta^(k)
        if k < K:
            ops.gemm(delta[k + 1], W[k + 1], out=delta[k])
        df = IDENTITY if k == K and fused else f[k]
        ops.backprop(df, z[k], n[k], delta[k], grad.b[k], net.p[k], grad.slope[k], noise[k])
        # (12)  dL/dW^(k) = delta^(k) (n^(k-1))^T
        if k == 1 and net.shape.sparse:
            ops.sparse_gradient(n[0], delta[1], grad.occurs, out=grad.WT)
        else:
            ops.gemm(delta[k], n[k - 1], out=grad.W[k], ta=True)
        if k in net.layout.s:
            # with G = dL/dW^(k):  dL/dV_ij = G_ij s_j,  dL/ds_j = sum_i G_ij V_ij
            ops.scale_gradient(grad.W[k], net.parameters.W[k], net.parameters.s[k], grad.s[k])
