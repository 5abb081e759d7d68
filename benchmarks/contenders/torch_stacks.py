"""PyTorch's way to train many networks at once: `torch.func`, one function mapped over stacked
parameters, and its fused Adam on these."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from benchmarks.contenders import Contender, Declined
from benchmarks.contenders.pytorch import ACTIVATIONS, MATMUL_PRECISION, WARM_UPS
from benchmarks.networks import ADAM


class Vmap(Contender):
    """Each network has an order of its own, as gpumlp's have."""

    capturable = False

    def __init__(self, problem, device):
        super().__init__(problem, device)
        network = self.network
        if network.models is None:
            raise Declined("it is for many networks")
        if network.precision == "bf16":
            raise Declined("autocast is not written for it")
        torch.manual_seed(0)
        torch.set_float32_matmul_precision(MATMUL_PRECISION[network.precision])
        self.x = torch.tensor(problem.x, device=device)
        self.y = torch.tensor(problem.y, device=device)
        if network.loss == "cross_entropy":
            self.y, loss = self.y.long(), nn.functional.cross_entropy
        else:
            half = network.sizes[-1] / 2  # a sum over outputs, where PyTorch has the mean

            def loss(found, y):
                return nn.functional.mse_loss(found, y) * half

        linear = [nn.Linear(a, b) for a, b in itertools.pairwise(network.sizes)]
        f = ACTIVATIONS[network.hidden]
        model = nn.Sequential(*[layer for each in linear for layer in (each, f())][:-1]).to(device)

        def value(parameters, x, y):
            return loss(functional_call(model, parameters, (x,)), y)

        self.gradients = vmap(grad_and_value(value))
        names = [name for name, _ in model.named_parameters()]  # of W[1], b[1], W[2], ...
        self.theta = {name: None for name in names}
        self.losses = torch.zeros(network.models, device=device)

    def load(self):
        arrays = [
            each for pair in zip(self.problem.W, self.problem.b, strict=True) for each in pair
        ]
        self.theta = {
            name: torch.tensor(array, device=self.x.device)
            for name, array in zip(self.theta, arrays[2:], strict=True)
        }
        self.optimizer = torch.optim.Adam(
            list(self.theta.values()),
            lr=ADAM["lr"],
            betas=(ADAM["beta1"], ADAM["beta2"]),
            eps=ADAM["eps"],
            fused=True,
            capturable=self.capturable,
        )

    def _update_rows(self, index):
        """One step of every network on its rows, index (M, B); the losses (M,)."""
        gradients, losses = self.gradients(self.theta, self.x[index], self.y[index])
        for name, theta in self.theta.items():
            theta.grad = gradients[name]
        self.optimizer.step()
        return losses

    def step(self):
        first = torch.arange(self.network.batch, device=self.x.device)
        return self._update_rows(first.expand(self.network.models, -1))

    def epoch(self):
        network = self.network
        shape = network.models, network.rows
        order = torch.rand(shape, device=self.x.device).argsort(dim=1)
        self.losses.zero_()
        for start in range(0, network.rows, network.batch):
            index = order[:, start : start + network.batch]
            self.losses += self._update_rows(index) * index.shape[1]
        return self.losses.mean().item() / network.rows

    def parameters(self):
        return [each.cpu().numpy().copy() for each in self.theta.values()]

    def to_host(self, array):
        return array.cpu().numpy()

    def wait(self):
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)


class GraphedVmap(Vmap):
    """Each step one replay, from gathering to Adam, on an index that is copied to where the graph
    reads it; the last, shorter batch has a graph of its own."""

    capturable = True

    def load(self):
        super().load()
        network = self.network
        before = {name: theta.clone() for name, theta in self.theta.items()}
        lengths = {network.batch, network.rows % network.batch} - {0}
        self.captured = {rows: self._capture(rows) for rows in lengths}
        for name, theta in self.theta.items():  # which the warm-ups moved
            theta.copy_(before[name])
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _capture(self, rows):
        index = torch.arange(rows, device=self.x.device).repeat(self.network.models, 1)
        side = torch.cuda.Stream(self.x.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                super()._update_rows(index)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = super()._update_rows(index)
        return graph, index, losses

    def _update_rows(self, index):
        graph, inside, losses = self.captured[index.shape[1]]
        inside.copy_(index)
        graph.replay()
        return losses
