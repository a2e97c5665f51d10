"""manifest.json: everything a robot must know about a model before it runs it.

Plain data: reading it executes nothing, and every malformed one ends in a BundleError that names the field.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends import schema
from astra_ros.denoiser.io import GraphSpec, ModelDims, comparison_specs, graph_specs
from astra_ros.frames.preprocess import share_of
from astra_ros.history.layout import ANCHOR_AGE, NUM_SLOTS

SCHEMA_VERSION = 4
# That a runtime may compute in.
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "int8_bf16")

_PLAIN_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_COUNT = 1 << 20
_MAX_FLOPS = 1 << 60
MAX_BATCH = 1024
EXPORT_AGAIN = "export the bundle again: python -m export.to_onnx CHECKPOINT --space SPACE --out BUNDLE"


class BundleError(ValueError):
    """A bundle that must not be run. One line: what is wrong, and the command that fixes it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class CameraSpec:
    """Pictures the model was trained on: height and width in pixels, encoding, and how others are made to fit.

    names: of several cameras, whose pictures are one below the other, each of its share of the height; empty for one.
    """

    height: int
    width: int
    encoding: str = "rgb8"
    fit: str = "center_crop"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_counts(self, "height", "width")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names: expected every camera once, found {', '.join(self.names)[:80]}")
        share_of(self.height, self.count)
        if (self.encoding, self.fit) != ("rgb8", "center_crop"):
            found = f"{self.encoding[:80]!r} with {self.fit[:80]!r}"
            raise ValueError(f"encoding, fit: expected 'rgb8' with 'center_crop', found {found}")

    @property
    def count(self) -> int:
        return max(1, len(self.names))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def require_count(self, found: int, what: str) -> None:
        """Raise ValueError unless there are as many topics or pictures as cameras. what: who gives them."""
        if found != self.count:
            named = f" ({', '.join(self.names)})" if self.names else ""
            raise ValueError(
                f"{what}: expected {self.count}, one per camera of the model{named}, found {found}"
            )


@dataclass(frozen=True)
class LatentSpec:
    """Shape of one latent frame."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _require_counts(self, "channels", "height", "width")


@dataclass(frozen=True)
class HistorySpec:
    """The packed history, laid out as in history/layout.py.

    num_slots: frames of history the network takes, the observation included. anchor_age: frames before the observation
    at which the network places the first frame of all. num_tokens: what it makes of all slots.
    """

    num_slots: int
    anchor_age: int
    num_tokens: int

    def __post_init__(self) -> None:
        _require_counts(self, "num_tokens")
        if (self.num_slots, self.anchor_age) != (NUM_SLOTS, ANCHOR_AGE):
            raise ValueError(
                f"num_slots, anchor_age: expected {NUM_SLOTS}, {ANCHOR_AGE} (the layout of this version of astra_ros),"
                f" found {self.num_slots}, {self.anchor_age}"
            )


@dataclass(frozen=True)
class NetworkSpec:
    """The sizes behind the history's keys and values: layers, heads, width of a head."""

    depth: int
    num_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        _require_counts(self, "depth", "num_heads", "head_dim")


@dataclass(frozen=True)
class FileSpec:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256: expected 64 lower-case hex digits, found {self.sha256[:80]!r}")
        if self.bytes < 0:
            raise ValueError(f"bytes: expected 0 or more, found {self.bytes}")


@dataclass(frozen=True)
class GoldenSpec:
    """Known answers of the network, and how far a backend on another machine may be from them.

    file: npz of inputs and expected outputs (backends/golden.py).
    latents_tolerance: largest absolute difference, in latent units. pixels_tolerance: the same in grey levels of 255.
    reduced_tolerance: for arithmetic below the graphs' own; largest relative error, as golden.relative_errors has it.
    """

    file: str
    latents_tolerance: float
    pixels_tolerance: int
    reduced_tolerance: float

    def __post_init__(self) -> None:
        for name in ("latents_tolerance", "reduced_tolerance"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 < tolerance <= 1, found {getattr(self, name)}")
        if not 0 <= self.pixels_tolerance <= 16:
            raise ValueError(f"pixels_tolerance: expected 0..16 grey levels, found {self.pixels_tolerance}")


@dataclass(frozen=True)
class TrustSpec:
    """What the model's own recordings say about its predictions (rollout/trust.py).

    file: npz. interval_low, interval_high: nine of ten real errors lie between so many times the expected one.
    fitted_on: held-out episodes that were used for it; others may test it. num_samples: futures per plan whose spread was
    fitted. precision: of the predictions that were fitted; rounding to integers makes other errors than floating point does.
    """

    file: str
    interval_low: float
    interval_high: float
    fitted_on: tuple[str, ...]
    num_samples: int
    precision: str = "fp32"

    def is_for(self, precision: str) -> bool:
        """Whether predictions in this precision have the errors that were fitted."""
        return precision.startswith("int8") == self.precision.startswith("int8")

    def __post_init__(self) -> None:
        if not 0 < self.interval_low <= self.interval_high:
            raise ValueError(
                "interval_low, interval_high: expected 0 < low <= high, found"
                f" {self.interval_low:g}, {self.interval_high:g}"
            )
        if self.num_samples < 2:
            raise ValueError(f"num_samples: expected 2 or more, found {self.num_samples}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {', '.join(PRECISIONS)}, found {self.precision[:80]!r}"
            )


@dataclass(frozen=True)
class QuantizationSpec:
    """How to run the graphs in 8-bit integers (backends/openvino_int8.py).

    file: JSON of ranges. tolerance: largest relative error, as golden.relative_errors has it. fitted_on: training
    episodes that the ranges come from.
    """

    file: str
    tolerance: float
    fitted_on: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"tolerance: expected 0 < tolerance <= 1, found {self.tolerance}")


@dataclass(frozen=True)
class ProposalsSpec:
    """A network that proposes plans towards a goal picture (rollout/proposals.py).

    file: npz of its weights. count: plans per question. horizon: rows of the longest. width, features, rank: its sizes.
    learned_from: datasets whose training episodes it has learned from.
    """

    file: str
    count: int
    horizon: int
    width: int
    features: int
    rank: int
    learned_from: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_counts(self, "count", "horizon", "width", "features", "rank")


@dataclass(frozen=True)
class FlopsSpec:
    """Floating point operations for one robot's prediction, two per multiplication with its addition.

    remember, append: of the graph. step: of one denoising step of a chunk. plan: of it, what depends on the actions alone;
    0 where an earlier export did not tell.
    """

    remember: int
    append: int
    step: int
    plan: int = 0

    def __post_init__(self) -> None:
        for name, found in asdict(self).items():
            if name != "plan" and not 1 <= found <= _MAX_FLOPS:
                raise ValueError(f"{name}: expected 1..{_MAX_FLOPS}, found {str(found)[:80]}")
        if not 0 <= self.plan < max(self.step, 1):
            raise ValueError(
                f"plan: expected less than step = {str(self.step)[:80]}, found {str(self.plan)[:80]}"
            )

    def chunk(self, num_steps: int) -> int:
        """Operations of one further chunk of a rollout, when every step computes all of its own."""
        return self.append + num_steps * self.step


@dataclass(frozen=True)
class Manifest:
    """The contract between an exported model and a robot.

    action: the one action space, of those the model was trained on, that this bundle serves.
    chunk_len: frames per denoising. max_horizon: frames that may be asked for at once; the network itself has no limit.
    sigmas: K + 1 noise levels, strictly falling, last 0; step k goes from sigmas[k] to sigmas[k + 1].
    batches: candidates that one run of append and of the steps can take, from 1 up.
    precision: arithmetic of the graphs. weights_dtype: how the weight file stores them.
    graphs: file of each stage (denoiser/io.py). files: every file but this one.
    provenance: command, versions, data and measured quality; for people.
    trust, trust_integers: None until export/calibrate.py has fitted it, in floating point and in integers. quantization: None until export/quantize.py has.
    flops: None where the export did not tell them. proposals: None until export/proposals.py has learned them.
    """

    schema_version: int
    model_id: str
    preset: str
    camera: CameraSpec
    action: ActionSpec
    latents: LatentSpec
    history: HistorySpec
    network: NetworkSpec
    chunk_len: int
    max_horizon: int
    sigmas: tuple[float, ...]
    batches: tuple[int, ...]
    precision: Literal["fp32"]
    weights_dtype: str
    opset: int
    graphs: dict[str, str]
    files: dict[str, FileSpec]
    golden: GoldenSpec
    provenance: dict[str, Any]
    trust: TrustSpec | None = None
    trust_integers: TrustSpec | None = None
    quantization: QuantizationSpec | None = None
    flops: FlopsSpec | None = None
    proposals: ProposalsSpec | None = None

    def __post_init__(self) -> None:
        _require_counts(self, "chunk_len", "max_horizon", "opset")
        _require_sigmas(self.sigmas)
        _require_batches(self.batches)
        optional = set(comparison_specs(self.dims))
        schema.require_names("graphs", set(self.graphs) - optional, set(self.graph_specs) - optional)
        _require_files(self)

    @property
    def num_steps(self) -> int:
        """K, the denoising steps of one chunk."""
        return len(self.sigmas) - 1

    def tolerance(self, precision: str) -> float:
        """Largest relative error of arithmetic below the graphs' own."""
        if precision.startswith("int8") and self.quantization is not None:
            return self.quantization.tolerance
        return self.golden.reduced_tolerance

    @property
    def dims(self) -> ModelDims:
        """The sizes that fix every tensor of the bundle (denoiser/io.py)."""
        return ModelDims(
            image_height=self.camera.height,
            image_width=self.camera.width,
            latent_channels=self.latents.channels,
            latent_height=self.latents.height,
            latent_width=self.latents.width,
            chunk_len=self.chunk_len,
            num_features=self.action.num_features,
            history_tokens=self.history.num_tokens,
            **asdict(self.network),
        )

    @property
    def graph_specs(self) -> dict[str, GraphSpec]:
        """Inputs and outputs of every graph."""
        optional = {name: spec for name, spec in comparison_specs(self.dims).items() if name in self.graphs}
        return {**graph_specs(self.dims, self.num_steps, self.batches), **optional}

    def with_batches(self, batches: tuple[int, ...]) -> Manifest:
        """As if the bundle had been exported for these of its batches alone."""
        every, kept = (graph_specs(self.dims, self.num_steps, some) for some in (self.batches, batches))
        graphs = {name: file for name, file in self.graphs.items() if name in kept or name not in every}
        return replace(self, batches=batches, graphs=graphs)

    def trust_for(self, precision: str) -> TrustSpec | None:
        """What was fitted for what runs in this precision, or else for another: of usual pictures it tells nevertheless."""
        # Before there were two, a fit in integers was the one there was: a newer one stands beside it.
        fitted = [spec for spec in (self.trust_integers, self.trust) if spec is not None]
        return next((spec for spec in fitted if spec.is_for(precision)), fitted[0] if fitted else None)

    def to_json(self) -> str:
        fields = asdict(self)
        # Whoever knows of one camera and one fit only can read it.
        if not self.camera.names:
            del fields["camera"]["names"]
        for later in ("trust_integers", "proposals"):
            if fields[later] is None:
                del fields[later]
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and check. Raises BundleError."""
        try:
            document = schema.parse(text)
            schema.require_version(document, SCHEMA_VERSION)
            return schema.decode(cls, document)
        except ValueError as error:
            raise BundleError(str(error)) from error


def _require_counts(spec: Any, *names: str) -> None:
    for name in names:
        if not 1 <= getattr(spec, name) <= _MAX_COUNT:
            raise ValueError(f"{name}: expected 1..{_MAX_COUNT}, found {getattr(spec, name)}")


def _require_sigmas(sigmas: tuple[float, ...]) -> None:
    falls = all(high > low for high, low in pairwise(sigmas))
    if len(sigmas) < 2 or not falls or sigmas[-1] != 0 or sigmas[0] > 1:
        raise ValueError(f"sigmas: expected numbers falling from at most 1 to 0, found {list(sigmas)[:9]}")


def _require_batches(batches: tuple[int, ...]) -> None:
    grows = all(small < large for small, large in pairwise(batches))
    if not batches or batches[0] != 1 or not grows or batches[-1] > MAX_BATCH:
        raise ValueError(
            f"batches: expected numbers rising from 1 to at most {MAX_BATCH}, found {list(batches)[:9]}"
        )


def _require_files(manifest: Manifest) -> None:
    for name in manifest.files:
        if not _PLAIN_FILE_NAME.fullmatch(name) or name == "manifest.json":
            raise ValueError(f"files: expected plain names of files inside the bundle, found {name[:80]!r}")
    named = {f"graphs.{graph}": file for graph, file in manifest.graphs.items()}
    named["golden.file"] = manifest.golden.file
    for field in ("trust", "trust_integers", "quantization", "proposals"):
        if (spec := getattr(manifest, field)) is not None:
            named[f"{field}.file"] = spec.file
    for field, name in named.items():
        if name not in manifest.files:
            raise ValueError(f"{field}: expected one of the bundle's files, found {name[:80]!r}")
