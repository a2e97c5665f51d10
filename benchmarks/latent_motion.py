"""How far a codec's latents move with the picture (docs/decisions/0013).

    python -m benchmarks.latent_motion CHECKPOINT --data DATASET [DATASET ...]

Held-out pictures are moved by whole pixels to the right and down. Told is how far their latents are from the moved latents of the
pictures as they were, as a share of how far those are that stand still: what a perfect flow of latents would leave of copying's
error. Beside it what the decoder makes of moved latents.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from astra_ros.cli.options import add_held_out, add_json, require_json_folder, write_json
from astra_ros.codec.autoencoder import Codec
from astra_ros.codec.motion import motion_error_of, moved, was_inside
from astra_ros.codec.pictures import to_pixels
from astra_ros.data.held_out import held_out
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_unseen
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.markdown import table

DISTANCES = (1, 2, 3, 4, 6, 8)  # pixels
EPISODES, PICTURES = 6, 4  # of a dataset, and of each
PEAK = 2.0  # of pixels in [-1, 1]


@dataclass(frozen=True)
class Motion:
    """distance: pixels. left: share of copying's error of latents that moving them leaves.

    decoded_db: moved latents, decoded, against the moved picture; copied_db: the picture as it was; codec_db: the codec alone.
    """

    dataset: str
    pictures: int
    distance: int
    left: float
    decoded_db: float
    copied_db: float
    codec_db: float


@torch.inference_mode()
def motion(codec: Codec, dataset: str, pixels: Tensor, distance: int) -> Motion:
    """Of pictures (b, 3, H, W)."""
    height, width = pixels.shape[-2:]
    by = torch.tensor([distance / width, distance / height]).repeat(len(pixels), 1)
    latents, happened = codec.encode(pixels), moved(pixels, by)
    decoded = (codec.decode(moved(latents, by)), pixels, codec.decode(codec.encode(happened)))
    return Motion(
        dataset,
        len(pixels),
        distance,
        round(motion_error_of(codec, pixels, distance), 4),
        *(round(_psnr(one, happened, was_inside(pixels, by)), 2) for one in decoded),
    )


def _psnr(one: Tensor, other: Tensor, inside: Tensor) -> float:
    """dB, where it is inside."""
    error = ((one - other).square() * inside).mean() / inside.mean()
    return float(10 * torch.log10(PEAK**2 / error))


def _pictures(dataset: Dataset, names: tuple[str, ...], checkpoint: Checkpoint) -> Iterator[Tensor]:
    """A few of each of the first episodes."""
    size = (checkpoint.config.image_height, checkpoint.config.image_width)
    for episode in dataset.stream(names[:EPISODES], size, print):
        yield to_pixels(episode.pixels[:: max(1, len(episode.pixels) // PICTURES)][:PICTURES])


def measured(checkpoint: Checkpoint, dataset: Dataset, names: tuple[str, ...]) -> list[Motion]:
    """Raises ValueError when nothing is held out, or the codec was trained on it."""
    if not names:
        raise ValueError(f"{dataset.path}: expected held-out episodes, found none; name some in --held-out")
    require_unseen(dataset.name, names, checkpoint.provenance)
    pixels = torch.cat([*_pictures(dataset, names, checkpoint)])
    return [motion(checkpoint.codec.eval(), dataset.name, pixels, distance) for distance in DISTANCES]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table; with --json FILE also write FILE and FILE.md."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latent_motion", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="datasets")
    add_held_out(parser)
    add_json(parser)
    options = parser.parse_args(arguments)
    try:
        require_json_folder(options)
        checkpoint, aside = load_checkpoint(options.checkpoint), held_out(options.held_out)
        found: list[Motion] = []
        for dataset in (Dataset.open(folder, checkpoint.config.cameras) for folder in options.data):
            found += measured(checkpoint, dataset, aside.split(dataset.name, dataset.episode_names).held_out)
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    header = (
        "dataset",
        "moved by",
        "left of copying's error of latents",
        "moved latents dB",
        "copied dB",
        "codec alone dB",
    )
    rows = [
        (one.dataset, f"{one.distance} px", f"{one.left:.0%}", one.decoded_db, one.copied_db, one.codec_db)
        for one in found
    ]
    command = f"{parser.prog} {options.checkpoint} --data {' '.join(map(str, options.data))}"
    text = f"    {command}\n\n{table(header, rows)}"
    print(text)
    write_json(
        options.json,
        {"command": command, "motion": [asdict(one) for one in found], "machine": describe_machine()},
    )
    if options.json is not None:
        options.json.with_suffix(".md").write_text(f"# How latents move\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
