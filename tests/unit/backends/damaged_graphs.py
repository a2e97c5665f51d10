"""A program: opens a bundle with graphs damaged at random, in every way the same for a seed. Anything but a refusal ends it.

    python -m tests.unit.backends.damaged_graphs BUNDLE BACKEND SEED TRIES

BUNDLE is changed. Prints how many were refused.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import BundleError, describe_file, load_bundle, write_manifest
from astra_ros.backends.factory import open_backend

GRAPHS = ("encode.onnx", "step_0.onnx", "append.onnx")


def is_refused(folder: Path, name: str, raw: bytes, backend: str) -> bool:
    """With this graph instead, which its manifest vouches for. Golden vectors are checked as on a robot."""
    bundle, file = load_bundle(folder), folder / name
    original = file.read_bytes()
    try:
        file.write_bytes(raw)
        files = bundle.manifest.files | {name: describe_file(file)}
        damaged = write_manifest(folder, replace(bundle.manifest, files=files))
        with open_backend(damaged, backend, precision="fp32"):
            return False
    except (BundleError, BackendError) as error:
        if "\n" in str(error):
            raise
        return True
    finally:
        file.write_bytes(original)
        write_manifest(folder, bundle.manifest)


def main(folder: str, backend: str, seed: str, tries: str) -> None:
    chance, refused = random.Random(int(seed)), 0
    for number in range(int(tries)):
        name = GRAPHS[number % len(GRAPHS)]
        raw = bytearray((Path(folder) / name).read_bytes())
        for _ in range(chance.choice((1, 4, 32))):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        print(f"{number} {name}", file=sys.stderr, flush=True)  # names the one that ends the process
        refused += is_refused(Path(folder), name, bytes(raw), backend)
    print(refused)


if __name__ == "__main__":
    main(*sys.argv[1:])
