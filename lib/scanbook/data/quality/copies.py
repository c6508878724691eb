"""Copies of images: exact ones, and near ones in eight orientations, recompressed, resized or trimmed.

Near-duplicates are found in two steps. First, a perceptual descriptor gives candidates: the lowest frequencies of the
cosine transform, made invariant to the eight orientations, of the whole image and of the image trimmed at its edges; a
k-d tree finds the nearest ones. Second, the pixels decide: the two images are aligned, and their details must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import KDTree

from scanbook import runtime
from scanbook.data.manifest import Manifest
from scanbook.data.quality.alignment import align, band, details, turn
from scanbook.data.quality.rules import BLANK_CONTRAST, flags
from scanbook.data.quality.scanning import SIDE, pictures, scan
from scanbook.store import stage

NEAR_CORRELATION = 0.89
"""Correlation of details from which a pair counts as near-duplicate."""
ORIENTATIONS = (
    *("as is", "rotated 90°", "rotated 180°", "rotated 90°"),
    *("mirrored", "transposed", "flipped", "transverse"),
)
"""Orientation of one image of a pair relative to the other, by the number that `alignment.turn` takes."""
COLUMNS = ["image_id", "other", "orientation", "overlap", "correlation"]

_TRIM = 0.05
_SPANS = ((0.0, 1.0), (_TRIM, 1.0), (0.0, 1 - _TRIM), (_TRIM / 2, 1 - _TRIM / 2))
# left, right, top and bottom of the window of an image; the last is trimmed at all four edges
_WINDOWS = (*((*x, *y) for x, y in product(_SPANS, _SPANS)), (_TRIM, 1 - _TRIM, _TRIM, 1 - _TRIM))
_FREQUENCIES = 7
_DIMENSIONS = 16
_NEIGHBOURS = 6  # requested from the tree for each window
_CANDIDATES = 8  # per image that are checked
# A branch of the tree is skipped unless it may hold a neighbour four times as near as the farthest so far. Copies are
# that near; an exact search takes too long among 200,000 images, where all others are at about the same distance.
_SLACK = 3.0
_REACH = 0.7  # farthest candidate, in root mean squared distances of the descriptors from their mean
# correlations that a pair must reach for the next check: of low frequencies, of half-size pictures, of bands
_ROUGH, _COARSE, _FINE = 0.93, 0.95, 0.90
_BLURRED = 0.95  # correlation that two blurred images must reach: without details, different images look alike
_RIVAL = 0.03  # a second orientation is tried when its low frequencies correlate nearly as well
# numbers in memory at a time: images whose copies are searched, candidate pairs, and pairs that are aligned
_IMAGES, _PAIRS, _CHUNK = 2000, 1024, 128
# (pixels, factor): the details of images with fewer pixels on their longer side are coarser by the factor
_SMALL = ((48, 1.6), (72, 1.25))


def exact_copies(quality: pd.DataFrame) -> pd.DataFrame:
    """Return byte-identical readable files: columns `image_id` and `copy_group`, the number of the group from 0."""
    readable = quality[quality["error"] == ""]
    copied = readable[readable["sha256"].duplicated(keep=False)]
    return pd.DataFrame({"image_id": copied["image_id"].to_numpy(), "copy_group": pd.factorize(copied["sha256"])[0]})


def copy_groups(frame: pd.DataFrame, exact: pd.DataFrame) -> pd.Series:
    """Return the `copy_group` of `exact_copies` of each image of a manifest's frame, NaN for one without a copy."""
    return frame["image_id"].map(exact.set_index("image_id")["copy_group"])


def near_copies(manifest: Manifest) -> pd.DataFrame:
    """Return pairs of images that show nearly the same and are not byte-identical.

    Copies may be in any of the eight orientations, recompressed, resized, brightened, trimmed by up to about 5 % at any
    edge, or several of these. Blank images are never near-duplicates, and two blurred images must agree better than
    others.

    Args:
        manifest: The dataset.

    Returns:
        One row per pair, in the manifest's order: `image_id`, `other`; their relative `orientation`, one of
        `ORIENTATIONS`; `overlap`, the share of the larger view that both show; `correlation` of their details.
    """

    def build(folder: Path) -> None:
        _near_copies(scan(manifest), pictures(manifest)).to_csv(folder / "pairs.csv", index=False)

    folder = stage("near_copies", {"manifest": manifest.fingerprint()}, build, __name__)
    return pd.read_csv(folder / "pairs.csv", dtype={"image_id": str, "other": str}, keep_default_na=False)


def across_splits(near: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return the near-duplicates with the labels and splits of both images, the serious pairs first.

    Returns:
        The pairs with `labels` and `splits` ("first / second", one word where they agree), `same_group`, `across`,
        whether the images are in different splits, and `conflict`, whether their labels differ: of findings, whether
        one is present and absent.
    """
    frame = manifest.frame.set_index("image_id")[["label", "split", "group"]]
    first, second = (frame.loc[near[name]].reset_index(drop=True) for name in ("image_id", "other"))
    table = near.reset_index(drop=True)
    for name in ("label", "split"):
        left, right = first[name].replace("", "none"), second[name].replace("", "none")
        table[f"{name}s"] = left.where(left == right, left + " / " + right)
    table["same_group"] = first["group"] == second["group"]
    table["across"] = (first["split"] != second["split"]) & (first["split"] != "") & (second["split"] != "")
    one, other = (manifest.labels_of(near[name]).values for name in ("image_id", "other"))
    table["conflict"] = (np.abs(one - other) == 1).any(axis=1)  # NaN, not labelled, agrees with both
    return table.sort_values(["across", "conflict"], ascending=False, kind="stable", ignore_index=True)


def near_sentence(near: pd.DataFrame, drop: Sequence[str], excluded: pd.DataFrame) -> str:
    """Return one or two sentences on the near-duplicates and on the effect of the study's `quality.drop`.

    Args:
        near: The result of `across_splits` for the final splits.
        drop: The study's `quality.drop`.
        excluded: The excluded images with their reasons, as in `splits.SplitDataset`.
    """
    if near.empty:
        return "No two images show nearly the same."
    kinds = ", ".join(f"{kind} {count}" for kind, count in near["orientation"].value_counts().items())
    across = near["across"].sum()
    sentence = (
        f"{len(near)} pairs of near-duplicates ({kinds}): {near['same_group'].sum()} within one group, {across} across "
        f"splits, {near['conflict'].sum()} with conflicting labels."
    )
    if "near_duplicates" in drop:
        count = excluded["reason"].str.startswith("near_duplicates").sum()
        return (
            f"{sentence} {count} training images are excluded because they show nearly the same as an image in "
            f"validation or test; the pairs across splits are those that remain."
        )
    return sentence + (" They stay; `quality.drop=[near_duplicates]` excludes them from training." if across else "")


def _near_copies(quality: pd.DataFrame, small: np.ndarray) -> pd.DataFrame:
    visible = (quality["error"] == "") & (quality["contrast"] >= BLANK_CONTRAST)
    rows = np.flatnonzero(visible & ~quality["sha256"].duplicated())
    if len(rows) < 2:
        return pd.DataFrame(columns=COLUMNS)
    search = _Search(small, rows, quality[["width", "height"]].max(axis=1).to_numpy()[rows])
    flagged = flags(quality)
    blurred = quality["image_id"].isin(flagged.loc[flagged["rule"] == "blurred", "image_id"]).to_numpy()[rows]
    pairs = [pair for pair in search.pairs() if pair[-1] >= _BLURRED or not blurred[list(pair[:2])].all()]
    # A near-duplicate of one of several identical files is a near-duplicate of all of them.
    copied = quality[visible & quality["sha256"].duplicated(keep=False)]
    members = {key: copied.index.to_numpy()[places] for key, places in copied.groupby("sha256").indices.items()}
    digest, ids = quality["sha256"].to_numpy(), quality["image_id"].to_numpy()
    table = [
        (min(a, b), max(a, b), *rest)
        for i, j, *rest in pairs
        for a in members.get(digest[rows[i]], rows[[i]])
        for b in members.get(digest[rows[j]], rows[[j]])
    ]
    table.sort()
    return pd.DataFrame([(ids[a], ids[b], *rest) for a, b, *rest in table], columns=COLUMNS)


class _Search:
    """Candidate pairs and their check; images are numbered by their position in `rows`.

    The low frequencies of every whole picture stay in memory. Everything else is computed again from the small
    pictures, for a few thousand images at a time.
    """

    def __init__(self, small: np.ndarray, rows: np.ndarray, sizes: np.ndarray) -> None:
        self.small, self.rows = small, rows
        self.scale = np.ones(len(rows))
        for size, scale in reversed(_SMALL):
            self.scale[sizes < size] = scale
        with ThreadPoolExecutor(runtime.cores()) as pool:
            whole = pool.map(lambda chunk: _frequencies(small[rows[chunk]], _WINDOWS[:1])[:, 0], self._chunks())
            self.low = np.concatenate(list(whole))

    def _chunks(self) -> list[np.ndarray]:
        """Return the numbers of all images, a few thousand at a time."""
        return np.array_split(np.arange(len(self.rows)), max(1, len(self.rows) // _IMAGES))

    def pairs(self) -> list[tuple[int, int, str, float, float]]:
        """Return pairs with orientation, overlap and correlation; the first image has the smaller number."""
        pairs = {(min(i, j), max(i, j)): rest for i, j, *rest in self._check(*self._candidates())}
        # Copies of one image are copies of each other, also in families larger than the requested neighbours.
        missing = np.array([pair for pair in _family_pairs(pairs) if pair not in pairs]).reshape(-1, 2)
        if len(missing):
            checked = self._check(*self._best_windows(missing))
            pairs |= {(min(i, j), max(i, j)): rest for i, j, *rest in checked}
        return [(i, j, *rest) for (i, j), rest in sorted(pairs.items())]

    def _candidates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return candidate pairs in the order of the images: first, second, and the window of the first.

        The window is the part of the first image that the second image may show.
        """
        whole = np.concatenate([_invariant(self.low[chunk]) for chunk in self._chunks()])
        centre = whole.mean(0)
        spread, axes = np.linalg.eigh(np.cov(whole.T))
        # The square root of whitening: components in which all images of a kind vary have less weight.
        axes = (axes[:, ::-1] / np.maximum(spread[::-1], 1e-9) ** 0.25)[:, :_DIMENSIONS].astype(np.float32)
        tree_points = (whole - centre) @ axes
        tree = KDTree(tree_points)
        reach = _REACH * float(np.sqrt((tree_points**2).sum(1).mean()))
        neighbours = min(_NEIGHBOURS + 1, len(whole))
        del whole
        candidates = []
        for chunk in self._chunks():
            low = _frequencies(self.small[self.rows[chunk]])
            columns = []
            for window in range(len(_WINDOWS)):
                points = (_invariant(low[:, window]) - centre) @ axes
                distance, second = tree.query(
                    points, neighbours, eps=_SLACK, distance_upper_bound=reach, workers=runtime.cores()
                )
                first, second = np.repeat(chunk, neighbours), second.ravel()
                valid = (second < tree.n) & (second != first)
                values = (first, second, np.full(second.size, window), distance.ravel())
                columns.append([value[valid] for value in values])
            first, second, window, distance = (np.concatenate(column) for column in zip(*columns, strict=True))
            order = _unique_pairs(first, second, np.lexsort((window, distance)))
            dtypes = (np.int32, np.int32, np.uint8, np.float32)
            values = (first, second, window, distance)
            candidates.append([value[order].astype(dtype) for value, dtype in zip(values, dtypes, strict=True)])
        first, second, window, distance = (np.concatenate(column) for column in zip(*candidates, strict=True))
        order = np.lexsort((second, first, distance))
        nearest = _unique_pairs(np.minimum(first, second), np.maximum(first, second), order)
        nearest = nearest[(_rank(first[nearest]) < _CANDIDATES) | (_rank(second[nearest]) < _CANDIDATES)]
        nearest.sort()
        return first[nearest], second[nearest], window[nearest]

    def _best_windows(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `_candidates` of pairs that no query gave: the first image and its window, by low frequencies."""
        candidates = []
        for start in range(0, len(pairs), _PAIRS):
            chunk = pairs[start : start + _PAIRS]
            both = np.concatenate([chunk, chunk[:, ::-1]])
            low, position = self._windows(both[:, 0])
            windows = range(len(_WINDOWS))
            scores = np.stack([self._correlations(low[position, window], both[:, 1]).max(1) for window in windows], 1)
            straight, reverse = scores[: len(chunk)], scores[len(chunk) :]
            forward = straight.max(1) >= reverse.max(1)
            window = np.where(forward, straight.argmax(1), reverse.argmax(1))
            candidates.append((np.where(forward, *chunk.T), np.where(forward, *chunk.T[::-1]), window))
        first, second, window = (np.concatenate(column) for column in zip(*candidates, strict=True))
        return first, second, window

    def _windows(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return low frequencies of all windows of the unique images, `(m, windows, f, f)`, and each one's position."""
        unique, position = np.unique(images, return_inverse=True)
        return _frequencies(self.small[self.rows[unique]]), position

    def _correlations(self, left: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return correlations of low frequencies `(p, f, f)` with those of whole images per orientation, `(p, 8)`."""
        right = self.low[images]
        left[:, 0, 0] = right[:, 0, 0] = 0
        size = np.sqrt((left**2).sum((1, 2)) * (right**2).sum((1, 2))) + 1e-6
        return np.stack([(left * turned).sum((1, 2)) / size for turned in _orientations(right)], 1)

    def _check(
        self, first: np.ndarray, second: np.ndarray, window: np.ndarray
    ) -> list[tuple[int, int, str, float, float]]:
        """Return the candidates whose pixels agree, with orientation, overlap and correlation."""

        def check(start: int) -> list[tuple[int, int, str, float, float]]:
            pairs = [column[start : start + _PAIRS] for column in (first, second, window)]
            low, position = self._windows(pairs[0])
            rough = self._correlations(low[position, pairs[2]], pairs[1])
            similar = np.flatnonzero(rough.max(1) >= _ROUGH)
            matches = []
            for begin in range(0, len(similar), _CHUNK):
                rows = similar[begin : begin + _CHUNK]
                matches += self._compare(*(column[rows] for column in pairs), rough[rows])
            return matches

        with ThreadPoolExecutor(runtime.cores()) as pool:
            return [pair for matches in pool.map(check, range(0, len(first), _PAIRS)) for pair in matches]

    def _compare(
        self, first: np.ndarray, second: np.ndarray, window: np.ndarray, rough: np.ndarray
    ) -> list[tuple[int, int, str, float, float]]:
        """Align pairs step by step, at rising resolution; return those that pass, with their best orientation."""
        row, orientation = np.nonzero((rough >= _ROUGH) & (rough >= rough.max(1, keepdims=True) - _RIVAL))
        first, second, warp = first[row], second[row], _warps(window[row])
        for steps, lowest in ((2, _COARSE), (2, _FINE), (0, NEAR_CORRELATION)):
            if not len(first):
                return []
            source, template = self._filtered(first, second, lowest)
            warp, correlation = align(turn(template, orientation), source, warp, steps)
            passed = correlation >= lowest
            first, second, orientation, warp = first[passed], second[passed], orientation[passed], warp[passed]
        correlation = correlation[passed]
        best: dict[tuple[int, int], tuple[int, int, str, float, float]] = {}
        for index in np.argsort(correlation, kind="stable"):
            i, j = int(first[index]), int(second[index])
            overlap = min(1.0, float(warp[index, 0] * warp[index, 2]))
            name = ORIENTATIONS[orientation[index]]
            best[i, j] = (i, j, name, round(overlap, 3), round(float(correlation[index]), 4))
        return list(best.values())

    def _filtered(self, first: np.ndarray, second: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the pictures that must correlate by `lowest`: at half size, as bands, or as details.

        Details are as fine as the smaller image of a pair has them.
        """
        fine, side = lowest == NEAR_CORRELATION, SIDE // 2 if lowest == _COARSE else SIDE
        source, template = (np.empty((len(first), side, side), np.float32) for _ in range(2))
        scales = np.maximum(self.scale[first], self.scale[second]) if fine else np.ones(len(first))
        for scale in np.unique(scales):
            rows = np.flatnonzero(scales == scale)
            unique, position = np.unique(np.concatenate([first[rows], second[rows]]), return_inverse=True)
            small = self.small[self.rows[unique]]
            filtered = _half(small) if lowest == _COARSE else details(small, scale) if fine else band(small, 1.0, 5.0)
            source[rows], template[rows] = filtered[position[: len(rows)]], filtered[position[len(rows) :]]
        return source, template


def _unique_pairs(first: np.ndarray, second: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return those rows of `order` in which a pair occurs for the first time, in that order, int `(m,)`."""
    pair = first[order].astype(np.int64) << 32 | second[order]
    return order[np.sort(np.unique(pair, return_index=True)[1])]


def _rank(values: np.ndarray) -> np.ndarray:
    """Return how often each value occurs before its position, int `(n,)`."""
    return pd.Series(values).groupby(values).cumcount().to_numpy()


def _frequencies(small: np.ndarray, windows: Sequence[tuple[float, ...]] = _WINDOWS) -> np.ndarray:
    """Return the lowest cosine frequencies of windows of pictures, float32 `(n, windows, m, m)`."""
    spans = sorted(set(_SPANS) | {(_TRIM, 1 - _TRIM)})
    cosines = {span: _cosines(*span) for span in spans}
    values = small.astype(np.float32)
    rows = {span: np.matmul(cosines[span], values) for span in {(top, bottom) for *_, top, bottom in windows}}
    values = [np.matmul(rows[top, bottom], cosines[left, right].T) for left, right, top, bottom in windows]
    return np.stack(values, 1)


def _cosines(start: float, end: float) -> np.ndarray:
    """Return cosines over a span of an axis of 0 to 1, 0 outside, float32 `(m, SIDE)`; end pixels count partly."""
    edges = np.linspace(0, 1, SIDE + 1)
    inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) * SIDE
    position = ((edges[1:] + edges[:-1]) / 2 - start) / (end - start)
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * position) * inside / inside.sum()
    waves[1:] *= np.sqrt(2)
    return waves.astype(np.float32)


def _orientations(frequencies: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the cosine transform `(n, m, m)` of pictures in the eight orientations, in the order of `ORIENTATIONS`."""
    signs = (-1.0) ** np.arange(_FREQUENCIES, dtype=np.float32)
    for mirrored in (False, True):
        turned = frequencies * signs if mirrored else frequencies
        for _ in range(4):
            yield turned
            turned = (turned * signs).transpose(0, 2, 1)


def _invariant(frequencies: np.ndarray) -> np.ndarray:
    """Return the invariants of a cosine transform `(n, m, m)` over the eight orientations, float32 `(n, m² - 1)`.

    Mirroring changes signs, and turning exchanges the axes, so sums and differences of magnitudes are invariant. Each
    row has length 1.
    """
    size = np.abs(frequencies)
    crossed = size.transpose(0, 2, 1)
    row, column = np.triu_indices(_FREQUENCIES)
    off = row < column
    sums = (size + crossed)[:, row, column] / np.where(off, np.sqrt(2), 2)
    differences = np.abs(size - crossed)[:, row[off], column[off]] / np.sqrt(2)
    values = np.concatenate([sums[:, row + column > 0], differences], 1)
    return values / (np.linalg.norm(values, axis=1, keepdims=True) + 1)


def _half(small: np.ndarray) -> np.ndarray:
    """Return pictures at half size, without the finest and coarsest structure."""
    side = SIDE // 2
    halved = np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in small])
    return band(halved, 0.7, 6.0)


def _warps(window: np.ndarray) -> np.ndarray:
    """Return the warps of pictures onto the windows that they show, for `alignment.align`, float32 `(p, 4)`."""
    left, right, top, bottom = np.array(_WINDOWS, np.float32)[window].T
    return np.stack([right - left, left + right - 1, bottom - top, top + bottom - 1], 1)


def _family_pairs(pairs: dict[tuple[int, int], list]) -> Iterator[tuple[int, int]]:
    """Yield all pairs of each family of connected images, of at most 64 images."""
    families = DisjointSet({image for pair in pairs for image in pair})
    for first, second in pairs:
        families.merge(first, second)
    for family in families.subsets():
        if 2 < len(family) <= 64:
            yield from combinations(sorted(family), 2)
