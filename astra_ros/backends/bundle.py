"""A bundle: a folder with manifest.json, one ONNX graph per stage, one weight file and golden vectors.

Loading verifies that every file is exactly the one that was exported. Nothing in a bundle is executed as code.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError, FileSpec, Manifest

__all__ = [
    "MANIFEST_FILE",
    "Bundle",
    "BundleError",
    "Manifest",
    "describe_file",
    "is_bundle",
    "load_bundle",
    "replace_file",
    "restored_on_error",
    "shipped_bundle",
    "weight_files",
    "write_manifest",
]

MANIFEST_FILE = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
# As protobuf writes an entry of an ONNX tensor's external_data: "location" as its first field, then the name as its second.
_LOCATION = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)
_FIX = "restore it (git checkout -- FOLDER) or export it again: python -m export.to_onnx CHECKPOINT --space SPACE --out"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    root: real folder of the files. sha256: digest of manifest.json, which holds the digests of all the others.
    """

    root: Path
    manifest: Manifest
    sha256: str

    def file(self, name: str) -> Path:
        """A verified file by its name in the manifest."""
        return self.root / name

    def graph(self, name: str) -> Path:
        """The ONNX file of a stage."""
        return self.file(self.manifest.graphs[name])


def shipped_bundle(name: str = "tiny") -> Path:
    """Folder of a bundle that is installed with the package."""
    return Path(str(files("astra_ros") / "bundles" / name))


def load_bundle(path: Path | str) -> Bundle:
    """Read the manifest and verify presence, size and sha256 of every file, those of the graphs' weights among them.

    The folder may be linked file by file (colcon build --symlink-install): the real folder is the manifest's.
    Raises BundleError.
    """
    folder = Path(path).expanduser()  # a launch argument's ~ is expanded by no shell
    try:
        raw, root = _read_manifest(folder)
        manifest = _parsed(raw)
        for name, spec in manifest.files.items():
            _verify(root / name, spec)
        for name in manifest.graphs.values():
            _require_listed(root / name, manifest)
    except OSError as error:
        raise BundleError(
            f"{folder}: cannot be read ({error}); make it readable or {_FIX} {folder}"
        ) from error
    except ValueError as error:
        raise BundleError(f"{folder}: {error}; {_FIX} {folder}") from error
    return Bundle(root, manifest, hashlib.sha256(raw).hexdigest())


def is_bundle(folder: Path) -> bool:
    """Whether the folder holds a bundle's manifest, of any version; a manifest.json of another program does not count."""
    try:
        document = json.loads(_read_manifest(folder)[0])
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"schema_version", "graphs"} <= document.keys()


def weight_files(graph: Path) -> set[str]:
    """Names of the files that an ONNX graph takes weights from. Robots run graphs without the package that parses them."""
    raw = graph.read_bytes()
    found = ((match.end(), match[1][0]) for match in _LOCATION.finditer(raw))
    return {raw[start : start + length].decode(errors="replace") for start, length in found}


def describe_file(path: Path) -> FileSpec:
    """The manifest's entry for a file that was just written."""
    return FileSpec(_sha256(path), path.stat().st_size)


def replace_file(path: Path, raw: bytes) -> None:
    """Write a file in one step. A reader, or an interruption, finds the old file or the new one, never a part of one."""
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_bytes(raw)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_manifest(root: Path, manifest: Manifest) -> Bundle:
    """Complete a bundle whose other files are in place, then load it as a robot would."""
    replace_file(root / MANIFEST_FILE, manifest.to_json().encode())
    return load_bundle(root)


@contextmanager
def restored_on_error(bundle: Bundle, name: str) -> Iterator[None]:
    """For changes of one file and of the manifest that names it: an error or interruption inside restores both."""
    file, manifest = bundle.file(name), bundle.root / MANIFEST_FILE
    before = file.read_bytes() if file.exists() else None
    # As it stands: written anew by this version, it might have another digest.
    said = manifest.read_bytes()
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True) if before is None else replace_file(file, before)
        replace_file(manifest, said)
        raise


def _read_manifest(folder: Path) -> tuple[bytes, Path]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise BundleError(f"expected a bundle folder with {MANIFEST_FILE}, found {_what_is(folder)}")
    size = path.stat().st_size
    if size > _MAX_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE}: expected at most {_MAX_MANIFEST_BYTES} bytes, found {size}")
    return path.read_bytes(), path.resolve().parent


def _parsed(raw: bytes) -> Manifest:
    try:
        return Manifest.from_json(raw.decode())
    except ValueError as error:
        raise BundleError(f"{MANIFEST_FILE}: {error}") from error


def _what_is(folder: Path) -> str:
    if not folder.exists():
        return "no such folder"
    return "a folder without it" if folder.is_dir() else "a file"


def _verify(path: Path, spec: FileSpec) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise BundleError(f"{path.name}: expected {spec.bytes} bytes, found no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path.name}: expected a plain file, found a link, folder or device")
    if status.st_size != spec.bytes:
        raise BundleError(f"{path.name}: expected {spec.bytes} bytes, found {status.st_size}")
    found = _sha256(path)
    if found != spec.sha256:
        raise BundleError(f"{path.name}: expected sha256 {spec.sha256[:12]}…, found {found[:12]}…")


def _require_listed(graph: Path, manifest: Manifest) -> None:
    """Weights in a file that the manifest does not list would be verified by nobody."""
    if unlisted := sorted(weight_files(graph) - manifest.files.keys()):
        raise BundleError(
            f"{graph.name}: expected weights in files that the manifest lists, found {unlisted[0][:80]!r}; {EXPORT_AGAIN}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
