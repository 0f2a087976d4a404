from copy import deepcopy

import torch

from flexiact_core.digests import content_digest, module_digest


def test_a_large_file_is_known_by_stretches_from_its_start_to_its_end(tmp_path):
    file = tmp_path / "a.mp4"
    with file.open("wb") as large:
        large.truncate(300 << 20)
    seen = {content_digest(file)}
    for place in (0, 150 << 20, (300 << 20) - 1):
        with file.open("rb+") as large:
            large.seek(place)
            large.write(b"x" * (1 if place > 200 << 20 else 5 << 20))
        seen.add(content_digest(file))
    assert len(seen) == 4


def test_a_module_is_known_by_its_weights():
    module = torch.nn.Sequential(*(torch.nn.Bilinear(5, 4, 3) for _ in range(2)))
    other = deepcopy(module)
    assert module_digest(other) == module_digest(module)
    with torch.no_grad():
        other[1].weight.mul_(1.01)
    assert module_digest(other) != module_digest(module)
