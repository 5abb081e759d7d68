"""PyTorch: eager, and with CUDA graphs captured by hand."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from benchmarks.contenders import Contender
from benchmarks.networks import ADAM

WARM_UPS = 3  # before a capture, on another stream, as PyTorch's manual asks


class Eager(Contender):
    """A module of Linear and ReLU, the fused Adam; float32 products without TF32, the default."""

    capturable = False

    def __init__(self, problem, device):
        super().__init__(problem, device)
        torch.manual_seed(0)
        self.x = torch.tensor(problem.x, device=device)
        self.y = torch.tensor(problem.y, device=device)
        if self.network.loss == "cross_entropy":
            self.y = self.y.long()
            self.loss = nn.functional.cross_entropy
        else:
            half = self.network.sizes[-1] / 2  # a sum over outputs, where PyTorch has the mean
            self.loss = lambda found, y: nn.functional.mse_loss(found, y) * half
        sizes = self.network.sizes
        self.linear = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
        layers = [layer for linear in self.linear for layer in (linear, nn.ReLU())]
        self.model = nn.Sequential(*layers[:-1]).to(device)

    def load(self):
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=ADAM["lr"],
            betas=(ADAM["beta1"], ADAM["beta2"]),
            eps=ADAM["eps"],
            fused=True,
            capturable=self.capturable,
        )
        self._set_weights()

    @torch.no_grad()
    def _set_weights(self):
        for k, linear in enumerate(self.linear, start=1):
            linear.weight.copy_(torch.from_numpy(self.problem.W[k]))
            linear.bias.copy_(torch.from_numpy(self.problem.b[k]))

    def _update(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _update_rows(self, index):
        return self._update(self.x[index], self.y[index])

    def step(self):
        batch = self.network.batch
        return self._update(self.x[:batch], self.y[:batch])

    def epoch(self):
        network = self.network
        order = torch.randperm(network.rows, device=self.x.device)
        total = torch.zeros((), device=self.x.device)
        for start in range(0, network.rows, network.batch):
            index = order[start : start + network.batch]
            total += self._update_rows(index) * len(index)
        return total.item() / network.rows

    def parameters(self):
        arrays = [array for linear in self.linear for array in (linear.weight, linear.bias)]
        return [array.detach().cpu().numpy().copy() for array in arrays]

    def wait(self):
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)


class Graphed(Eager):
    """Each step one replay, on inputs that were copied to where the graph reads them; the last,
    shorter batch has a graph of its own."""

    capturable = True

    def load(self):
        super().load()
        network = self.network
        lengths = {network.batch, network.rows % network.batch} - {0}
        self.captured = {rows: self._capture(rows) for rows in lengths}
        self._set_weights()  # which the warm-ups moved
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def _capture(self, rows):
        x, y = self.x[:rows].clone(), self.y[:rows].clone()
        side = torch.cuda.Stream(self.x.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._update(x, y)
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)  # gradients come from the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._update(x, y)
        return graph, x, y, loss

    def _update_rows(self, index):
        graph, x, y, loss = self.captured[len(index)]
        torch.index_select(self.x, 0, index, out=x)
        torch.index_select(self.y, 0, index, out=y)
        graph.replay()
        return loss

    def step(self):
        batch = self.network.batch
        graph, x, y, loss = self.captured[batch]
        x.copy_(self.x[:batch])
        y.copy_(self.y[:batch])
        graph.replay()
        return loss
