import pytest
import torch

from flexiact_core.clip_lists import ListedClip
from flexiact_core.cogvideox.encodings import (
    encode_clips,
    encode_listed_clips,
    encoded_file,
)
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import clip_format, encode_pixels
from flexiact_core.flexiact.released import find_released_actions, read_released_action

CPU = torch.device("cpu")


def picture(count=9, height=48, width=64, seed=1):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def test_clips_are_the_vaes_posteriors_of_videos_and_first_frames(base):
    videos = [picture(seed=seed, height=16, width=16) for seed in (1, 2)]
    text = torch.randn(2, 1, 4, 8)
    heard = []
    clips = encode_clips(base.vae, videos, text[0], text[1], CPU, heard.append)
    assert heard == [0, 1]
    assert clips.video.mean.shape == (2, 3, 16, 2, 2) and clips.image.mean.shape == (2, 1, 16, 2, 2)
    assert clips.scaling_factor == base.vae.config.scaling_factor
    pixels = videos[1].permute(3, 0, 1, 2)[None] * 2 - 1
    assert torch.equal(clips.video.mean[1:], encode_pixels(base.vae, pixels, CPU).mean)
    assert torch.equal(clips.image.std[1:], encode_pixels(base.vae, pixels[:, :, :1], CPU).std)
    assert torch.equal(clips.prompt_embeds, text[0]) and torch.equal(clips.empty_embeds, text[1])


def test_encoding_clips_can_be_stopped(base):
    def stop(index):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encode_clips(base.vae, [picture(height=16, width=16)] * 2, torch.ones(1, 1, 1), torch.ones(1, 1, 1), CPU, stop)


def test_each_clip_is_encoded_once(benchmark, small_base, tmp_path):
    base = load_base(small_base, small_base, torch.float32)
    clips = read_released_action(find_released_actions(benchmark)["human/rotate"]).clips
    length, width = base.transformer.config.max_text_seq_length, base.text_encoder.config.d_model
    asked = []

    def encode_caption(caption):
        asked.append(caption)
        return torch.zeros(1, length, width)

    def encode():
        return encode_listed_clips(
            base.vae, clips, tmp_path / "cache", encode_caption, form=clip_format(base),
            device=torch.device("cpu"),
        )  # fmt: skip

    first, second = encode(), encode()
    assert len(asked) == len(set(first.files)) == 2
    assert first.files == second.files
    drawn, again = (data.draw(torch.Generator().manual_seed(3)) for data in (first, second))
    assert drawn.video.mean.shape == (1, 5, 16, 8, 8)
    assert drawn.image.mean.shape == (1, 1, 16, 8, 8)
    assert torch.equal(drawn.image.mean, again.image.mean)


def test_condition_images_are_frames_from_all_over_the_clip(benchmark, small_base, tmp_path):
    base = load_base(small_base, small_base, torch.float32)
    clips = read_released_action(find_released_actions(benchmark)["human/rotate"]).clips[:1]
    data = encode_listed_clips(
        base.vae, clips, tmp_path / "cache", lambda caption: torch.zeros(1, 2, 2), form=clip_format(base),
        device=torch.device("cpu"), images_per_clip=8,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    means = {round(data.draw(generator).image.mean.sum().item(), 3) for _ in range(40)}
    assert len(means) == 8


def test_an_encoding_is_known_by_what_the_clip_holds(tmp_path):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "clip.mp4").write_bytes(b"A" * 1000)
    (tmp_path / "b" / "clip.mp4").write_bytes(b"B" * 1000)
    (tmp_path / "c" / "moved.mp4").write_bytes(b"A" * 1000)

    def encoding(name, start=0, duration=0, caption="x", **how):
        return encoded_file(ListedClip(tmp_path / name, start, duration, caption), tmp_path, **how)

    first = encoding("a/clip.mp4")
    assert encoding("c/moved.mp4") == first
    others = [
        encoding("b/clip.mp4"), encoding("a/clip.mp4", start=1), encoding("a/clip.mp4", duration=1),
        encoding("a/clip.mp4", caption="y"), encoding("a/clip.mp4", made_with="another VAE"),
    ]  # fmt: skip
    (tmp_path / "a" / "clip.mp4").write_bytes(b"C" * 1000)
    assert len({first, *others, encoding("a/clip.mp4")}) == 7


def test_another_vae_size_seed_or_text_encoder_makes_encodings_of_its_own(benchmark, base, tmp_path):
    from copy import deepcopy
    from dataclasses import replace

    clips = read_released_action(find_released_actions(benchmark)["human/rotate"]).clips[:1]
    form = replace(clip_format(base), max_frames=9)
    other = deepcopy(base.vae)
    with torch.no_grad():
        other.encoder.conv_in.conv.weight.mul_(2)

    def encode(vae=base.vae, form=form, **how):
        caption = lambda _: torch.zeros(1, 2, 2)  # noqa: E731
        data = encode_listed_clips(vae, clips, tmp_path, caption, form=form, device=CPU, images_per_clip=1, **how)
        return data.files[0], data.draw(torch.Generator().manual_seed(0)).video.mean

    first = encode()
    assert encode()[0] == first[0]
    files = [encode(other)[0], encode(form=replace(form, width_px=32))[0], encode(seed=1)[0], encode(made_with="b")[0]]
    assert len({first[0], *files}) == 5
    assert not torch.equal(encode(other)[1], first[1])
    assert encode(form=replace(form, width_px=32))[1].shape[-1] == 4


def test_a_clips_encoding_does_not_depend_on_its_place_in_the_list(benchmark, base, tmp_path):
    clips = read_released_action(find_released_actions(benchmark)["human/rotate"]).clips

    def encode(clips, folder):
        caption = lambda _: torch.zeros(1, 2, 2)  # noqa: E731
        data = encode_listed_clips(
            base.vae, clips, tmp_path / folder, caption, form=clip_format(base), device=CPU, images_per_clip=1
        )
        return {file.name: file.read_bytes() for file in data.files}

    assert encode(clips, "a") == encode(clips[::-1], "b")
