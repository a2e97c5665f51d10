"""A picture → a vector of what it shows, by a network that export/perceptual.py wrote. Beside a bundle, not part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from astra_ros.backends.manifest import BundleError
from astra_ros.types import ByteArray, FloatArray

INPUT, OUTPUT = "pixels", "features"
_ERRORS_ONLY = 3


class PictureEncoder:
    """Squared distances of its vectors compare pictures. Raises BundleError for a file that is no such network."""

    def __init__(self, file: Path, num_threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions share no base class
            raise BundleError(
                f"{file}: expected a network that encodes pictures, found none ({error}); {_FIX}"
            ) from error
        (given, *more), names = self._session.get_inputs(), [one.name for one in self._session.get_outputs()]
        if more or (given.name, names) != (INPUT, [OUTPUT]) or len(given.shape) != 4:
            raise BundleError(f"{file}: expected {INPUT} to {OUTPUT}, found {given.name} to {names}; {_FIX}")
        self._file, self._shape = file, tuple(given.shape)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures it takes."""
        return self._shape[2], self._shape[3]

    def __call__(self, picture: ByteArray) -> FloatArray:
        """(h, w, 3) uint8 → (p,). Raises ValueError for another size than the network's."""
        pixels = np.moveaxis(picture.astype(np.float32) / 255, -1, 0)[None]
        if pixels.shape != self._shape:
            raise ValueError(
                f"{self._file}: expected pictures of {self._shape[2]} x {self._shape[3]}, found"
                f" {picture.shape[0]} x {picture.shape[1]}; {_FIX}"
            )
        features: FloatArray = self._session.run([OUTPUT], {INPUT: pixels})[0][0]
        return features


_FIX = "make it: python -m export.perceptual BUNDLE --out FILE"
