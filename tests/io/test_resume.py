"""A resumed run ends with the same bits as one that was not interrupted."""

import numpy as np
import pytest

import gpumlp
from tests.helpers.checkpointing import (
    CASES,
    EPOCHS,
    X,
    Y,
    callbacks,
    differences,
    fit,
    halving,
    make,
    resume,
    whole_state,
)
from tests.helpers.comparison import to_numpy
from tests.helpers.training import PressCtrlC, blobs, make_trainer

STEPS = 4  # batches an epoch


class Remembers(gpumlp.Callback):
    """A state with everything that JSON and arrays can hold."""

    def __init__(self):
        self.seen = {9: "as numbers before ten, as words after it", 10: ""}
        self.sums, self.restored = np.zeros(3), False

    def on_epoch_end(self, trainer, history):
        self.seen[history.epochs] = [history.last("loss"), None, "é"]
        self.sums += history.epochs

    def state(self):
        return {"seen": self.seen}, {"sums": self.sums, "empty.array": np.zeros((0, 2), np.int8)}

    def restore(self, numbers, arrays):
        self.seen = {int(epoch): what for epoch, what in numbers["seen"].items()}
        self.sums, self.restored = to_numpy(arrays["sums"]).copy(), True
        assert arrays["empty.array"].shape == (0, 2) and arrays["empty.array"].dtype == np.int8


def uninterrupted(case, device):
    trainer = make(case, device)
    fit(trainer, EPOCHS, callbacks(case))
    return trainer


# --- killed between epochs ------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_run_resumed_after_any_epoch(case, device, tmp_path):
    whole = uninterrupted(case, device)
    watched = make(case, device)
    checkpoint = gpumlp.Checkpoint(tmp_path, keep=EPOCHS)
    fit(watched, EPOCHS, [checkpoint, *callbacks(case)])
    assert not differences(watched, whole)  # to write checkpoints changes nothing
    files = sorted(tmp_path.iterdir())
    assert len(files) == watched.epoch > 5  # early stopping may have ended it
    for epoch in (1, 4, watched.epoch - 1, watched.epoch):
        trainer = resume(files[epoch - 1], device)
        assert (trainer.epoch, trainer.epochs_left) == (epoch, EPOCHS - epoch)
        fit(trainer, trainer.epochs_left, callbacks(case))
        assert not differences(trainer, whole)


def test_a_run_resumed_again_and_again(device, tmp_path):
    case = "a stack"
    trainer = make(case, device)
    for _ in range(EPOCHS - 1):
        with pytest.raises(MemoryError):
            fit(trainer, trainer.epochs_left or EPOCHS, [*callbacks(case), Dies(tmp_path)])
        trainer = resume(tmp_path, device)
    fit(trainer, 1, callbacks(case))
    assert not differences(trainer, uninterrupted(case, device))


class Dies(gpumlp.Checkpoint):
    """Writes a checkpoint, after which the program ends."""

    def on_epoch_end(self, trainer, history):
        super().on_epoch_end(trainer, history)
        raise MemoryError


def test_early_stopping_really_counts_over_the_gap(tmp_path):
    """The cases above are no proof if nothing was waited for when the checkpoint was written."""
    case = "early stopping"
    whole = uninterrupted(case, "cpu")
    assert 5 < whole.epoch < EPOCHS
    fit(make(case), whole.epoch - 1, [gpumlp.Checkpoint(tmp_path), *callbacks(case)])
    (state,) = resume(tmp_path).unfinished
    assert (state.kind, state.numbers["waited"]) == ("EarlyStopping", [4])


def test_resumed_in_a_part_of_what_was_left(tmp_path):
    """The schedule keeps its length, so that a third run can end it."""
    whole = uninterrupted("cosine", "cpu")
    trainer = make("cosine")
    with pytest.raises(MemoryError):
        fit(trainer, EPOCHS, [Dies(tmp_path)])
    fit(resume(tmp_path), 2, [gpumlp.Checkpoint(tmp_path)])
    trainer = resume(tmp_path)
    assert trainer.epoch == 3
    fit(trainer, EPOCHS - 3)
    assert not differences(trainer, whole)


def test_an_earlier_fit_is_not_counted(tmp_path):
    """The first fit has ended; the checkpoint is of the second."""
    trainers = [make("one cycle") for _ in range(2)]
    for trainer in trainers:
        fit(trainer, 3)
    fit(trainers[0], EPOCHS)
    with pytest.raises(MemoryError):
        fit(trainers[1], EPOCHS, [Dies(tmp_path)])
    trainer = resume(tmp_path)
    assert (trainer.epoch, trainer.epochs_left) == (4, EPOCHS - 1)
    fit(trainer, trainer.epochs_left)
    assert not differences(trainer, trainers[0])


def test_a_member_that_diverged_stays_where_it_was(device, tmp_path):
    optimizer = gpumlp.SGD([0.01, 1e150])
    whole = make_trainer(
        device, 2, "identity", {"output": "identity"}, loss="squared_error", optimizer=optimizer
    )
    targets = np.eye(3)[Y]
    with pytest.warns(RuntimeWarning, match="NaN or infinite for network 1"):
        whole.fit(X, targets, 5, progress=False, callbacks=[gpumlp.Checkpoint(tmp_path, keep=5)])
    trainer = resume(tmp_path / "checkpoint-000003.safetensors", device)
    assert trainer.diverged == whole.diverged and 1 in whole.diverged
    trainer.fit(X, targets, 2, progress=False)
    assert not differences(trainer, whole)


# --- Ctrl-C, also within an epoch -----------------------------------------------------------------


@pytest.mark.parametrize("case", ["a stack", "one cycle", "plateau"])
@pytest.mark.parametrize("updates", [0, 1, 6, STEPS, 3 * STEPS - 1])
def test_a_run_resumed_after_ctrl_c(case, updates, device, tmp_path, monkeypatch):
    whole = uninterrupted(case, device)
    trainer = make(case, device)
    with monkeypatch.context() as patch:
        PressCtrlC(patch, updates + updates // STEPS)  # it is also looked at after each epoch
        history = fit(trainer, EPOCHS, [gpumlp.Checkpoint(tmp_path, 100), *callbacks(case)])
    assert history.interrupted
    trainer = resume(tmp_path, device)
    assert (trainer.epoch, trainer.batches_done) == divmod(updates, STEPS)
    assert trainer.rates.issued == updates
    fit(trainer, trainer.epochs_left, callbacks(case))
    assert not differences(trainer, whole)


def test_ctrl_c_in_an_epoch_of_many_batches(device, tmp_path, monkeypatch):
    """More than the trainer's tables hold before the epoch begins."""
    monkeypatch.setattr(gpumlp.training.device_state, "STEPS_NOTED", 3)
    test_a_run_resumed_after_ctrl_c("one cycle", 2 * STEPS - 1, device, tmp_path, monkeypatch)


def test_a_new_fit_after_ctrl_c_plans_by_the_updates_that_were_made(monkeypatch):
    trainer = make("cosine")
    with monkeypatch.context() as patch:
        PressCtrlC(patch, 6 + 1)
        fit(trainer, EPOCHS)
    assert (trainer.epoch, trainer.batches_done, trainer.steps) == (1, 2, 6)
    fit(trainer, 2)  # the epoch is made anew
    assert (trainer.epoch, trainer.batches_done, trainer.steps) == (3, 0, 6 + 2 * STEPS)
    assert trainer.rates.issued == trainer.rates.total == 6 + 2 * STEPS
    assert len(trainer.history.loss) == 3


def test_the_last_state_is_written_once(tmp_path, monkeypatch):
    """Ctrl-C just after an epoch whose checkpoint is there already."""
    PressCtrlC(monkeypatch, 2 * STEPS + 1)
    history = fit(make("cosine"), EPOCHS, [gpumlp.Checkpoint(tmp_path, keep=9)])
    assert history.interrupted and history.epochs == 2
    assert len(list(tmp_path.iterdir())) == 2


# --- callbacks ------------------------------------------------------------------------------------


def test_the_users_own_callback(device, tmp_path):
    whole, trainer = Remembers(), make("dropout", device)
    fit(make("dropout", device), EPOCHS, [whole])
    with pytest.raises(MemoryError):
        fit(trainer, EPOCHS, [Dies(tmp_path), Remembers()])
    resumed, trainer = Remembers(), resume(tmp_path, device)
    fit(trainer, trainer.epochs_left, [resumed])
    assert resumed.restored and resumed.seen == whole.seen
    np.testing.assert_array_equal(resumed.sums, whole.sums)


def test_states_of_one_class_are_handed_back_in_order(tmp_path):
    fit(make("a stack"), 3, [*callbacks("a stack"), gpumlp.Checkpoint(tmp_path)])
    first, second = gpumlp.EarlyStopping(2), gpumlp.EarlyStopping(5, monitor="loss")
    trainer = resume(tmp_path)
    fit(trainer, 0, [first, Remembers(), second])
    kept = [np.min(trainer.history.val_loss, axis=0), np.min(trainer.history.loss, axis=0)]
    np.testing.assert_array_equal([first.best, second.best], kept)


def test_a_state_without_its_callback(tmp_path):
    fit(make("a stack"), 3, [*callbacks("a stack"), gpumlp.Checkpoint(tmp_path)])
    trainer = resume(tmp_path)
    with pytest.warns(RuntimeWarning, match="state of a callback EarlyStopping") as caught:
        fit(trainer, 1, [gpumlp.EarlyStopping()])
    assert len(caught) == 1


# --- what fit takes -------------------------------------------------------------------------------


def stopped_early(folder):
    fit(make("early stopping"), EPOCHS, [*callbacks("early stopping"), gpumlp.Checkpoint(folder)])
    trainer = resume(folder)
    assert trainer.epochs_left > 0
    return trainer


def test_a_fit_that_had_ended_is_not_trained_on(tmp_path):
    trainer = stopped_early(tmp_path)
    epoch = trainer.epoch
    fit(trainer, trainer.epochs_left, callbacks("early stopping"))
    assert trainer.epoch == epoch
    assert not differences(trainer, uninterrupted("early stopping", "cpu"))
    fit(trainer, 2)  # the next is a new one
    assert trainer.epoch == epoch + 2


def test_a_new_fit_of_a_resumed_trainer(tmp_path):
    trainer = stopped_early(tmp_path)
    epoch = trainer.epoch
    fit(trainer, 3, callbacks("early stopping"), resume=False)
    assert trainer.epoch == epoch + 3
    assert trainer.rates.total == (epoch + 3) * STEPS


def test_load_resumes_only_if_it_is_asked_to(tmp_path):
    fit(make("a stack"), 4, [*callbacks("a stack"), gpumlp.Checkpoint(tmp_path)])
    (file,) = tmp_path.iterdir()
    states = [whole_state(trainer) for trainer in (gpumlp.load(file, "cpu"), resume(file))]
    assert not differences(*states)
    early = [gpumlp.EarlyStopping(1000, monitor="loss") for _ in range(2)]
    fit(gpumlp.load(file, "cpu"), 1, early)
    assert (early[0].best_epoch == 5).all()  # it knows no earlier one
    fit(gpumlp.load(file, "cpu"), 0, early, resume=True)
    assert (early[0].best_epoch < 5).all()


def test_resume_of_a_trainer_without_a_past_is_a_fit():
    trainers = [make("cosine") for _ in range(2)]
    fit(trainers[0], 3)
    fit(trainers[1], 3, resume=True)
    assert not differences(*trainers)


def test_no_epochs_are_taken_only_when_resuming(tmp_path):
    with pytest.raises(ValueError, match=r"epochs = 0 must be a whole number in .1, "):
        fit(make("cosine"), 0, resume=True)
    fit(make("one cycle"), 1, [gpumlp.Checkpoint(tmp_path)])
    assert fit(resume(tmp_path), 0).epochs == 1
    with pytest.raises(ValueError, match=r"epochs = -1 must be a whole number in .0, "):
        fit(resume(tmp_path), -1)


def test_other_data_are_refused_and_the_right_ones_taken_after_that(tmp_path):
    whole, trainer = uninterrupted("cosine", "cpu"), make("cosine")
    with pytest.raises(MemoryError):
        fit(trainer, EPOCHS, [Dies(tmp_path)])
    trainer = resume(tmp_path)
    with pytest.raises(ValueError, match="4 batches an epoch, and these data make 5"):
        trainer.fit(*blobs(33), epochs=3, progress=False)
    fit(trainer, trainer.epochs_left)
    assert not differences(trainer, whole)


def test_custom_functions(tmp_path):
    fit(make("a function"), 2, [gpumlp.Checkpoint(tmp_path)])
    with pytest.raises(gpumlp.FileError, match="custom="):
        gpumlp.resume(tmp_path, "cpu")
    assert gpumlp.resume(tmp_path, "cpu", custom={"halving": halving}).epoch == 2


# --- a state that is none -------------------------------------------------------------------------


@pytest.mark.parametrize("name, value", [
    ("best", [1.0]), ("best", None), ("best_epoch", [0.5, 1]), ("waited", [-1, 0]),
    ("running", [1, 0]), ("running", [True] * 3), ("unheard_of", [1, 2]),
])  # fmt: skip
def test_an_early_stopping_refuses_a_state_that_is_none(name, value):
    trainer, stopping = make_trainer("cpu", 2), gpumlp.EarlyStopping(3)
    fit(trainer, 2, [stopping])
    numbers, arrays = stopping.state()
    with pytest.raises(ValueError, match=rf"the state of EarlyStopping.*{name}"):
        stopping.restore(numbers | {name: value}, arrays)
    with pytest.raises(ValueError, match=r"theta is float64 \(1, "):
        stopping.restore(numbers, {"theta": arrays["theta"][:1]})
    stopping.restore(numbers, arrays)
