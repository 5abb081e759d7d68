"""PyTorch, written out: the loop that its users write for what an estimator does in a call."""

import itertools
import warnings

import numpy as np
import torch
from torch import nn

from benchmarks.contenders import Contender, Declined
from benchmarks.contenders.everyday import Everyday

BATCH, RATE, ALPHA = 200, 1e-3, 1e-4  # the estimators' defaults
CHUNK = 10_000  # rows of a prediction


class Sparse(nn.Module):
    """A first layer of sparse rows, by `torch.sparse.mm`, whose gradient is dense."""

    def __init__(self, features: int, units: int):
        super().__init__()
        like = nn.Linear(features, units)
        self.weight, self.bias = nn.Parameter(like.weight.T.contiguous()), like.bias

    def forward(self, x):
        return torch.sparse.mm(x, self.weight) + self.bias


class Written(Contender):
    """Linear layers and ReLU, fused Adam, cross-entropy or squared error, batches by index."""

    def __init__(self, task: Everyday, device: str):
        options = dict(task.parameters)
        if task.work == "cross_val_score" or "solver" in options or "early_stopping" in options:
            raise Declined("it has no folds, no early stopping, and an lbfgs of its own")
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        torch.manual_seed(0)
        self.task, self.device, (self.X, self.y) = task, device, task.data()
        self.epochs, self.hidden = options["max_iter"], options["hidden_layer_sizes"]
        self.batch = options.get("batch_size", BATCH)
        self.dtype = getattr(torch, task.dtype)
        kind = torch.long if task.classes else self.dtype
        self.targets = torch.as_tensor(self.y).to(device, kind)
        self.rows = None if task.filled else torch.as_tensor(self.X).to(device)
        self.begin()
        if task.work != "fit":
            self.train(1)
        self.called = self.X[: task.called] if task.called else self.X

    def begin(self):
        """A new network and optimiser."""
        task = self.task
        sizes = task.features, *self.hidden, task.classes or 1
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes[1 if task.filled else 0 :])]
        first = [Sparse(*sizes[:2])] if task.filled else []
        pairs = ((layer, nn.ReLU()) for layer in (*first, *layers))
        modules = list(itertools.chain(*pairs))[:-1]
        self.model = nn.Sequential(*modules).to(self.device, self.dtype)
        parameters = self.model.parameters()
        self.optimizer = torch.optim.Adam(parameters, RATE, fused=True)
        self.loss = nn.functional.cross_entropy if task.classes else nn.functional.mse_loss

    def sent(self, part):
        """Sparse rows on the device."""
        pointers = map(torch.as_tensor, (part.indptr, part.indices, part.data))
        options = {"size": part.shape, "check_invariants": False}
        return torch.sparse_csr_tensor(*pointers, **options).to(self.device)

    def train(self, epochs: int):
        for _ in range(epochs):
            order = np.random.default_rng(0).permutation(len(self.y))
            for start in range(0, len(order), self.batch):
                index = order[start : start + self.batch]
                self.optimizer.zero_grad(set_to_none=True)
                x = self.sent(self.X[index]) if self.rows is None else self.rows[index]
                output = self.model(x)
                output = output if self.task.classes else output[:, 0]
                loss = self.loss(output, self.targets[index])
                penalty = sum((p * p).sum() for p in self.model.parameters() if p.ndim == 2)
                (loss + 0.5 * ALPHA / len(index) * penalty).backward()
                self.optimizer.step()

    def fit(self):
        self.begin()
        self.train(self.epochs)

    def partial_fit(self):
        self.train(1)

    @torch.no_grad()
    def predict(self):
        x = self.called
        if not self.task.filled:
            return self.model(torch.as_tensor(x).to(self.device)).argmax(1).cpu().numpy()
        parts = (self.sent(x[i : i + CHUNK]) for i in range(0, x.shape[0], CHUNK))
        return np.concatenate([self.model(part).argmax(1).cpu().numpy() for part in parts])

    def answers(self):
        """None: its weights are drawn otherwise.  It has to learn, though."""
        with torch.no_grad():
            before = sum(p.square().sum() for p in self.model.parameters())
        self.train(1)
        with torch.no_grad():
            if before == sum(p.square().sum() for p in self.model.parameters()):
                raise AssertionError("PyTorch, written out, does not train")
