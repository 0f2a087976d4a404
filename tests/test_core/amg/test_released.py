import json

import numpy as np
import pytest
import torch
from PIL import Image

from flexiact_core.amg.dataset import EncodedPairs, ReleasedClips, encode_pairs, find_pairs, is_released, vae_encoder
from flexiact_core.amg.released import read_demo
from flexiact_core.errors import FileError, SettingError
from flexiact_core.video_files import read_video, write_preview

CPU = torch.device("cpu")


def put_latents(folder, numbers, name="frame_{:06d}.pth", side=4):
    """One file a frame, as the release stores them; each is filled with its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        torch.save(torch.full((1, 1, 4, side, side), float(number)), folder / name.format(number))
    return folder


def numbers_of(latents):
    return latents[0, 0, :, 0, 0].tolist()


@pytest.fixture
def background(tmp_path):
    folder = tmp_path / "change_background"
    put_latents(folder / "hg_images_feature", range(5240, 5288, 3))
    put_latents(folder / "images_feature", range(5240, 5288, 3))
    put_latents(folder / "captions_y", [5264])
    (folder / "background_caption_json").mkdir()
    captions = {"new_captions": ["snow", "a beach"], "new_caption_file_names": ["snow_landscape", "beach"]}
    (folder / "background_caption_json" / "frame_005240.json").write_text(json.dumps(captions))
    return folder


def test_change_background_gives_avatar_latents_and_its_captions(background):
    clip = read_demo(background)
    assert numbers_of(clip.latents) == list(range(5240, 5288, 3)) and clip.latents.shape == (1, 4, 16, 4, 4)
    assert clip.captions == ("snow", "a beach") and clip.start == 5240 and clip.starts == (5240,)


def test_change_motion_gives_every_start_it_has(tmp_path):
    folder = put_latents(tmp_path / "change_motion", range(51, 100), "{:04d}.pth")
    clip = read_demo(folder, start=53)
    assert numbers_of(clip.latents) == list(range(53, 99, 3))
    assert clip.starts == tuple(range(51, 55)) and clip.captions == ()
    assert numbers_of(read_demo(folder, start=60, step=1, num_frames=3).latents) == [60, 61, 62]


def test_move_camera_gives_frames_at_full_size(tmp_path):
    folder = tmp_path / "move_camera"
    folder.mkdir()
    for number in range(4432, 4480, 3):
        pixels = np.full((9, 16, 3), number - 4432, np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number:06d}.png")
    clip = read_demo(folder)
    assert clip.latents is None and clip.frames.shape == (16, 9, 16, 3)
    assert (clip.frames[:, 0, 0, 0] * 255).round().tolist() == list(range(0, 48, 3))


def test_a_start_without_a_whole_clip_is_refused_with_the_nearest(background):
    with pytest.raises(SettingError, match="start 5300: no whole clip starts there. 1 starts; nearest: 5240"):
        read_demo(background, start=5300)
    with pytest.raises(FileError, match="16 frames found, but never 17 of them 3 numbers apart"):
        read_demo(background, num_frames=17)


def test_a_folder_without_frames_is_refused_with_those_that_have_them(tmp_path):
    with pytest.raises(FileError, match="no numbered frames in it .*change_background, change_motion or move_camera"):
        read_demo(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        read_demo(tmp_path / "nowhere")


def test_a_frame_of_another_kind_is_named(background):
    torch.save(torch.zeros(1, 77, 1024), background / "hg_images_feature" / "frame_005243.pth")
    with pytest.raises(FileError, match=r"frame_005243.pth: one frame of 4 channels expected, \[1, 77, 1024\] found"):
        read_demo(background)


def test_training_clips_need_video_avatar_and_the_caption_of_the_middle_frame(tmp_path):
    folder = tmp_path / "processed"
    put_latents(folder / "gh_images_feature", range(0, 60))
    put_latents(folder / "images_feature", range(2, 60))
    (folder / "captions_y").mkdir()
    for number in (24, 27, 30, 60):
        torch.save(torch.full((1, 77, 8), float(number)), folder / "captions_y" / f"frame_{number:06d}.pth")
    torch.save(torch.zeros(1, 77, 8), folder / "zero_y.pt")
    clips = ReleasedClips(folder)
    # 24 would belong to a clip from 0, whose video is missing; a clip from 36 would end behind the last frame.
    assert is_released(folder) and clips.starts == [3, 6]
    drawn = clips.draw(torch.Generator().manual_seed(0))
    start = numbers_of(drawn.video)[0]
    assert numbers_of(drawn.avatar) == numbers_of(drawn.video) == list(range(int(start), int(start) + 48, 3))
    assert drawn.text.shape == (1, 77, 8) and float(drawn.text[0, 0, 0]) == start + 24
    assert clips.zero_text.shape == (1, 77, 8)
    assert ReleasedClips(folder, skip=1).starts == [6]
    with pytest.raises(FileError, match="none begins a clip of 16, 3 numbers apart.*after the first 2"):
        ReleasedClips(folder, skip=2)
    with pytest.raises(FileError, match="not the release's layout. It has images_feature, captions_y"):
        ReleasedClips(tmp_path)


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "pairs"
    generator = torch.Generator().manual_seed(0)
    for kind in ("video", "avatar"):
        (folder / kind).mkdir(parents=True)
        for name in ("a", "b"):
            write_preview(folder / kind / f"{name}.mp4", torch.rand(12, 32, 32, 3, generator=generator), 8)
    for name in ("a", "b"):
        (folder / "video" / f"{name}.txt").write_text(f"caption of {name}\n")
    return folder


def encode(small, folder, cache, **settings):
    return encode_pairs(
        find_pairs(folder), cache, vae_encoder(small.vae, CPU), lambda text: torch.full((1, 77, 32), float(len(text))),
        0.18215, width_px=16, height_px=16, num_frames=5, **settings,
    )  # fmt: skip


def test_pairs_are_encoded_once_and_drawn_in_the_same_window(small, pairs, tmp_path):
    seen = []
    encoded = encode(small, pairs, tmp_path / "cache", on_pair=seen.append)
    assert seen == [0, 1] and [pair.caption for pair in find_pairs(pairs)] == ["caption of a", "caption of b"]
    times = [file.stat().st_mtime_ns for file in encoded.files]
    again = encode(small, pairs, tmp_path / "cache")
    assert [file.stat().st_mtime_ns for file in again.files] == times
    (pairs / "video" / "a.txt").write_text("another caption")
    assert encode(small, pairs, tmp_path / "cache").files[0] != encoded.files[0]
    clip = encoded.draw(torch.Generator().manual_seed(0))
    assert clip.video.shape == clip.avatar.shape == (1, 4, 5, 2, 2) and float(clip.text[0, 0, 0]) == 12


def test_a_short_pair_is_drawn_whole(tmp_path):
    from flexiact_core.weight_files import write_tensors

    parameters = torch.zeros(3, 8, 2, 2)
    parameters[:, :4] = torch.arange(3.0)[:, None, None, None]
    parameters[:, 4:] = -60.0
    file = write_tensors(
        {"video": parameters, "avatar": parameters.clone(), "text": torch.zeros(1, 2, 3)},
        tmp_path / "x.safetensors",
        {},
    )
    clip = EncodedPairs([file], 2.0).draw(torch.Generator())
    assert clip.video[0, 0, :, 0, 0].round(decimals=3).tolist() == [0, 2, 4]


def test_what_a_pair_lacks_is_named(pairs, small, tmp_path):
    (pairs / "avatar" / "b.mp4").unlink()
    with pytest.raises(FileError, match=r"pairs: avatar/b.mp4 missing for video/b.mp4"):
        find_pairs(pairs)
    (pairs / "video" / "a.txt").unlink()
    with pytest.raises(FileError, match=r"pairs: video/a.txt missing for video/a.mp4"):
        find_pairs(pairs)
    with pytest.raises(FileError, match="no video/NAME.mp4 in it. Put pairs there"):
        find_pairs(tmp_path)


def test_pairs_of_different_lengths_are_refused(pairs, small, tmp_path):
    write_preview(pairs / "avatar" / "b.mp4", torch.rand(6, 32, 32, 3), 8)
    with pytest.raises(FileError, match="b.mp4: 12 frames of video and 6 of avatar"):
        encode(small, pairs, tmp_path / "cache")


def test_another_content_vae_or_way_makes_encodings_of_its_own_and_a_copy_elsewhere_does_not(small, pairs, tmp_path):
    import os
    import shutil

    cache = tmp_path / "cache"
    first = encode(small, pairs, cache, made_with="a VAE").files
    copied = shutil.copytree(pairs, tmp_path / "copied")
    assert encode(small, copied, cache, made_with="a VAE").files == first
    assert not set(encode(small, pairs, cache, made_with="another VAE").files) & set(first)
    # Another clip of the same size and time.
    video = pairs / "video" / "a.mp4"
    times = video.stat()
    video.write_bytes(video.read_bytes()[:-1] + b"x")
    os.utime(video, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    changed = encode(small, pairs, cache, made_with="a VAE").files
    assert changed[0] != first[0] and changed[1] == first[1]


def test_pairs_are_read_in_the_size_that_is_encoded(small, pairs, tmp_path):
    asked = []

    def read(path, fps, size):
        asked.append((path.name, fps, size))
        return read_video(path, fps, size=size)

    encode(small, pairs, tmp_path / "cache", read=read)
    assert asked == [(f"{name}.mp4", 8, (16, 16)) for name in ("a", "a", "b", "b")]


def test_released_clips_are_known_by_what_they_hold(tmp_path):
    def make(name, value):
        folder = tmp_path / name
        for kind, shape in (("images_feature", (1, 1, 4, 2, 2)), ("hg_images_feature", (1, 1, 4, 2, 2)),
                            ("captions_y", (1, 77, 8))):  # fmt: skip
            (folder / kind).mkdir(parents=True)
            for number in range(0, 48, 3):
                torch.save(torch.full(shape, value), folder / kind / f"frame_{number:06d}.pth")
        return ReleasedClips(folder, num_frames=4).identity

    assert make("a", 0.0) == make("b", 0.0) != make("c", 1.0)
