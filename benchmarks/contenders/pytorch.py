"""PyTorch: eager, compiled, with CUDA graphs captured by hand, and mapped over many networks."""

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
    """Data, the loss, a module of Linear and activations, and the fused Adam on `theta`, the
    tensors W[1], b[1], W[2], ..."""

    capturable = False
    theta: list

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
        self.model = nn.Sequential(*list(itertools.chain(*pairs))[:-1]).to(device)
        self.first = torch.arange(network.batch, device=device)  # the first batch, of each network
        if network.models is not None:
            self.first = self.first.repeat(network.models, 1)

    def load(self):
        self.set_weights()
        self.optimizer = torch.optim.Adam(
            self.theta,
            lr=ADAM["lr"],
            betas=(ADAM["beta1"], ADAM["beta2"]),
            eps=ADAM["eps"],
            fused=True,
            capturable=self.capturable,
        )

    @torch.no_grad()
    def set_weights(self):
        pairs = zip(self.problem.W[1:], self.problem.b[1:], strict=True)
        for tensor, array in zip(self.theta, itertools.chain(*pairs), strict=True):
            tensor.copy_(torch.from_numpy(array))

    def to_host(self, array):
        return array.float().cpu().numpy()

    def parameters(self):
        return [tensor.detach().cpu().numpy().copy() for tensor in self.theta]

    def wait(self):
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)


class Eager(Torch):
    """One network; bf16 by autocast, with the parameters in float32."""

    def __init__(self, problem, device):
        if problem.network.models is not None:
            raise Declined("its modules are one network each")
        super().__init__(problem, device)
        self.theta = list(self.model.parameters())

    def objective(self, x, y):
        if self.network.precision != "bf16":
            return self.loss(self.model(x), y)
        # Without the cache of cast weights, which a CUDA graph would not notice to be out of date.
        with torch.autocast(self.x.device.type, torch.bfloat16, cache_enabled=False):
            return self.loss(self.model(x), y)

    def update(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.objective(x, y)
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
        for index in order.split(network.batch):
            total += self.update_rows(index) * len(index)
        return total.item() / network.rows


class Compiled(Eager):
    """torch.compile of forward and loss, and so of the backward pass; on a GPU replayed as CUDA
    graphs.  The optimiser is fused already."""

    def __init__(self, problem, device):
        super().__init__(problem, device)
        mode = "reduce-overhead" if self.x.is_cuda else "default"
        torch._dynamo.reset()
        # A last batch that is shorter gets a program of its own.
        self.objective = torch.compile(super().objective, mode=mode, dynamic=False)

    def load(self):
        super().load()
        try:
            self.objective(self.x[: self.network.batch], self.y[: self.network.batch])
        except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, no Triton
            raise Declined(f"torch.compile: {type(error).__name__}") from error


class Vmap(Torch):
    """Many networks by `torch.func`: one network's gradient mapped over stacked parameters.  Each
    has an order of its own, as gpumlp's have."""

    def __init__(self, problem, device):
        if problem.network.models is None:
            raise Declined("it is for many networks")
        super().__init__(problem, device)
        parameters, models = dict(self.model.named_parameters()), self.network.models
        self.theta = [torch.empty((models, *p.shape), device=device) for p in parameters.values()]

        def value(theta, x, y):
            named = dict(zip(parameters, theta, strict=True))
            return self.loss(functional_call(self.model, named, (x,)), y)

        self.gradients = vmap(grad_and_value(value))

    def update_rows(self, index):
        """One step of every network on its rows, index (M, B); the losses (M,)."""
        gradients, losses = self.gradients(self.theta, self.x[index], self.y[index])
        for theta, gradient in zip(self.theta, gradients, strict=True):
            theta.grad = gradient
        self.optimizer.step()
        return losses

    def step(self):
        return self.update_rows(self.first)

    def epoch(self):
        network = self.network
        shape = network.models, network.rows
        order = torch.rand(shape, device=self.x.device).argsort(dim=1)
        total = torch.zeros(network.models, device=self.x.device)
        for index in order.split(network.batch, dim=1):
            total += self.update_rows(index) * index.shape[1]
        return total.mean().item() / network.rows


class Replay(Torch):
    """Before Eager or Vmap: each update one replay of a CUDA graph, from gathering to Adam, on an
    index that is copied to where the graph reads it; a last, shorter batch has its own graph."""

    capturable = True

    def load(self):
        super().load()
        lengths = {self.network.batch, self.network.rows % self.network.batch} - {0}
        self.graphs = {rows: self.capture(rows) for rows in lengths}
        self.set_weights()  # which the warm-ups moved
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def capture(self, rows):
        index = self.first[..., :rows].clone()
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
        return self.update_rows(self.first)


class Graphed(Replay, Eager):
    pass


class GraphedVmap(Replay, Vmap):
    pass
