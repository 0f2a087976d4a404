"""What poses cost: `python -m benchmarks.pose`.

One layer of CogVideoX 1.5's width with and without poses; the poses' own part for one sample, and for two as the
release computes it, once for each half of guidance; what the stream holds while it goes through the layers; drawing.
Times are medians of the rounds, sides in turns: on a CPU seconds that the process computed, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.measure import clock, count_flops, peak_bytes, ratio, time_side_by_side
from flexiact_core.cogvideox.pose_norms import add_pose_norms
from flexiact_core.cogvideox.processor import with_video_attention
from flexiact_core.dynamictrl.pose_norm import PoseStream
from flexiact_core.poses.draw import draw_frame
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import FACE, FOOT, HAND_LEFT, HAND_RIGHT

# CogVideoX 1.5's layer; 37 frames of 768 x 1360.
HEADS, HEAD_DIM, TIME_WIDTH, TEXT_TOKENS = 48, 64, 512, 226
FULL_TOKENS = 20_400
HEAD = ["| what | result |", "|---|---|"]


def make_transformer(layers: int, heads: int, device: str | torch.device):
    """A transformer of so many layers with pose norms, random weights."""
    from diffusers import CogVideoXTransformer3DModel

    config = {"num_attention_heads": heads, "attention_head_dim": HEAD_DIM, "num_layers": layers, "in_channels": 32}
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(
            **config, patch_size_t=2, ofs_embed_dim=TIME_WIDTH, time_embed_dim=TIME_WIDTH, patch_bias=False,
            use_rotary_positional_embeddings=True,
        )  # fmt: skip
        add_pose_norms(transformer)
    if str(device) != "meta":
        transformer.to_empty(device=device)
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.normal_(std=0.02)
    return with_video_attention(transformer.eval().requires_grad_(False))


def layer_work(transformer, tokens: int, device, poses: bool) -> Callable[[], object]:
    """One forward of the first block, for one sample."""
    block = transformer.transformer_blocks[0]
    width = transformer.config.num_attention_heads * HEAD_DIM
    video = torch.randn(1, tokens, width, device=device)
    text, temb = torch.randn(1, TEXT_TOKENS, width, device=device), torch.randn(1, TIME_WIDTH, device=device)
    rotary = tuple(torch.randn(tokens, HEAD_DIM, device=device) for _ in range(2))
    pose = torch.randn(1, tokens, width, device=device) if poses else None

    def work():
        stream = PoseStream(transformer.transformer_blocks, pose, temb) if poses else None
        return block(video, text, temb, rotary, attention_kwargs={"pose": stream} if poses else {})

    return torch.no_grad()(work)


def stream_work(transformer, tokens: int, device, batch: int) -> Callable[[], object]:
    """All layers of the pose stream, each added to the video tokens of both halves of guidance."""
    width, layers = transformer.config.num_attention_heads * HEAD_DIM, len(transformer.transformer_blocks)
    pose, temb = torch.randn(batch, tokens, width, device=device), torch.randn(batch, TIME_WIDTH, device=device)

    def work():
        stream = PoseStream(transformer.transformer_blocks, pose, temb)
        for layer in range(layers):
            stream.at(layer)

    return torch.no_grad()(work)


def one_pose(width: int, height: int) -> PoseSequence:
    """A person of 134 joints, all seen: a body over the canvas, hands and a face of the size that they then have."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(1, 1, 134, 2, generator=generator) * 0.8 + 0.1
    for part, size in ((FOOT, 0.1), (FACE, 0.12), (HAND_RIGHT, 0.08), (HAND_LEFT, 0.08)):
        places[:, :, part] = places[:, :, part.start : part.start + 1] + (places[:, :, part] - 0.5) * size
    canvas = torch.tensor([width, height])
    return PoseSequence(places * canvas, torch.ones(1, 1, 134), (width, height), 16.0)


def table(device: torch.device, rounds: int, tokens: int, heads: int) -> list[str]:
    """The rows, a line each."""
    rows = []
    transformer = make_transformer(1, heads, device)
    sides = {name: layer_work(transformer, tokens, device, name == "with") for name in ("without", "with")}
    seconds = time_side_by_side(sides, device, rounds)
    width = heads * HEAD_DIM
    rows.append(row(
        f"a layer of width {width}, {tokens:,} tokens: with poses / without",
        f"{ratio(seconds['with'], seconds['without']):.4f} ({statistics.median(seconds['without']):.2f} s)",
    ))  # fmt: skip
    streams = {batch: stream_work(transformer, tokens, device, batch) for batch in (1, 2)}
    seconds = time_side_by_side(streams, device, rounds)
    rows.append(row(
        "the poses' own part: two samples, as released / one", f"{ratio(seconds[2], seconds[1]):.2f} "
        f"({statistics.median(seconds[1]):.3f} s)",
    ))  # fmt: skip
    several = make_transformer(4, heads, device)
    one = tokens * width * 4
    held = peak_bytes(stream_work(several, tokens, device, 1), device) / one
    rows.append(row("held beside the tokens through 4 layers, in streams", f"{held:.2f}"))
    empty = make_transformer(1, heads, "meta")
    with_poses, without = (count_flops(layer_work(empty, FULL_TOKENS, "meta", poses)) for poses in (True, False))
    # Products alone are counted: of values, the norm, the two factors, the sum and the gate take about nine each.
    values = FULL_TOKENS * width * 9
    share = (with_poses - without + values) / without
    rows.append(row(f"counted at {FULL_TOKENS:,} tokens: operations of the poses / of the layer", f"{share:.1e}"))
    for size in ((432, 288), (768, 1360)):
        pose = one_pose(*size)
        rows.append(
            row(f"drawing a pose at {size[0]}x{size[1]}, body, hands and face", f"{draw_seconds(pose, rounds):.3f} s")
        )
    return rows


def draw_seconds(pose: PoseSequence, rounds: int) -> float:
    """The median over the rounds, after one that is not counted."""
    draw_frame(pose, 0)
    seconds = []
    for _ in range(rounds):
        started = clock(torch.device("cpu"))
        draw_frame(pose, 0)
        seconds.append(clock(torch.device("cpu")) - started)
    return statistics.median(seconds)


def row(name: str, value: str) -> str:
    """A line of the table."""
    return f"| {name} | {value} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=2_550, help="20400 are 37 frames of 768x1360")
    parser.add_argument("--tiny", action="store_true", help="a size that only shows that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens, heads = (64, 2) if options.tiny else (options.tokens, HEADS)
    print(f"torch {torch.__version__}, {options.device}, float32.\n")
    print("\n".join([*HEAD, *table(torch.device(options.device), options.rounds, tokens, heads)]))


if __name__ == "__main__":
    main()
