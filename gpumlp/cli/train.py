"""`gpumlp train`: from a data set to a saved network, its held-out score and its curves."""

import os
import sys
import time
from pathlib import Path

import numpy as np

import gpumlp
from gpumlp.cli import data
from gpumlp.cli.device import choose
from gpumlp.cli.error import InputError
from gpumlp.cli.predict import forward
from gpumlp.cli.preparation import Preparation

HELD_OUT = 1 / 5
VALIDATION = 1 / 8  # of what is not held out: a tenth of all samples

LEARNING_RATE = {"sgd": 0.1, "momentum": 0.02, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3}


def run(arguments) -> int:
    device, presented = choose(arguments.device)
    samples = data.load(arguments.data)
    out = _folder(arguments.out or f"runs/{samples.name}")

    # The held-out part is seen once, after training; the validation part decides when to stop.
    rng = np.random.default_rng(arguments.seed)
    rest, held_out = data.split(samples, HELD_OUT, rng)
    training, validation = data.split(rest, VALIDATION, rng)
    preparation = Preparation.fit(training)
    net = _network(arguments, device, samples, preparation)

    sizes = [len(part.x) for part in (training, validation, held_out)]
    print("data      {}".format(samples))
    print("          {} to train, {} to validate, {} held out".format(*sizes))
    print(f"device    {presented}")
    print(net.summary(), flush=True)

    start = time.perf_counter()
    history = _fit(arguments, net, preparation, training, validation)
    seconds = time.perf_counter() - start
    epochs = len(history.loss)
    if history.interrupted:
        print(f"interrupted after {epochs} epochs; the network trained so far is saved")
    print(f"trained   {epochs} epochs in {seconds:.2f} s")

    name, score = _score(net, preparation, held_out)
    print(f"{name:10}{score} on the held-out fifth ({len(held_out.x)} samples)")
    metadata = {"preparation": preparation.metadata(), "data": samples.name, name: score}
    model = out / "model.safetensors"
    gpumlp.save(net, model, metadata=metadata)
    print(f"model     {model}")
    _draw(history, out / "curves.png", samples.name)
    return 0
