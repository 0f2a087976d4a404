import csv

import pytest
import torch
from PIL import Image
from videos import make_video

from flexiact_core.clip_lists import read_clip_list
from flexiact_core.cogvideox.encodings import encode_listed_clips
from flexiact_core.cogvideox.loading import load_base
from flexiact_core.cogvideox.model import clip_format
from flexiact_core.errors import FileError
from flexiact_core.flexiact.released import find_released_actions, read_released_action

HEADER = ["video_path", "start_frame", "end_frame", "fps", "mask_id", "caption"]


def write_rows(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows(rows)
    return file


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


def test_the_authors_folder_is_read_as_it_is(benchmark):
    found = find_released_actions(benchmark.parent)
    assert list(found) == ["human/rotate"]
    action = read_released_action(found["human/rotate"])
    assert (action.kind, action.name) == ("human", "rotate")
    assert [clip.caption for clip in action.clips] == ['A "big" turn, no. 0', 'A "big" turn, no. 1']
    assert all(clip.path.is_file() and clip.start == 0 and clip.duration == 78 / 30 for clip in action.clips)
    assert [(path.name, caption) for path, caption in action.targets] == [("girl.webp", "A girl, turning")]


def test_an_action_without_target_pictures_is_read(benchmark):
    folder = find_released_actions(benchmark)["human/rotate"]
    (folder / "val_image.csv").unlink()
    assert read_released_action(folder).targets == ()


def test_a_list_without_a_header_keeps_its_first_line(tmp_path):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    rows = read_clip_list(write_rows(tmp_path / "list.csv", ["a.mp4", 2, 10, 8, "", "something moves"]))
    assert [(row.start, row.duration, row.caption) for row in rows] == [(0.25, 1.0, "something moves")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEADER, ["gone.mp4", 0, 10, 8, 0, "x"]], "line 2: gone.mp4 is not there"),
        ([HEADER, ["a.mp4", "zero", 10, 8, 0, "x"]], "line 2: path, start frame"),
        ([HEADER, ["a.mp4", 0, 10, 0, 0, "x"]], "line 2: path, start frame"),
        ([HEADER, ["a.mp4", "x"]], "line 2: path, start frame"),
        ([HEADER], "no clip in the list"),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, message):
    make_video(tmp_path / "a.mp4", num_frames=10, fps=8)
    with pytest.raises(FileError, match=message):
        read_clip_list(write_rows(tmp_path / "list.csv", *rows))


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
