"""PyTorch: eager, compiled, and with CUDA graphs captured by hand."""

from __future__ import annotations

import contextlib
import itertools

import torch
from torch import nn

from benchmarks.contenders import Contender, Declined
from benchmarks.networks import ADAM

WARM_UPS = 3  # before a capture, on another stream, as PyTorch's manual asks

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}
MATMUL_PRECISION = {"float32": "highest", "tf32": "high", "bf16": "highest"}


class Eager(Contender):
    """A module of Linear and activations, the fused Adam; bf16 by autocast, with the parameters in
    float32."""

    capturable = False

    def __init__(self, problem, device):
        super().__init__(problem, device)
        if self.network.models is not None:
            raise Declined("its modules are one network each")
        torch.manual_seed(0)
        torch.set_float32_matmul_precision(MATMUL_PRECISION[self.network.precision])
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
        f = ACTIVATIONS[self.network.hidden]
        layers = [layer for linear in self.linear for layer in (linear, f())]
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
            found = self.model(x)
        return found.softmax(dim=1) if self.network.loss == "cross_entropy" else found

    def _update(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._objective(x, y)
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

    @torch.inference_mode()
    def predict(self, rows):
        return self._predict(self.x[:rows])

    def to_host(self, array):
        return array.float().cpu().numpy()

    def parameters(self):
        arrays = [array for linear in self.linear for array in (linear.weight, linear.bias)]
        return [array.detach().cpu().numpy().copy() for array in arrays]

    def wait(self):
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)


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

    def answers(self):
        return self._or_declined(super().answers)

    def predictions(self):
        return self._or_declined(super().predictions)

    @staticmethod
    def _or_declined(work):
        try:
            return work()
        except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, no Triton
            lines = str(error).strip().splitlines() or [""]
            raise Declined(f"torch.compile: {type(error).__name__}: {lines[0]}") from error


class Graphed(Eager):
    """Each step one replay, on inputs that were copied to where the graph reads them; the last,
    shorter batch has a graph of its own."""

    capturable = True

    def __init__(self, problem, device):
        super().__init__(problem, device)
        self.predicting: dict = {}  # rows -> graph, ŷ, x

    def predictions(self):
        Eager.load(self)  # without the graphs of training
        return {"losses": [], "arrays": [self.to_host(self.predict(self.network.batch))]}

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
        graph, loss = self._record(lambda: self._update(x, y))
        return graph, x, y, loss

    def _record(self, work):
        """A graph of the work, and where it leaves its result."""
        side = torch.cuda.Stream(self.x.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)  # gradients come from the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        return graph, result

    @torch.no_grad()
    def predict(self, rows):
        if rows not in self.predicting:
            x = self.x[:rows].clone()
            self.predicting[rows] = (*self._record(lambda: self._predict(x)), x)
        graph, found, x = self.predicting[rows]
        x.copy_(self.x[:rows])
        graph.replay()
        return found

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
