"""Bundle → a TensorRT engine for each of its graphs, and engines.json, which says what they are.

Run as `python -m export.build_trt astra_ros/bundles/tiny --precision fp16 --sm 86 --sm 89`. With tensorrt_rtx no GPU is
needed: its engines are compiled on the robot when they are loaded. The bundle's own files stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

if not __package__:  # run as a script: its own folder is on the path, the repository is not
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from astra_ros.backends import cuda
from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle, describe_file, load_bundle
from astra_ros.backends.engines import (
    ENGINES_FOLDER,
    SCHEMA_VERSION,
    SIDECAR_FILE,
    EngineSet,
    EngineSpec,
    build_command,
    require_fit,
)
from astra_ros.backends.manifest import Manifest
from astra_ros.backends.tensorrt_library import Library, open_library
from astra_ros.cli.options import add_json, require_json_folder
from astra_ros.cli.signals import ended_by_sigterm

try:
    from export.engine_builder import FIRST_COMPLETE_SM, BuildConfig, EngineBuilder
    from export.engine_weights import SHARED_WEIGHTS_FILE, SharedWeights
    from export.folders import replaced_folder
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[trt]'") from error

_HEARTBEAT_S = 3.0


def build_engines(bundle: Bundle, config: BuildConfig, out: Path | None = None) -> tuple[Path, EngineSet]:
    """Build into a folder of its own in `out` (default: BUNDLE/engines), replacing one that is there.

    Raises BackendError when the library or the GPU it needs is missing, ValueError when it cannot build what is asked.
    """
    library = open_library(config.runtime)
    config = replace(config, targets=_possible_targets(library, bundle, config))
    graphs = _possible_graphs(bundle.manifest, config.candidates)
    draft = _draft(library, bundle, config)
    place = (out or bundle.root / ENGINES_FOLDER) / draft.folder_name
    if place.exists() and not (place / SIDECAR_FILE).is_file():
        raise FileExistsError(
            f"{place}: expected engines to replace or nothing, found something else; choose another --out"
        )
    with replaced_folder(place) as folder:
        built = _build_all(library, bundle, config, graphs, folder)
        files = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
        engines = replace(draft, engines=built, files=files)
        require_fit(engines, bundle)
        (folder / SIDECAR_FILE).write_text(engines.to_json())
    return place, engines


def main(arguments: list[str] | None = None) -> int:
    """Build; 0 on success, else 1 and one line on stderr."""
    options = _parser().parse_args(arguments)
    started = perf_counter()
    config = BuildConfig(
        options.runtime,
        options.precision,
        tuple(sorted(set(options.sm))),
        options.weights_as_inputs,
        options.candidates,
    )
    try:
        require_json_folder(options)
        folder, engines = build_engines(load_bundle(options.bundle), config, options.out)
        if options.json:
            report = {"folder": str(folder), "seconds": round(perf_counter() - started, 1)}
            options.json.write_text(json.dumps({**report, **json.loads(engines.to_json())}, indent=1) + "\n")
    except (BackendError, OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    total = sum(spec.bytes for spec in engines.files.values())
    seconds = perf_counter() - started
    print(f"{folder}: {len(engines.engines)} engines, {total / 1e6:.1f} MB, {seconds:.0f} s")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.build_trt",
        description="Build a TensorRT engine for every graph of a bundle. tensorrt_rtx needs no GPU for it.",
        epilog="example: python -m export.build_trt astra_ros/bundles/tiny --precision fp16 --sm 86 --sm 89",
    )
    default = BuildConfig()
    parser.add_argument("bundle", type=Path, help="bundle folder; its files stay as they are")
    parser.add_argument(
        "--precision",
        choices=["fp32", "fp16", "bf16"],
        default=default.precision,
        help="default: %(default)s",
    )
    parser.add_argument(
        "--sm",
        type=int,
        action="append",
        default=[],
        metavar="NN",
        help="GPU to build for, 86 for compute capability 8.6; may be given again (default: tensorrt_rtx chooses,"
        " tensorrt takes the GPU that is present)",
    )
    parser.add_argument(
        "--runtime",
        choices=["tensorrt", "tensorrt_rtx"],
        default=default.runtime,
        help="default: %(default)s",
    )
    parser.add_argument(
        "--weights-as-inputs",
        action="store_true",
        help="one copy of the weights for all engines of the bundle",
    )
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="of the graphs for candidates side by side, those for N; 0: none, they then run one after another"
        " (default: the most that the bundle has graphs for)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the folder of engines goes (default: BUNDLE/engines)"
    )
    add_json(parser)
    return parser


def _possible_targets(library: Library, bundle: Bundle, config: BuildConfig) -> tuple[int, ...]:
    """The SMs to build for. Raises ValueError when one of them cannot be had."""
    asked, known = config.targets, library.targets
    if library.name == "tensorrt":  # it times kernels on the GPU that will run them
        known = (cuda.present_sm(),)
        asked = asked or known
    if unknown := sorted(set(asked) - set(known)):
        other = build_command(bundle.root, "tensorrt", config.precision)
        raise ValueError(
            f"--sm {unknown[0]}: {library.name} {library.version} builds for SM {', '.join(map(str, known))} only;"
            f" on a machine with that GPU and the package tensorrt: {other}"
        )
    if not replace(config, targets=asked).has_products_in(config.precision):
        other = build_command(bundle.root, library.name, "fp16", [min(asked)])
        raise ValueError(
            f"--precision {config.precision}: expected SM {FIRST_COMPLETE_SM} or newer, found {min(asked)}, for which"
            f" {library.name} has no {config.precision} products; {other}"
        )
    return asked


def _possible_graphs(manifest: Manifest, candidates: int | None) -> list[str]:
    """Those to build engines of. Raises ValueError when the bundle has none for so many candidates side by side."""
    known = manifest.batches
    if candidates is None:
        candidates = known[-1]
    if candidates not in (0, *known):
        raise ValueError(
            f"--candidates: expected 0 or one of the bundle's batches {', '.join(map(str, known))}, found {candidates};"
            " export the bundle for others: python -m export.to_onnx CHECKPOINT --space SPACE --out BUNDLE --candidates N"
        )
    return list(manifest.with_batches(tuple(sorted({1, candidates or 1}))).graph_specs)


def _draft(library: Library, bundle: Bundle, config: BuildConfig) -> EngineSet:
    """Complete but for the engines and their files."""
    return EngineSet(
        schema_version=SCHEMA_VERSION,
        bundle_sha256=bundle.sha256,
        model_id=bundle.manifest.model_id,
        runtime=library.name,
        version=library.version,
        targets=config.targets,
        precision=config.precision,
        weights=SHARED_WEIGHTS_FILE if config.weights_as_inputs else "",
        engines={},
        files={},
    )


def _build_all(
    library: Library, bundle: Bundle, config: BuildConfig, graphs: list[str], folder: Path
) -> dict[str, EngineSpec]:
    built = {}
    sharing = SharedWeights(folder / SHARED_WEIGHTS_FILE) if config.weights_as_inputs else nullcontext()
    with sharing as weights:
        builder = EngineBuilder(library, bundle, config, weights)
        for number, graph in enumerate(graphs, start=1):
            label, started = f"[{number}/{len(graphs)}] {graph}", perf_counter()
            with _heartbeat(label):
                raw, built[graph] = builder.build(graph)
            (folder / built[graph].file).write_bytes(raw)
            print(f"{label}: {len(raw) / 1e6:.1f} MB, {perf_counter() - started:.1f} s", flush=True)
    return built


@contextmanager
def _heartbeat(label: str) -> Iterator[None]:
    """A line every few seconds while TensorRT is silent."""
    is_done, started = Event(), perf_counter()

    def speak() -> None:
        while not is_done.wait(_HEARTBEAT_S):
            print(f"{label}: building for {perf_counter() - started:.0f} s", flush=True)

    speaker = Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_done.set()
        speaker.join()


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
