"""PyTorch: eager, compiled, with CUDA graphs captured by hand, and mapped over many networks."""

from __future__ import annotations

import contextlib
import itertools

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from benchmarks.contenders import Contender, Declined
from benchmarks.networks import ADAM

WARM_UPS = 3  # before a capture, on another stream, as PyTorch's manual asks

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}
MATMUL_PRECISION = {"float32": "highest", "tf32": "high", "bf16": "highest"}


class Torch(Contender):
    """Data, the loss, a module of Linear and activations, and the fused Adam."""

    capturable = False

    def __init__(self, problem, device):
        super().__init__(problem, device)
        network = self.network
        torch.manual_seed(0)
        torch.set_float32_matmul_precision(MATMUL_PRECISION[network.precision])
        self.x = torch.tensor(problem.x, device=device)
        self.y = torch.tensor(problem.y, device=device)
        if network.loss == "cross_entropy":
            self.y, self.loss = self.y.long(), nn.functional.cross_entropy
        else:
            half = network.sizes[-1] / 2  # a sum over outputs, where PyTorch has the mean
            self.loss = lambda output, y: nn.functional.mse_loss(output, y) * half
        f = ACTIVATIONS[network.hidden]
        pairs = [(nn.Linear(a, b), f()) for a, b in itertools.pairwise(network.sizes)]
        layers = [layer for pair in pairs for layer in pair]
        self.model = nn.Sequential(*layers[:-1]).to(device)

    def adam(self, parameters):
        return torch.optim.Adam(
            list(parameters),
            lr=ADAM["lr"],
            betas=(ADAM["beta1"], ADAM["beta2"]),
            eps=ADAM["eps"],
            fused=True,
            capturable=self.capturable,
        )

    def arrays(self):
        """W[1], b[1], W[2], ... of the problem."""
        pairs = zip(self.problem.W[1:], self.problem.b[1:], strict=True)
        return [array for pair in pairs for array in pair]

    def tensors(self) -> list:
        """The parameters in the same order."""
        raise NotImplementedError

    @torch.no_grad()
    def set_weights(self):
        for tensor, array in zip(self.tensors(), self.arrays(), strict=True):
            tensor.copy_(torch.from_numpy(array))

    def to_host(self, array):
        return array.float().cpu().numpy()

    def parameters(self):
        return [tensor.detach().cpu().numpy().copy() for tensor in self.tensors()]

    def wait(self):
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)


class Eager(Torch):
    """One network; bf16 by autocast, with the parameters in float32."""

    def __init__(self, problem, device):
        if problem.network.models is not None:
            raise Declined("its modules are one network each")
        super().__init__(problem, device)

    def load(self):
        self.optimizer = self.adam(self.model.parameters())
        self.set_weights()

    def tensors(self):
        return list(self.model.parameters())

    def _precision(self):
        if self.network.precision != "bf16":
            return contextlib.nullcontext()
        # Without the cache of cast weights, which a CUDA graph would not notice to be out of date.
        return torch.autocast(self.x.device.type, torch.bfloat16, cache_enabled=False)

    def _objective(self, x, y):
        with self._precision():
            return self.loss(self.model(x), y)

    def _predict(self, x):
        with self._precision():
            output = self.model(x)
        return output.softmax(dim=1) if self.network.loss == "cross_entropy" else output

    def update(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._objective(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def update_rows(self, index):
        return self.update(self.x[index], self.y[index])

    def step(self):
        batch = self.network.batch
        return self.update(self.x[:batch], self.y[:batch])

    def epoch(self):
        network = self.network
        order = torch.randperm(network.rows, device=self.x.device)
        total = torch.zeros((), device=self.x.device)
        for start in range(0, network.rows, network.batch):
            index = order[start : start + network.batch]
            total += self.update_rows(index) * len(index)
        return total.item() / network.rows

    @torch.inference_mode()
    def predict(self, rows):
        return self._predict(self.x[:rows])


class Compiled(Eager):
    """torch.compile of forward and loss, and so of the backward pass; on a GPU replayed as CUDA
    graphs.  The optimiser is fused already."""

    def __init__(self, problem, device):
        super().__init__(problem, device)
        mode = "reduce-overhead" if self.x.is_cuda else "default"
        torch._dynamo.reset()
        # A last batch that is shorter gets a program of its own.
        self._objective = torch.compile(super()._objective, mode=mode, dynamic=False)
        self._predict = torch.compile(super()._predict, mode=mode, dynamic=False)

    def load(self):
        super().load()
        try:
            self._objective(self.x[:1], self.y[:1])
        except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, no Triton
            lines = str(error).strip().splitlines() or [""]
            raise Declined(f"torch.compile: {type(error).__name__}: {lines[0]}") from error


class Vmap(Torch):
    """Many networks by `torch.func`: one network's gradient mapped over stacked parameters.  Each
    has an order of its own, as gpumlp's have."""

    def __init__(self, problem, device):
        if problem.network.models is None:
            raise Declined("it is for many networks")
        if problem.network.precision == "bf16":
            raise Declined("autocast is not written for it")
        super().__init__(problem, device)

        def value(parameters, x, y):
            return self.loss(functional_call(self.model, parameters, (x,)), y)

        self.gradients = vmap(grad_and_value(value))
        self.theta = {
            name: torch.empty(array.shape, device=device)
            for (name, _), array in zip(self.model.named_parameters(), self.arrays(), strict=True)
        }

    def load(self):
        self.set_weights()
        self.optimizer = self.adam(self.theta.values())

    def tensors(self):
        return list(self.theta.values())

    def update_rows(self, index):
        """One step of every network on its rows, index (M, B); the losses (M,)."""
        gradients, losses = self.gradients(self.theta, self.x[index], self.y[index])
        for name, theta in self.theta.items():
            theta.grad = gradients[name]
        self.optimizer.step()
        return losses

    def step(self):
        first = torch.arange(self.network.batch, device=self.x.device)
        return self.update_rows(first.expand(self.network.models, -1))

    def epoch(self):
        network = self.network
        shape = network.models, network.rows
        order = torch.rand(shape, device=self.x.device).argsort(dim=1)
        total = torch.zeros(network.models, device=self.x.device)
        for start in range(0, network.rows, network.batch):
            index = order[:, start : start + network.batch]
            total += self.update_rows(index) * index.shape[1]
        return total.mean().item() / network.rows


class Replay(Torch):
    """Before Eager or Vmap: each update one replay of a CUDA graph, from gathering to Adam, on an
    index that is copied to where the graph reads it; a last, shorter batch has its own graph."""

    capturable = True

    def load(self):
        super().load()
        lengths = {self.network.batch, self.network.rows % self.network.batch} - {0}
        self.graphs = {rows: self._capture(rows) for rows in lengths}
        self.set_weights()  # which the warm-ups moved
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _capture(self, rows):
        index = torch.arange(rows, device=self.x.device)
        if self.network.models is not None:
            index = index.repeat(self.network.models, 1)
        side = torch.cuda.Stream(self.x.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                super().update_rows(index)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)  # gradients come from the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = super().update_rows(index)
        return graph, index, loss

    def update_rows(self, index):
        graph, inside, loss = self.graphs[index.shape[-1]]
        inside.copy_(index)
        graph.replay()
        return loss

    def step(self):
        first = torch.arange(self.network.batch, device=self.x.device)
        return self.update_rows(first.expand(self.graphs[len(first)][1].shape))


class Graphed(Replay, Eager):
    def predict(self, rows):
        raise Declined("PyTorch compiled replays a graph of a prediction")


class GraphedVmap(Replay, Vmap):
    pass
