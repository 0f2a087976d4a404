"""Sample videos of FlexiAct's training: what an action does so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .host import encodings, folders, media, memory
from .sampling import complete_run, decode, fit_picture

if TYPE_CHECKING:
    from torch import Tensor

    from ..flexiact_core.cogvideox.model import Posterior
    from ..flexiact_core.flexiact.fae import FAE
    from ..flexiact_core.flexiact.samples import SamplePicture
    from .sockets import ActionClips, BaseModel


def read_sample_list(name: str | None) -> tuple[tuple[Path, str], ...]:
    """Pictures and captions of a list in the input folder or a model folder; of an empty name, none.

    Raises FileError if the list or a picture is not there.
    """
    from ..flexiact_core.flexiact.released import read_targets

    return read_targets(*folders.input_file(name)) if name and name.strip() else ()


class SampleVideos:
    """Sample videos of a training: always the same pictures, captions and seed; `frames` are the first picture's.

    image is an IMAGE, or None for the clips' own first frame; every is how many steps lie between two, 0 for none.
    targets are paths and captions of more pictures, whose videos are kept.
    Raises ShapeError and FileError if a picture cannot be used.
    """

    def __init__(
        self, model: BaseModel, clips: ActionClips, image, every: int, cfg: float, seed: int,
        targets: Sequence[tuple[Path, str]] = (),
    ):  # fmt: skip
        self.model, self.clips, self.every, self.seed = model, clips, every, seed
        self.cfg = complete_run(model, cfg=cfg)["cfg"]
        self.frames = clips.first_video
        self.posterior = clips.first_image if image is None else self._encode(image, "sample_image")
        self.more = [self._read(number, *target) for number, target in enumerate(targets, 1)] if every else []

    def draw(self, fae: FAE, step: int, folder: Path) -> Tensor:
        """Frames (T, H, W, 3) of a new sample video; those of the list are written into the folder."""
        from ..flexiact_core.video_files import encode_video
        from ..flexiact_core.weight_files import write_content

        for picture in self.more:
            frames = self._make(fae, picture.image, picture.prompt_embeds)
            write_content(picture.file(folder, step), encode_video(frames, self.model.base.family.fps))
        self.frames = self._make(fae, self.posterior, self.clips.encoded.prompt_embeds[:1])
        return self.frames

    def _read(self, number: int, path: Path, caption: str) -> SamplePicture:
        from ..flexiact_core.flexiact.samples import SamplePicture

        image = self._encode(media.read_image(path), path.name)
        return SamplePicture(number, path.stem, image, encodings.encode_prompt(self.model, caption))

    def _encode(self, image: Tensor, name: str) -> Posterior:
        num_frames, height, width = self.clips.first_video.shape[:3]
        return encodings.encode_image(self.model, fit_picture(self.model, image, name, width, height, num_frames))

    def _make(self, fae: FAE, image: Posterior, prompt_embeds: Tensor) -> Tensor:
        from ..flexiact_core.cogvideox.memory import transformer_bytes
        from ..flexiact_core.cogvideox.sampling import Run
        from ..flexiact_core.flexiact.bias import own_bias
        from ..flexiact_core.flexiact.samples import SAMPLE_STEPS
        from ..flexiact_core.flexiact.transfer import transfer_action

        model, clips = self.model, self.clips.encoded
        shape = clips.video.mean.shape
        with memory.on_device(model.transformer, transformer_bytes(model.base, shape[1], *shape[-2:], 2)) as device:
            latents = transfer_action(
                model.base, image, prompt_embeds, clips.empty_embeds,
                Run(len(self.clips.first_video), device, SAMPLE_STEPS, self.cfg, seed=self.seed),
                faes=[(fae, 1.0)], adapters=model.adapters, bias=own_bias(model.base.transformer.config),
            )  # fmt: skip
        return decode(model, latents, self.clips.first_video.shape[:3])
