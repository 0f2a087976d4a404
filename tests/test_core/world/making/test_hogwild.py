import time

import pytest
import torch

from flexiact_core.world.making import hogwild


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(4))


class FitLine:
    """A task so small that training it takes a moment."""

    def make_module(self):
        return Line()

    def prepare(self, device):
        pass

    def loss(self, module, generator, progress):
        x = torch.randn(4, generator=generator)
        return ((module.slope - torch.tensor([1.0, 2.0, 3.0, 4.0])) * x).float().square().mean()


def plan(**changes):
    settings = {"steps": 400, "learning_rate": 0.1, "warmup_steps": 10, "ema_decay": 0.9, "workers": 1}
    return hogwild.Plan(**(settings | changes))


def test_training_finds_the_weights(tmp_path):
    weights = hogwild.run(FitLine(), plan(), tmp_path / "line.pt")
    torch.testing.assert_close(weights["slope"], torch.tensor([1.0, 2.0, 3.0, 4.0]), rtol=1e-5, atol=0.1)


def test_a_finished_training_is_not_repeated(tmp_path):
    first = hogwild.run(FitLine(), plan(), tmp_path / "line.pt")
    changed = (tmp_path / "line.pt").stat().st_mtime_ns
    assert torch.equal(hogwild.run(FitLine(), plan(), tmp_path / "line.pt")["slope"], first["slope"])
    assert (tmp_path / "line.pt").stat().st_mtime_ns == changed


class Stopped(Exception):
    pass


class StopsAt(FitLine):
    def __init__(self, calls):
        self.calls = calls

    def loss(self, module, generator, progress):
        self.calls -= 1
        if self.calls < 0:
            raise Stopped
        return super().loss(module, generator, progress)


def test_a_stopped_training_goes_on_from_its_checkpoint(tmp_path):
    path = tmp_path / "line.pt"
    with pytest.raises(Stopped):
        hogwild.run(StopsAt(100), plan(save_every_s=0.0), path)
    assert torch.load(path, weights_only=True)["step"] == 100
    # 300 are left, and not one more is done.
    hogwild.run(StopsAt(300), plan(), path)
    assert torch.load(path, weights_only=True)["step"] == 400


def test_a_time_limit_ends_the_training_early(tmp_path):
    started = time.monotonic()
    hogwild.run(FitLine(), plan(steps=10**9, minutes=0.01), tmp_path / "line.pt")
    assert time.monotonic() - started < 20


class Explodes(FitLine):
    def loss(self, module, generator, progress):
        return module.slope.float().sum() * float("nan")


def test_a_loss_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        hogwild.run(Explodes(), plan(), tmp_path / "line.pt")


@pytest.mark.parametrize("faster", [torch.float32, torch.bfloat16])
def test_the_faster_format_is_the_one_that_takes_less_time(faster, monkeypatch):
    now = [0.0]

    def multiply(left, right):
        now[0] += 1.0 if left.dtype == faster else 3.0
        return torch.zeros(())

    monkeypatch.setattr(hogwild.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.Tensor, "__matmul__", multiply)
    hogwild.faster_format.cache_clear()
    assert hogwild.faster_format() == faster
    hogwild.faster_format.cache_clear()
