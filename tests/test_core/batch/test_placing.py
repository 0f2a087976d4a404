"""Parts on a device with a limit: what is held, what comes layer by layer, and that the numbers stay the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import LayerNorm, Linear, Sequential

from flexiact_core.batch.placing import SPARE_BYTES, Placing
from flexiact_core.errors import SettingError
from flexiact_core.modules import share_weights

CPU = torch.device("cpu")
LAYER_BYTES = 4 * (32 * 32 + 32)


def part():
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (Linear(32, 32), LayerNorm(32))]
    return Sequential(*layers).requires_grad_(False)


def limited(layers: int, work_bytes: int = 0) -> int:
    """A limit with room for so many layers of part(), one that comes and goes, and all norms."""
    return SPARE_BYTES + work_bytes + (layers + 1) * LAYER_BYTES + 4 * 2 * 4 * 32


@pytest.mark.parametrize(("room", "streamed"), [(4, 0), (2, 2), (0, 4)])
def test_as_many_layers_are_held_as_fit_and_the_numbers_are_the_same(room, streamed):
    whole, own = part(), part()
    numbers = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    placing = Placing(CPU, limited(room, 1000))
    with placing.placed(own, 1000) as device:
        assert device == CPU
        assert torch.equal(own(numbers), whole(numbers))
    assert len(placing.streamed) == streamed
    # Trees over the same weights have the same layers, hooks included.
    assert torch.equal(share_weights(own)(numbers), whole(numbers))


def test_without_a_limit_everything_is_on_the_device():
    placing = Placing(torch.device("meta"))
    own = part()
    with placing.placed(own, 10**15):
        assert {parameter.device.type for parameter in own.parameters()} == {"meta"}
    assert placing.streamed == set()


def test_work_that_is_more_than_the_limit_is_refused_with_what_it_takes():
    with pytest.raises(SettingError, match=r"--memory 2: a video of this size needs about 5\.9 GB"):
        with Placing(CPU, 2 * 2**30).placed(part(), 5 * 2**30):
            pass
