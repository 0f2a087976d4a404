"""What a running node shows, and Cancel."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

progress = pytest.importorskip("flexiact_pack.nodes.host.progress", reason="needs ComfyUI: run `make test`")


@pytest.fixture
def shown(monkeypatch):
    """What the bar was told, and the lines of text, in order."""
    bar, lines = [], []
    monkeypatch.setattr(progress, "show", lines.append)

    def set_progress(value, most, preview_image=None):
        bar.append((value, most, preview_image))

    server = SimpleNamespace(execution=SimpleNamespace(set_progress=set_progress))
    monkeypatch.setattr(progress, "ComfyAPISync", lambda: server)
    return bar, lines


@pytest.fixture
def cancelled():
    import comfy.model_management as memory

    memory.interrupt_current_processing()
    yield
    memory.interrupt_current_processing(False)


def test_a_step_is_shown_with_its_picture_eight_times_as_large(shown):
    picture = torch.tensor([[[0.0, 0.5, 1.0], [1.0, 0.0, 0.0]]])
    progress.Progress(5).step(2, picture)
    (value, most, image) = shown[0][0]
    assert (value, most, image.size) == (2, 5, (16, 8))
    assert np.abs(np.asarray(image)[4, 1].astype(int) - [0, 128, 255]).max() <= 20


def test_cancel_ends_a_run_at_its_next_step(shown, cancelled):
    with pytest.raises(progress.interrupt()):
        progress.Progress(5).step(1)
    assert shown[0] == []


def test_cancel_ends_a_training_at_its_next_step(shown, cancelled):
    with pytest.raises(progress.interrupt()):
        progress.TrainingProgress(5, done=0).step(1, 0.5)


def test_a_training_says_step_loss_speed_and_time_left(shown, monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    report = progress.TrainingProgress(200, done=100)
    now = 110.0
    report.step(105, 0.25)
    assert shown[1] == ["step 105/200  loss 0.250  2.00 s/step  3 min 10 s left"]
    assert shown[0][-1][2] is not None, "the loss curve"
    now = 110.5
    report.step(106, 0.75)
    # Within the same second the bar alone moves.
    assert len(shown[1]) == 1 and shown[0][-1] == (106, 200, None)
    now = 112.0
    report.step(107, 0.5)
    assert "loss 0.500" in shown[1][-1], "the mean of the last steps"


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (599, "9 min 59 s"), (600, "10 min"), (7530, "2 h 5 min")],
)
def test_time_is_said_as_people_say_it(seconds, words):
    assert progress.in_words(seconds) == words


def test_a_sampling_says_the_time_left_from_its_first_step_on_and_what_it_took(shown, said, clock):
    report = progress.SamplingProgress(4, "Shorter: fewer steps.")
    for done in range(1, 5):
        clock[0] += 20
        report.step(done)
    left = ["step 1/4  1 min 0 s left", "step 2/4  40 s left", "step 3/4  20 s left"]
    assert shown[1] == [*left, "step 4/4  took 1 min 20 s"]
    assert said == []


def test_a_run_over_ten_minutes_says_so_once_and_how_to_shorten_it(shown, said, clock):
    report = progress.SamplingProgress(50, "Shorter: fewer steps.")
    for done in (1, 2):
        clock[0] += 45
        report.step(done)
    assert said == ["This run takes about 37 min. Shorter: fewer steps."]
    assert shown[1][-1] == "step 2/50  36 min left"


def test_what_is_said_stays_above_what_is_shown_next_and_goes_with_the_node(running_node, monkeypatch):
    from comfy_execution.utils import CurrentNodeContext

    sent = []
    server = SimpleNamespace(send_progress_text=lambda text, node_id: sent.append((node_id, text)))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=server)))
    progress.say("The prompt is cut.")
    progress.say("The prompt is cut.")
    progress.show("step 1/2")
    progress.show("step 2/2")
    assert sent[-2:] == [("node", "The prompt is cut.\nstep 1/2"), ("node", "The prompt is cut.\nstep 2/2")]
    with CurrentNodeContext("prompt", "other"):
        progress.show("step 1/9")
    assert sent[-1] == ("other", "step 1/9")


def test_the_last_step_is_always_said(shown):
    report = progress.TrainingProgress(2, done=0)
    report.step(1, 1.0)
    report.step(2, 1.0)
    assert shown[1][-1].startswith("step 2/2")


def test_a_sample_takes_the_place_of_the_curve(shown):
    report = progress.TrainingProgress(2, done=0)
    report.show_sample(torch.ones(5, 8, 8, 3))
    report.step(2, 1.0)
    assert np.asarray(shown[0][-1][2]).mean() > 150


def test_text_goes_nowhere_where_no_node_runs():
    progress.say("nobody hears this")


def test_an_output_that_was_not_asked_for_stops_what_is_connected():
    from comfy_execution.graph_utils import ExecutionBlocker

    assert isinstance(progress.nothing(), ExecutionBlocker) and progress.nothing().message is None


def test_a_long_call_ends_at_cancel_within_a_part(small_model, monkeypatch):
    """Text encoder, VAE encode and VAE decode: none of them runs on to its end."""
    import comfy.model_management as management
    import torch
    from flexiact_pack.nodes import sampling
    from flexiact_pack.nodes.host import encodings

    asked = []

    def cancel_at_third():
        asked.append(1)
        if len(asked) == 2:
            raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancel_at_third)
    latents = torch.zeros(1, 3, 16, 8, 8)
    for call in (
        lambda: encodings.encode_prompt(small_model, "a prompt of its own"),
        lambda: encodings.encode_image(small_model, torch.rand(1, 64, 64, 3)),
        lambda: sampling.decode(small_model, latents, (9, 64, 64)),
    ):
        asked.clear()
        with pytest.raises(management.InterruptProcessingException):
            call()
        assert len(asked) == 2
        call()  # and what was cancelled is not taken for done


def test_a_call_that_takes_minutes_says_so_once_and_a_short_one_does_not(said, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def run(seconds_a_part):
        call = progress.LongCall("Encoding a picture", bar=False)
        for done in range(20):
            call(done, 20)
            clock[0] += seconds_a_part

    run(1)
    assert said == []
    run(30)
    assert said == ["Encoding a picture takes about 10 minutes on this device. Cancel stops it at any time."]
