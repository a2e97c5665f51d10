"""Everything that `astra bench` can time, by name: GROUP/RUNTIME/WHAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from astra_ros.backends.base import Backend
from astra_ros.backends.manifest import FlopsSpec
from astra_ros.benchmarking.candidates import WAYS, Ranking, Way
from astra_ros.benchmarking.chunk import SCHEMES, Scheme, chunk_flops, chunk_subject, repeated_flops
from astra_ros.benchmarking.interleaving import Subject
from astra_ros.benchmarking.runtimes import COMPARED_ON, SERVED
from astra_ros.benchmarking.scene import Scene
from astra_ros.benchmarking.stages import stage_flops, stage_subject
from astra_ros.benchmarking.stream import stream_subject
from astra_ros.denoiser.io import graph_specs

_CHUNKS: dict[str, tuple[Scheme, ...]] = {
    "torch": SCHEMES,
    "torch.compile": ("append",),
    "torch-sleeping": ("append",),
    "onnxruntime-defaults": ("append",),
    "onnxruntime": ("append",),
    "openvino-fp32": ("append",),
    "openvino-bf16": ("append",),
    "openvino-int8": ("append",),
    "openvino-int8_bf16": ("append",),
    SERVED: SCHEMES,
    "cuda": SCHEMES,
    "cuda.compile": ("append",),
    "cuda.graph": ("append",),
    "tensorrt": ("append",),
    "tensorrt_rtx": ("append",),
}
# The first: as the node runs.
FOOTPRINTS = ("footprint/auto", "footprint/onnxruntime", "footprint/openvino", "footprint/torch")


@dataclass(frozen=True)
class Entry:
    """build: the subject of this name on an open backend.

    flops: of one unit; None where they are unknown or not the denoiser's alone. repeated: of them, what a runtime that computes
    a plan once per chunk does not do.
    """

    name: str
    runtime: str
    build: Callable[[str, Backend], Subject]
    flops: int | None = None
    repeated: int = 0


def entries(scene: Scene, num_candidates: int, flops: FlopsSpec | None) -> list[Entry]:
    """Of a bundle, as they are reported; peaks and footprints are not among them."""
    return [
        *_chunks("latents", scene, flops),
        *_chunks("pixels", scene, None),
        *_stages(scene, flops),
        *_candidates(scene, num_candidates),
        *_streams(scene),
    ]


def reference_of(name: str, device: str) -> str | None:
    """What a subject is compared with: the naive chunk on the same device, or separate runs of candidates."""
    group, runtime, _ = name.split("/")
    if group == "candidates":
        return f"{group}/{runtime}/separate"
    naive = "cuda" if device.startswith("cuda") else "torch"
    return f"{group}/{naive}/recompute" if group in ("latents", "pixels") else None


def _chunks(group: str, scene: Scene, flops: FlopsSpec | None) -> Iterator[Entry]:
    def entry(runtime: str, scheme: Scheme) -> Entry:
        def build(name: str, backend: Backend) -> Subject:
            return chunk_subject(name, backend, scheme, scene, with_codec=group == "pixels")

        name, steps = f"{group}/{runtime}/{scheme}", scene.manifest.num_steps
        if flops is None:
            return Entry(name, runtime, build)
        return Entry(name, runtime, build, chunk_flops(scheme, flops, steps), repeated_flops(flops, steps))

    return (entry(runtime, scheme) for runtime, schemes in _CHUNKS.items() for scheme in schemes)


def _stages(scene: Scene, flops: FlopsSpec | None) -> Iterator[Entry]:
    """Comparison graphs, and the steps beside them, where all run in the precision of the graphs."""

    def entry(runtime: str, graph: str) -> Entry:
        def build(name: str, backend: Backend) -> Subject:
            return stage_subject(name, backend, graph)

        work = None if flops is None else stage_flops(graph, flops)
        return Entry(f"stages/{runtime}/{graph}", runtime, build, work)

    manifest = scene.manifest
    served = graph_specs(manifest.dims, manifest.num_steps, manifest.batches)
    yield from (entry(SERVED, graph) for graph in served)
    if comparisons := [graph for graph in manifest.graph_specs if graph not in served]:
        steps = [f"step_{k}" for k in range(manifest.num_steps)]
        yield from (entry(COMPARED_ON, graph) for graph in (*steps, *comparisons))


def _candidates(scene: Scene, count: int) -> Iterator[Entry]:
    def entry(kind: str, way: Way) -> Entry:
        def build(name: str, backend: Backend) -> Subject:
            return Ranking(backend, scene, count).subject(name, way, with_frames=kind == "frames")

        return Entry(f"candidates/{kind}/{way}", SERVED, build)

    return (entry(kind, way) for kind in ("latents", "frames") for way in WAYS)


def _streams(scene: Scene) -> Iterator[Entry]:
    def entry(horizon: int) -> Entry:
        def build(name: str, backend: Backend) -> Subject:
            return stream_subject(name, backend, scene, horizon)

        return Entry(f"stream/{SERVED}/{horizon}", SERVED, build)

    return map(entry, sorted({scene.manifest.chunk_len, scene.manifest.max_horizon}))
