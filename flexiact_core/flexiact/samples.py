"""Pictures that a training is tried on while it runs: each is made into a video after every so many steps, and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import SettingError
from ..training import StopTraining
from ..video_files import encode_video
from ..weight_files import write_content
from .bias import own_bias
from .released import read_targets
from .transfer import transfer_action

if TYPE_CHECKING:
    import argparse

    import torch

    from ..cogvideox.model import CogVideoXI2V, Posterior
    from ..command_line import Processes
    from ..training import OnStep, TrainingState

SAMPLE_STEPS = 25


@dataclass(frozen=True, eq=False)
class SamplePicture:
    """A picture to try a training on: its place in the list, its name, its posterior, its caption's embeddings."""

    number: int
    name: str
    image: Posterior
    prompt_embeds: Tensor

    def file(self, folder: Path, step: int) -> Path:
        """Where its video after so many steps lies."""
        return Path(folder) / f"step_{step:06d}" / f"{self.number:02d}_{self.name}.mp4"


class SampleVideos:
    """Videos of pictures with captions, always of the same seed, on a base whose transformer is on `device`.

    targets are paths and captions; of several processes, each makes its share. should_stop is asked in every step, and
    ends a video that is being made without keeping it.
    Raises FileError and ShapeError if a picture cannot be used.
    """

    def __init__(
        self,
        base: CogVideoXI2V,
        targets: Sequence[tuple[Path, str]],
        folder: Path,
        device: torch.device,
        *,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        should_stop: Callable[[], bool] = lambda: False,
    ):
        from ..cogvideox.own_values import own_values

        self.base, self.folder, self.device, self.seed, self.should_stop = base, folder, device, seed, should_stop
        self.own = own_values(base.transformer.config, base.vae.config)
        self.pictures, self.empty = self._encode(list(enumerate(targets, 1))[shard[0] :: shard[1]])

    @classmethod
    def asked_for(cls, settings: argparse.Namespace, base: CogVideoXI2V, processes: Processes) -> SampleVideos | None:
        """Those of a training command with add_sample_settings(), None if none are asked for.

        Raises as above, and SettingError if a setting is out of range.
        """
        from ..command_line import whole_disk

        if settings.validation is None:
            return None
        if settings.sample_every < 1:
            raise SettingError(f"--sample-every {settings.sample_every}: at least 1 is needed.")
        targets = read_targets(settings.validation, root=whole_disk(settings.validation))
        return cls(
            base, targets, settings.output.with_suffix(".samples"), processes.device, seed=settings.seed,
            shard=processes.shard, should_stop=lambda: processes.asked_to_stop,
        )  # fmt: skip

    def every(self, steps: int, learned: Callable[[TrainingState], dict]) -> OnStep:
        """Makes the videos after every so many steps; `learned` makes draw()'s arguments of a training's state."""

        def on_step(index: int, loss: float, take_state: Callable[[], TrainingState]) -> None:
            if (index + 1) % steps == 0:
                self.draw(index + 1, **learned(take_state()))

        return on_step

    def draw(self, step: int, **learned) -> list[Path]:
        """The files of all videos after so many steps; `learned` is faes and adapters of transfer_action()."""
        try:
            return [
                write_content(
                    picture.file(self.folder, step), encode_video(self._make(picture, learned), self.base.family.fps)
                )
                for picture in self.pictures
            ]
        except StopTraining:
            return []

    def _encode(self, numbered: list) -> tuple[list[SamplePicture], Tensor]:
        from ..cogvideox.encodings import encode_captions
        from ..cogvideox.model import encode_pixels, fit_picture
        from ..picture_files import read_picture
        from ..video import to_model_pixels

        base, own = self.base, self.own
        pictures = [fit_picture(base, read_picture(p), p.name, own.width, own.height) for _, (p, _) in numbered]
        embeds = encode_captions(base, [*(caption for _, (_, caption) in numbered), ""], self.device)
        base.vae.to(self.device)
        encoded = [
            SamplePicture(
                number, path.stem, encode_pixels(base.vae, to_model_pixels(picture), self.device), embeds[caption]
            )
            for (number, (path, caption)), picture in zip(numbered, pictures, strict=True)
        ]
        base.vae.to("cpu")
        return encoded, embeds[""]

    def _make(self, picture: SamplePicture, learned: dict) -> Tensor:
        """Frames (T, H, W, 3) in 0..1 on the CPU. Raises StopTraining if it is to stop."""
        from ..cogvideox.model import decode_latents
        from ..cogvideox.sampling import Run
        from ..video import to_frames

        def on_step(index: int, clean: Tensor) -> None:
            if self.should_stop():
                raise StopTraining

        base, device = self.base, self.device
        run = Run(self.own.num_frames, device, SAMPLE_STEPS, self.own.cfg, seed=self.seed, on_step=on_step)
        bias = own_bias(base.transformer.config)
        latents = transfer_action(base, picture.image, picture.prompt_embeds, self.empty, run, bias=bias, **learned)
        base.vae.to(device)
        frames = to_frames(decode_latents(base.vae, latents, device, base.family.tile_px)).cpu()
        base.vae.to("cpu")
        return frames
