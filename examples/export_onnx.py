"""Train, export to ONNX, and run the file with onnxruntime, which needs neither gpumlp nor a GPU.

Needs: pip install "gpumlp[onnx]" onnxruntime
"""

import numpy as np
import onnxruntime
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gpumlp

X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)

net = gpumlp.MLP((64, 64, 32, 10), hidden=["gelu", "mish"], output="softmax", seed=0)
trainer = gpumlp.Trainer(net, optimizer=gpumlp.Adam(3e-3), batch_size=64)
trainer.fit(X_train, y_train, epochs=15, progress=False)

gpumlp.export_onnx(net, "digits.onnx", metadata={"classes": list(range(10))})

session = onnxruntime.InferenceSession("digits.onnx", providers=["CPUExecutionProvider"])
[probability] = session.run(["y"], {"x": X_test})

print("in the file:", session.get_modelmeta().custom_metadata_map)
print(f"accuracy by onnxruntime: {np.mean(probability.argmax(axis=1) == y_test):.3f}")
difference = np.abs(probability - net.forward(X_test)).max()
print(f"largest difference to gpumlp: {difference:.1e}")
