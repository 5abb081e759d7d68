"""Networks and estimators to and from others: ONNX, scikit-learn's MLPs, PyTorch's state dicts.

None of the other libraries is imported before a function needs it; PyTorch never is.
"""

from gpumlp.exchange.onnx_file import export_onnx
from gpumlp.exchange.scikit_learn import from_sklearn, to_sklearn
from gpumlp.exchange.torch_layout import load_torch_state, to_torch_state

__all__ = ["export_onnx", "from_sklearn", "load_torch_state", "to_sklearn", "to_torch_state"]
