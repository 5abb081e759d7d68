"""Files that version 0.1.0 wrote, and what was in them: they load and go on after every change.

`write` made them once, at commit 0fe2fd7; it stays to say what they hold, and for the format that
comes next.  A file here is never written anew.
"""

import json
from pathlib import Path

import numpy as np

import gpumlp

FOLDER = Path(__file__).parent / "0.1.0"

EPOCHS = 6  # of the fit that the checkpoint cuts short
CUT = 3

rng = np.random.default_rng(2026)
X = rng.normal(size=(61, 5))
LABELS = np.array(["ebb", "flow", "slack"])[(X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 1)]
CODES = np.searchsorted(["ebb", "flow", "slack"], LABELS)
VALIDATION = X[:17], CODES[:17]


def make_network():
    return gpumlp.MLP(
        (5, 7, 6, 3),
        ["prelu", gpumlp.activations["leaky_relu"](slope=0.2)],
        models=2,
        dtype="float64",
        device="cpu",
        dropout=[0.1, 0.0],
        seed=[3, 8],
    )


def make_trainer():
    return gpumlp.Trainer(
        make_network(),
        gpumlp.losses["cross_entropy"](label_smoothing=0.1),
        gpumlp.RMSprop([0.01, 0.003], momentum=0.9, centered=True, l2=1e-3),
        batch_size=16,
        schedule="one_cycle",
        seed=[5, 6],
        clip_norm=2.0,
    )


def fit(trainer, epochs, *callbacks):
    callbacks = [gpumlp.EarlyStopping(4), *callbacks]
    trainer.fit(X, CODES, epochs, validation=VALIDATION, callbacks=callbacks, progress=False)
    return trainer


def make_estimator(**options):
    return gpumlp.MLPClassifier(
        (6, 4),
        activation=("tanh", "silu"),
        dropout=0.1,
        class_weight={"ebb": 1.0, "flow": 2.0, "slack": 0.5},
        early_stopping=True,
        max_iter=EPOCHS,
        batch_size=16,
        warm_start=True,
        random_state=7,
        device="cpu",
        **options,
    )


class _Cut(gpumlp.Callback):
    """Keeps the checkpoint that is there after some epochs."""

    goes_last = True

    def __init__(self, folder, path):
        self.folder, self.path = folder, path

    def on_epoch_end(self, trainer, history):
        if trainer.epoch == CUT:
            (newest,) = self.folder.iterdir()
            self.path.write_bytes(newest.read_bytes())


def write(folder: Path):
    """The files, and expected.json: numbers to 1e-9 that come of them."""
    import tempfile

    folder.mkdir(exist_ok=True)
    network, trainer = make_network(), make_trainer()
    gpumlp.save(network, folder / "network.safetensors", metadata={"units": ["m", "s"]})
    with tempfile.TemporaryDirectory() as runs:
        checkpoint = gpumlp.Checkpoint(runs)
        fit(trainer, EPOCHS, checkpoint, _Cut(Path(runs), folder / "checkpoint.safetensors"))
    model = make_estimator().fit(X, LABELS)
    gpumlp.save(model, folder / "estimator.safetensors")
    expected = {
        "network": network.forward(X[:5]),
        "trainer": trainer.net.forward(X[:5]),
        "losses": trainer.history.loss,
        "estimator": model.predict_proba(X[:5]),
        "gone on": model.fit(X, LABELS).predict_proba(X[:5]),
    }
    text = json.dumps({name: np.asarray(values).tolist() for name, values in expected.items()})
    (folder / "expected.json").write_text(text + "\n")
