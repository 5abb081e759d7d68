"""PyTorch's optimisers on one flat parameter: fused, or where it has none, foreach."""

from __future__ import annotations

import torch

from benchmarks.contenders.laws import DECAY, LR, MOMENTUM, OfLaw


class Torch(OfLaw):
    def load(self):
        device, problem = self.device, self.problem
        self.theta = torch.tensor(problem.theta, device=device, requires_grad=True)
        self.theta.grad = torch.tensor(problem.g, device=device)
        given, optim = [self.theta], torch.optim
        self.optimizer = {
            "SGD": lambda: optim.SGD(given, LR, fused=True),
            "momentum": lambda: optim.SGD(given, LR, momentum=MOMENTUM, fused=True),
            "RMSprop": lambda: optim.RMSprop(given, LR, alpha=0.99, foreach=True),
            "Adam": lambda: optim.Adam(given, LR, fused=True),
            "AdamW": lambda: optim.AdamW(given, LR, weight_decay=DECAY, fused=True),
        }[self.network.name]()

    def update(self):
        self.optimizer.step()

    def parameters(self):
        return [self.theta.detach().cpu().numpy().copy()]

    def wait(self):
        if self.theta.is_cuda:
            torch.cuda.synchronize(self.theta.device)
