"""The recorded numbers of the released method, and a small base."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from PIL import Image
from videos import HEADER, make_video, write_rows

from flexiact_core.cogvideox.encodings import Clips
from flexiact_core.cogvideox.model import Posterior
from flexiact_core.cogvideox.sampling import make_scheduler

GOLDEN = Path(os.environ.get("FLEXIACT_GOLDEN") or Path(__file__).parent.parent / "golden" / "flexiact")

@dataclass(frozen=True)
class Golden:
    """A set of golden vectors; every size comes from its files."""

    folder: Path

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.folder / f"{name}.safetensors")

    @cached_property
    def config(self) -> dict:
        return json.loads((self.folder / "transformer_config.json").read_text())

    @cached_property
    def schedule(self) -> dict:
        return json.loads((self.folder / "schedule.json").read_text())

    @cached_property
    def transformer(self):
        from diffusers import CogVideoXTransformer3DModel

        transformer = CogVideoXTransformer3DModel.from_config(self.config)
        transformer.load_state_dict(self.tensors("transformer"), strict=True)
        return transformer.eval().requires_grad_(False)

    @cached_property
    def refadapter(self):
        from flexiact_core.flexiact.refadapter import load_refadapter

        return load_refadapter(self.folder / "refadapter.safetensors")

    @cached_property
    def fae(self):
        from flexiact_core.flexiact.fae import load_fae

        return load_fae(self.folder / "fae.safetensors")

    def adapted(self, weight: float):
        """The transformer with the RefAdapter at this weight; the golden transformer itself stays as it is."""
        from flexiact_core.flexiact.refadapter import with_refadapters

        return with_refadapters(self.transformer, [(self.refadapter, weight)], torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # The models are small: threads cost more than they bring, and results do not depend on their number.
    torch.set_num_threads(1)


@pytest.fixture
def alone_on_cpu(monkeypatch):
    """For a training command that is called in the tests' own process."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def golden() -> Golden:
    if not (GOLDEN / "forward.safetensors").is_file():
        pytest.fail(f"no golden vectors in {GOLDEN}. Point FLEXIACT_GOLDEN at a folder that holds them.")
    return Golden(GOLDEN)


@pytest.fixture(scope="session")
def base(small_base):
    """A small base, loaded. Shared: nothing may change it."""
    from flexiact_core.cogvideox.loading import load_base

    return load_base(small_base, small_base, torch.float32)


@pytest.fixture
def benchmark(tmp_path):
    """The authors' folder, as their README draws it, with one action of two clips and one target."""
    root = tmp_path / "downloaded"
    videos = root / "reference_videos" / "human" / "rotate_crop"
    videos.mkdir(parents=True)
    for number in range(2):
        make_video(videos / f"{number}.mp4", num_frames=80, fps=30)
    pictures = root / "target_images" / "human"
    pictures.mkdir(parents=True)
    Image.new("RGB", (80, 60), "red").save(pictures / "girl.webp")
    action = root / "captions" / "human" / "rotate"
    listed = "benchmark/reference_videos/human/rotate_crop"
    write_rows(
        action / "crop.csv", HEADER, *([f"{listed}/{n}.mp4", 0, 78, 30, 0, f'A "big" turn, no. {n}'] for n in range(2))
    )
    write_rows(
        action / "val_image.csv", ["Path", "Caption"], ["benchmark/target_images/human/girl.webp", "A girl, turning"]
    )
    return root


@pytest.fixture(scope="session")
def scheduler(base):
    return make_scheduler(base.scheduler_config, "DPM")


@pytest.fixture(scope="session")
def clips(base):
    """Two encoded crops of one small clip, in a scale as latents have it."""
    config = base.transformer.config
    generator = torch.Generator().manual_seed(11)
    size = 16, config.sample_height, config.sample_width
    video = torch.randn(2, 3, *size, generator=generator)
    text = torch.randn(2, 1, config.max_text_seq_length, config.text_embed_dim, generator=generator)
    return Clips(
        Posterior(video, torch.full_like(video, 0.1)),
        Posterior(video[:, :1], torch.full_like(video[:, :1], 0.1)),
        text[0],
        text[1],
        0.7,
    )
