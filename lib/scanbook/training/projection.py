"""Rows of features in files, and their projection to principal axes, a few thousand rows in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from scanbook import runtime

_CHUNK = 4096


@dataclass(frozen=True)
class Rows:
    """Rows of several arrays in sequence, of which a few thousand at a time are in memory.

    Attributes:
        parts: Arrays, float32 `(n, channels)`, usually memory maps, each with the places of its rows, int `(m,)`.
    """

    parts: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of channels."""
        return sum(len(places) for _, places in self.parts), self.parts[0][0].shape[1]

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the rows in their order, float32 `(at most 4096, channels)`."""
        for array, places in self.parts:
            for start in range(0, len(places), _CHUNK):
                yield array[places[start : start + _CHUNK]]

    def project(self, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """Return `(x - mean) @ axes` of all rows, float32, in an unnamed file of the store that ends with the array."""
        count, _ = self.shape
        runtime.store_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runtime.store_dir()) as file:
            projected = np.memmap(file, np.float32, "w+", shape=(count, axes.shape[1]))
        start = 0
        for chunk in self.chunks():
            projected[start : start + len(chunk)] = (chunk - mean) @ axes
            start += len(chunk)
        return projected


def principal_axes(x: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of features, and the matrix that standardises them and projects them to their principal axes.

    Returns:
        float32 `(channels,)` and float32 `(channels, axes)`: as many axes as channels, or as rows if these are
        fewer: on the other axes all rows are 0.
    """
    count, channels = x.shape
    if count < channels:
        whole = np.concatenate(list(x.chunks()))
        mean, deviation = whole.mean(0), whole.std(0) + 1e-3
        axes = PCA(svd_solver="full").fit((whole - mean) / deviation).components_
        return mean, (axes.T / deviation[:, None]).astype(np.float32)
    origin = next(x.chunks()).mean(0)  # sums about it lose no digits
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for chunk in x.chunks():
        shifted = chunk - origin
        total += shifted.sum(0, dtype=np.float64)
        products += shifted.T @ shifted
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0)) + 1e-3
    _, axes = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    return (origin + mean).astype(np.float32), (axes[:, ::-1] / deviation[:, None]).astype(np.float32)
