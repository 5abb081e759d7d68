"""Files of earlier versions load, and what was in them goes on as it would have then."""

import json
import shutil

import pytest
from numpy.testing import assert_allclose

import gpumlp
from tests import written

# The digits that another compiler's or BLAS's rounding leaves after some epochs.
CLOSE = 1e-8


@pytest.fixture(scope="module")
def expected():
    return json.loads((written.FOLDER / "expected.json").read_text())


def test_a_network(expected, device):
    net = gpumlp.load(written.FOLDER / "network.safetensors", device)
    assert net.metadata == {"units": ["m", "s"]} and net.models == 2
    assert_allclose(net.forward(written.X[:5]), expected["network"], rtol=CLOSE)


def test_a_checkpoint_goes_on(expected, device, tmp_path):
    shutil.copy(written.FOLDER / "checkpoint.safetensors", tmp_path / "c.safetensors")
    trainer = gpumlp.resume(tmp_path / "c.safetensors", device)
    assert (trainer.epoch, trainer.epochs_left) == (written.CUT, written.EPOCHS - written.CUT)
    written.fit(trainer, trainer.epochs_left)
    assert_allclose(trainer.history.loss, expected["losses"], rtol=CLOSE)
    assert_allclose(trainer.net.forward(written.X[:5]), expected["trainer"], rtol=CLOSE)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_goes_on(expected, device):
    model = gpumlp.load(written.FOLDER / "estimator.safetensors", device)
    assert_allclose(model.predict_proba(written.X[:5]), expected["estimator"], rtol=CLOSE)
    model.fit(written.X, written.LABELS)
    # Without a dtype of its own an estimator fits in float32 on a GPU.
    close = CLOSE if device == "cpu" else 1e-5
    assert_allclose(model.predict_proba(written.X[:5]), expected["gone on"], rtol=close)


def test_what_is_written_today_is_the_same(expected, tmp_path):
    """The files come from `written.write`, which nothing else would hold to its word."""
    with pytest.warns(match="has not converged"):
        written.write(tmp_path)
    for name, values in json.loads((tmp_path / "expected.json").read_text()).items():
        assert_allclose(values, expected[name], rtol=CLOSE)
