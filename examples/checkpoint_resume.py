"""Train with checkpoints, be cut short, and go on: to the very bits of an uninterrupted training.

Here a callback stops the training; a power cut or `kill -9` would do as well, since a checkpoint
appears under its name only when it is complete.
"""

import numpy as np
from sklearn.datasets import load_digits

import gpumlp

EPOCHS, CUT_AFTER = 12, 7
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


def begin():
    net = gpumlp.MLP((64, 64, 10), dropout=0.2, seed=0)
    return gpumlp.Trainer(net, optimizer=gpumlp.AdamW(3e-3), schedule="cosine", batch_size=128)


class PowerCut(gpumlp.Callback):
    def on_epoch_end(self, trainer, history):
        if trainer.epoch == CUT_AFTER:
            raise ConnectionAbortedError("the machine is gone")


try:
    checkpoint = gpumlp.Checkpoint("checkpoints", every_epochs=2, keep=3)
    begin().fit(X, y, epochs=EPOCHS, callbacks=[checkpoint, PowerCut()], progress=False)
except ConnectionAbortedError as error:
    print(f"after epoch {CUT_AFTER}: {error}")

# In another process, or on another day:
trainer = gpumlp.resume("checkpoints")
print(f"resumed after epoch {trainer.epoch}, {trainer.epochs_left} epochs are left")
checkpoint = gpumlp.Checkpoint("checkpoints", every_epochs=2, keep=3)
history = trainer.fit(X, y, epochs=trainer.epochs_left, callbacks=[checkpoint], progress=False)
print(f"loss after epoch {trainer.epoch}: {history.loss[-1]:.4f}")

uninterrupted = begin()
uninterrupted.fit(X, y, epochs=EPOCHS, progress=False)
same = np.array_equal(uninterrupted.net.theta, trainer.net.theta)
print(f"weights identical to an uninterrupted training: {same}")

gpumlp.save(trainer.net, "digits.safetensors")
print("saved digits.safetensors")
