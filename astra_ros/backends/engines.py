"""engines.json: what a folder of TensorRT engines was built from, with and for. TensorRT is not needed to read it.

A bundle keeps its engines apart from the files that its manifest covers, one folder per library version, precision and
set of GPUs: BUNDLE/engines/tensorrt_rtx-1.7.1.116-fp16-sm86-sm89/.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from astra_ros.backends import schema
from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle, weight_files
from astra_ros.backends.manifest import BundleError, FileSpec

ENGINES_FOLDER = "engines"
SIDECAR_FILE = "engines.json"
SCHEMA_VERSION = 1

Runtime = Literal["tensorrt", "tensorrt_rtx"]
Precision = Literal["fp32", "fp16", "bf16"]
DType = Literal["float32", "float16", "bfloat16"]
FASTEST_FIRST: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
ITEM_BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "bfloat16": 2}

_MAX_SIDECAR_BYTES = 4 << 20
_MAX_COUNT = 1 << 40
_MAX_AXES = 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){1,5}(\.?(post|dev|a|b|rc)\d{1,6}){0,4}")
# Engines that name no GPU run on these, and on SM 120 and later (TensorRT-RTX documentation, "compute capabilities").
_DEFAULT_TARGETS = (80, 86, 89)
_FIRST_OPEN_TARGET = 120


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: DType

    def __post_init__(self) -> None:
        if len(self.shape) > _MAX_AXES or not all(1 <= size < _MAX_COUNT for size in self.shape):
            raise ValueError(
                f"shape: expected up to {_MAX_AXES} sizes of 1 or more, found {_short(self.shape)}"
            )


@dataclass(frozen=True)
class WeightSpec:
    """A weight that is an input of the network: where it lies in the folder's weight file."""

    shape: tuple[int, ...]
    dtype: DType
    offset: int
    bytes: int

    def __post_init__(self) -> None:
        size = ITEM_BYTES[self.dtype]
        for axis in TensorSpec(self.shape, self.dtype).shape:
            size *= axis
        if self.bytes != size:
            raise ValueError(
                f"bytes: expected {_short(size)} for {self.shape} {self.dtype}, found {_short(self.bytes)}"
            )
        if not 0 <= self.offset < _MAX_COUNT:
            raise ValueError(f"offset: expected 0 or more, found {_short(self.offset)}")


@dataclass(frozen=True)
class EngineSpec:
    """One engine.

    batch: candidates side by side. sources: sha256 of the bundle's files it was built from.
    products: matrix products and convolutions of the network by the dtype they run in.
    inputs, outputs: of the graph. weights: further inputs, by name; empty when the engine holds its weights itself.
    """

    file: str
    batch: int
    sources: dict[str, str]
    products: dict[str, int]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    weights: dict[str, WeightSpec]

    def __post_init__(self) -> None:
        if not 1 <= self.batch < _MAX_COUNT:
            raise ValueError(f"batch: expected 1 or more, found {_short(self.batch)}")


@dataclass(frozen=True)
class EngineSet:
    """The contract between a folder of engines and the machine that is to run them.

    bundle_sha256: the bundle as it was when they were built; what was added to it since does not concern them.
    runtime, version: library that built them and that alone can run them.
    targets: SMs they were built for, 86 for compute capability 8.6; empty: the library's own choice.
    precision: lowest arithmetic in the networks. weights: file that engines share their weights in; "": there is none.
    files: every file of the folder but this one.
    """

    schema_version: int
    bundle_sha256: str
    model_id: str
    runtime: Runtime
    version: str
    targets: tuple[int, ...]
    precision: Precision
    weights: str
    engines: dict[str, EngineSpec]
    files: dict[str, FileSpec]

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.version):
            raise ValueError(
                f"version: expected one such as 10.13.3.9 or 10.13.3.9.post1, found {self.version[:80]!r}"
            )
        if not all(1 <= target < 1000 for target in self.targets):
            raise ValueError(f"targets: expected SMs such as 86, found {_short(self.targets)}")
        for name in self.files:
            if not _NAME.fullmatch(name) or name == SIDECAR_FILE:
                raise ValueError(f"files: expected plain names of files of the folder, found {name[:80]!r}")
        for graph, engine in self.engines.items():
            _require_listed(self, f"engines.{graph[:80]}.file", engine.file)
            for weight, spec in engine.weights.items():
                where = f"engines.{graph[:80]}.weights.{weight[:80]}"
                file = _require_listed(self, where, self.weights)
                if spec.offset + spec.bytes > file.bytes:
                    raise ValueError(f"{where}: expected to end within {file.bytes} bytes of {self.weights}")

    @property
    def folder_name(self) -> str:
        """Such as tensorrt_rtx-1.7.1.116-fp16-sm86-sm89, or …-any."""
        targets = [f"sm{target}" for target in self.targets] or ["any"]
        shared = ["shared"] if self.weights else []
        return "-".join([self.runtime, self.version, self.precision, *targets, *shared])

    @property
    def batches(self) -> tuple[int, ...]:
        """Candidates side by side that there are engines for, from 1 up."""
        return tuple(sorted({1, *(engine.batch for engine in self.engines.values())}))

    def runs_on(self, sm: int) -> bool:
        return sm in self.targets if self.targets else sm in _DEFAULT_TARGETS or sm >= _FIRST_OPEN_TARGET

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EngineSet:
        """Parse and check. Raises ValueError."""
        document = schema.parse(text)
        schema.require_version(document, SCHEMA_VERSION)
        return schema.decode(cls, document)


# A folder and what it says of itself.
Found = tuple[Path, EngineSet]


def build_command(bundle: Path, runtime: str, precision: str = "", targets: Sequence[int] = ()) -> str:
    """The line that makes the engines that are missing. targets: SMs; none: the library's own choice."""
    options = [
        f"--runtime {runtime}",
        f"--precision {precision}" if precision else "",
        *(f"--sm {target}" for target in targets),
    ]
    return " ".join(["python -m export.build_trt", shlex.quote(str(bundle)), *filter(None, options)])


def rebuild_command(folder: Path, engines: EngineSet) -> str:
    """The line that makes the engines of BUNDLE/engines/FOLDER once more."""
    command = build_command(folder.parents[1], engines.runtime, engines.precision, engines.targets)
    return f"{command} --candidates {engines.batches[-1]}{' --weights-as-inputs' * bool(engines.weights)}"


def find_engines(bundle: Bundle, runtime: Runtime, version: str, sm: int, precision: str = "") -> list[Found]:
    """The engines of a bundle that this machine can run, fastest first: of this library version, for a GPU of this SM.

    precision: "" takes any. Raises BackendError, which says what was found instead, when there are none.
    """
    found: list[Found] = []
    refused: list[str] = []
    for path in sorted((bundle.root / ENGINES_FOLDER).glob(f"*/{SIDECAR_FILE}")):
        try:
            engines = read_sidecar(path.parent)
            _require_machine(engines, runtime, version, sm, precision)
            require_fit(engines, bundle)
            found.append((path.parent, engines))
        except ValueError as error:
            refused.append(f"{path.parent.name} ({str(error)[:200]})")
    if not found:
        wanted = f"{runtime} {version}{precision and ' in '}{precision} for SM {sm}"
        # Newer GPUs than the library knows by name run the engines that name none.
        targets = [sm] if runtime == "tensorrt_rtx" and sm < _FIRST_OPEN_TARGET else []
        raise BackendError(
            f"{bundle.root / ENGINES_FOLDER}: expected engines of {wanted}, found {'; '.join(refused) or 'none'};"
            f" {build_command(bundle.root, runtime, precision, targets)}"
        )
    return sorted(found, key=lambda each: (FASTEST_FIRST.index(each[1].precision), bool(each[1].weights)))


def read_sidecar(folder: Path) -> EngineSet:
    """Raises BundleError."""
    path = folder / SIDECAR_FILE
    try:
        return EngineSet.from_json(_read_file(path, _MAX_SIDECAR_BYTES).decode())
    except (OSError, ValueError) as error:
        runtime = "tensorrt" if folder.name.startswith("tensorrt-") else "tensorrt_rtx"
        raise BundleError(
            f"{path}: {error}; build the engines again: {build_command(folder.parents[1], runtime)}"
        ) from error


def require_fit(engines: EngineSet, bundle: Bundle) -> None:
    """Raises ValueError unless there is one engine per graph, made of this bundle's files, with the graph's inputs and outputs.

    Those of candidates side by side may be missing, of a batch all or none.
    """
    if not set(engines.batches) <= set(bundle.manifest.batches):
        raise ValueError(
            f"engines: expected batches among {bundle.manifest.batches}, found {_short(engines.batches)}"
        )
    specs = bundle.manifest.with_batches(engines.batches).graph_specs
    schema.require_names("engines", set(engines.engines), set(specs))
    for graph, engine in engines.engines.items():
        _require_sources(graph, engine, bundle)
        for side, found, expected in (
            ("inputs", engine.inputs, specs[graph].inputs),
            ("outputs", engine.outputs, specs[graph].outputs),
        ):
            if found != {name: TensorSpec(shape, "float32") for name, shape in expected.items()}:
                raise ValueError(f"{graph} {side}: expected float32 {expected}, found {_short(found)}")


def checked_engines(bundle: Bundle) -> dict[str, str]:
    """Folders of a bundle's engines, for whatever machine, and what is wrong with each: "" where all is as it was built."""
    found = {}
    for path in sorted((bundle.root / ENGINES_FOLDER).glob(f"*/{SIDECAR_FILE}")):
        try:
            _require_as_built(path.parent, bundle)
            found[path.parent.name] = ""
        except BundleError as error:
            found[path.parent.name] = str(error)
    return found


def _require_as_built(folder: Path, bundle: Bundle) -> None:
    engines = read_sidecar(folder)
    try:
        require_fit(engines, bundle)
    except ValueError as error:
        raise BundleError(
            f"{folder / SIDECAR_FILE}: {error}; {build_command(bundle.root, engines.runtime)}"
        ) from error
    for name in engines.files:
        read_engine_file(folder, engines, name)


def read_engine_file(folder: Path, engines: EngineSet, name: str) -> bytes:
    """A file of the folder, exactly as it was built. Raises BundleError."""
    spec = engines.files[name]
    try:
        raw = _read_file(folder / name, spec.bytes)
        if len(raw) != spec.bytes:
            raise ValueError(f"expected {spec.bytes} bytes, found {len(raw)}")
        found = hashlib.sha256(raw).hexdigest()
        if found != spec.sha256:
            raise ValueError(f"expected sha256 {spec.sha256[:12]}…, found {found[:12]}…")
        if engines.runtime == "tensorrt_rtx" and name != engines.weights:
            check_header(raw, engines.version)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{folder / name}: {error}; build the engines again: {rebuild_command(folder, engines)}"
        ) from error
    return raw


def check_header(raw: bytes, version: str) -> None:
    """Raises ValueError unless `raw` begins as an engine of this version of TensorRT-RTX does and is complete.

    The layout is undocumented, read off engines of 1.7: bytes 0-3 "vtrt", 16-23 the file's size, 24-27 the version.
    """
    if len(raw) < 28 or raw[:4] != b"vtrt":
        raise ValueError(f"expected a TensorRT-RTX engine, which begins with b'vtrt', found {raw[:4]!r}")
    size = int.from_bytes(raw[16:24], "little")
    if size != len(raw):
        raise ValueError(f"expected {size} bytes (its header says), found {len(raw)}")
    expected = [int(number) % 256 for number in re.findall(r"\d+", version)[:4]]
    found = [str(number) for number in raw[24:28]]
    if found != [str(number) for number in expected]:
        raise ValueError(f"expected an engine of TensorRT-RTX {version}, found one of {'.'.join(found)}")


def _require_machine(engines: EngineSet, runtime: Runtime, version: str, sm: int, precision: str) -> None:
    if engines.runtime != runtime:
        raise ValueError(f"runtime: expected {runtime}, found {engines.runtime}")
    if engines.version != version:
        raise ValueError(f"version: expected {version}, which is installed, found {engines.version}")
    if not engines.runs_on(sm):
        raise ValueError(f"targets: expected SM {sm}, which is present, found {engines.targets or 'any'}")
    if precision and engines.precision != precision:
        raise ValueError(f"precision: expected {precision}, found {engines.precision}")


def _require_sources(graph: str, engine: EngineSpec, bundle: Bundle) -> None:
    manifest = bundle.manifest
    own = manifest.graphs[graph]
    for name in sorted({own, *weight_files(bundle.file(own)), *engine.sources}):
        expected = manifest.files[name].sha256 if name in manifest.files else None
        found = engine.sources.get(name)
        if expected is None or found != expected:
            raise ValueError(
                f"{graph} sources: expected {expected[:12] if expected else 'none'} for {name[:80]} (this bundle's), found"
                f" {found[:12] if found else 'none'!r}"
            )


def _read_file(path: Path, limit: int) -> bytes:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("expected a plain file, found a link, folder or device")
    if status.st_size > limit:
        raise ValueError(f"expected at most {limit} bytes, found {status.st_size}")
    return path.read_bytes()


def _require_listed(engines: EngineSet, field: str, name: str) -> FileSpec:
    if name not in engines.files:
        raise ValueError(f"{field}: expected one of the folder's files, found {name[:80]!r}")
    return engines.files[name]


def _short(value: Any) -> str:
    return str(value)[:80]
