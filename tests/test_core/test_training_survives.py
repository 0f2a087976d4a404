import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from flexiact_core.training import TrainingState, load_state, save_state

KILLS = 20


def keep_saving(path, ready):
    """Saves one checkpoint after the other, each with its number of steps in every tensor."""
    torch.set_num_threads(1)
    step = 0
    while True:
        step += 1
        learned = {"tokens": torch.full((4, 64, 256), float(step))}
        moments = {f"{moment}/tokens": learned["tokens"].clone() for moment in ("exp_avg", "exp_avg_sq")}
        state = TrainingState(learned, moments, torch.Generator().get_state(), torch.ones(step, dtype=torch.float64))
        save_state(state, path, {"steps_done": str(step)})
        ready.set()


def test_killed_at_random_moments_a_training_leaves_a_whole_checkpoint(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch", "flexiact_core.flexiact.fit"])
    delays = random.Random(0)
    path = tmp_path / "training.safetensors"
    for _ in range(KILLS):
        ready = context.Event()
        process = context.Process(target=keep_saving, args=(path, ready), daemon=True)
        process.start()
        assert ready.wait(120)
        time.sleep(delays.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        state, metadata = load_state(path)
        assert state.steps_done == int(metadata["steps_done"])
        assert (state.parameters["tokens"] == state.steps_done).all()
        assert (state.moments["exp_avg_sq/tokens"] == state.steps_done).all()


@pytest.mark.parametrize("written", [0, 100, 5000])
def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch, written):
    from flexiact_core import weight_files
    from flexiact_core.errors import FileError

    learned = {"tokens": torch.ones(2, 3, 4)}
    moments = {"exp_avg/tokens": torch.ones(2, 3, 4), "exp_avg_sq/tokens": torch.ones(2, 3, 4)}
    state = TrainingState(learned, moments, torch.Generator().get_state(), torch.ones(1, dtype=torch.float64))
    path = save_state(state, tmp_path / "training.safetensors", {})
    before = path.read_bytes()

    def fill_disk(tensors, file, metadata=None):
        with open(file, "wb") as half:
            half.write(b"x" * written)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_files, "save_file", fill_disk)
    with pytest.raises(FileError, match="No space left"):
        save_state(state, path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
