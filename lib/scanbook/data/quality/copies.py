"""Copies of images: byte for byte, and near ones, in the eight orientations, recompressed, resized or trimmed.

A near-duplicate is found in two steps. A perceptual descriptor names candidates: the lowest frequencies of the image's
cosine transform, made alike for the eight orientations, for the whole image and for it trimmed at its edges; a k-d tree
finds those that are near. Then the pixels decide: the pair is laid on one another, and its details must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from scanbook import runtime
from scanbook.data.manifest import Manifest
from scanbook.data.quality.alignment import align, band, details, turn
from scanbook.data.quality.rules import BLANK_CONTRAST, flags
from scanbook.data.quality.scanning import SIDE, pictures, scan
from scanbook.store import stage

NEAR_CORRELATION = 0.89
"""Correlation of details from which on a pair counts as near-duplicate."""
ORIENTATIONS = (
    *("as is", "rotated 90°", "rotated 180°", "rotated 90°"),
    *("mirrored", "transposed", "flipped", "transverse"),
)
"""How one image of a pair is turned against the other, by the number that `alignment.turn` takes."""
COLUMNS = ["image_id", "other", "orientation", "overlap", "correlation"]

_TRIM = 0.05
_SPANS = ((0.0, 1.0), (_TRIM, 1.0), (0.0, 1 - _TRIM), (_TRIM / 2, 1 - _TRIM / 2))
# left, right, top and bottom of what is kept of an image; the last is trimmed at all four edges
_WINDOWS = (*((*x, *y) for x, y in product(_SPANS, _SPANS)), (_TRIM, 1 - _TRIM, _TRIM, 1 - _TRIM))
_FREQUENCIES = 7
_DIMENSIONS = 16
_NEIGHBOURS = 6  # asked of the tree for each window
_KEPT = 8  # candidates of an image that are looked at
# a branch of the tree is skipped unless it may hold one four times as near as the farthest so far: copies are, and an
# exact search takes too long among 200,000 images, where all others are far, and equally so
_SLACK = 3.0
_REACH = 0.7  # farthest candidate, in root mean squared distances of the descriptors from their mean
# what a pair must reach to be looked at more closely: correlation of low frequencies, of half-size pictures, of bands
_ROUGH, _COARSE, _FINE = 0.93, 0.95, 0.90
_BLURRED = 0.95  # correlation that two blurred images must reach: without details, what is left is soon alike
_RIVAL = 0.03  # a second orientation is tried when its low frequencies correlate nearly as well
# how many are in memory at a time: images whose copies are looked for, pairs of them, and pairs laid on one another
_IMAGES, _PAIRS, _CHUNK = 2000, 1024, 128
# images smaller than so many pixels have no finer details than so many times those of others
_SMALL = ((48, 1.6), (72, 1.25))


def exact_copies(quality: pd.DataFrame) -> pd.DataFrame:
    """Byte-identical readable files: columns `image_id` and `copy_group`, the group's number from 0."""
    readable = quality[quality["error"] == ""]
    copied = readable[readable["sha256"].duplicated(keep=False)]
    return pd.DataFrame({"image_id": copied["image_id"].to_numpy(), "copy_group": pd.factorize(copied["sha256"])[0]})


def near_copies(manifest: Manifest) -> pd.DataFrame:
    """Pairs of images, not byte-identical, that show nearly the same.

    Found are copies in any of the eight orientations, recompressed, resized, brightened, trimmed by up to about 5 % at
    any edge, or several of these at once. Blank images are near-duplicates of nothing, and two blurred ones must agree
    better than others.

    Args:
        manifest: The dataset.

    Returns:
        One row a pair, in the manifest's order: `image_id`, `other`; `orientation` of one against the other, one of
        `ORIENTATIONS`; `overlap`, the share of the larger view that both show; `correlation` of their details.
    """

    def build(folder: Path) -> None:
        _near_copies(scan(manifest), pictures(manifest)).to_csv(folder / "pairs.csv", index=False)

    folder = stage("near_copies", {"manifest": manifest.fingerprint()}, build, __name__)
    return pd.read_csv(folder / "pairs.csv", dtype={"image_id": str, "other": str}, keep_default_na=False)


def across_splits(near: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Near-duplicates with what the dataset says of both: label, part, and whether they are of one group.

    Returns:
        The pairs with `labels` and `parts` ("one / other", one word where they agree), `same_group`, `across`, whether
        both are used in different parts, and `conflict`, whether their labels differ; the worst first.
    """
    frame = manifest.frame.set_index("image_id")
    one, other = (
        frame.loc[near[name], ["label", "split", "group"]].reset_index(drop=True) for name in near.columns[:2]
    )
    table = near.reset_index(drop=True)
    for name in ("label", "split"):
        words = one[name].mask(one[name] == "", "none"), other[name].mask(other[name] == "", "none")
        table[f"{name}s"] = words[0].where(words[0] == words[1], words[0] + " / " + words[1])
    table["same_group"] = one["group"] == other["group"]
    table["across"] = (one["split"] != other["split"]) & (one["split"] != "") & (other["split"] != "")
    table["conflict"] = one["label"] != other["label"]
    return table.sort_values(["across", "conflict"], ascending=False, kind="stable", ignore_index=True)


def near_sentence(near: pd.DataFrame, drop: Sequence[str], excluded: pd.DataFrame) -> str:
    """What `across_splits` means, and what the study's `quality.drop` made of it, in a sentence or two.

    Args:
        near: What `across_splits` gives for the parts as they are, after the drop.
        drop: The study's `quality.drop`.
        excluded: The images that left a part, and why, as `splits.Split` has them.
    """
    if near.empty:
        return "No two images show nearly the same."
    kinds = ", ".join(f"{kind} {count}" for kind, count in near["orientation"].value_counts().items())
    across = near["across"].sum()
    found = (
        f"{len(near)} pairs of near-duplicates ({kinds}): {near['same_group'].sum()} within one group, {across} across "
        f"parts, {near['conflict'].sum()} with conflicting labels."
    )
    if "near_duplicates" in drop:
        left = excluded["why"].str.startswith("near_duplicates").sum()
        return (
            f"{found} {left} training images have left training because they show nearly the same as an image in "
            f"validation or test; the pairs across parts are those that remain."
        )
    return found + (" They stay; `quality.drop=[near_duplicates]` takes them out of training." if across else "")


def _near_copies(quality: pd.DataFrame, small: np.ndarray) -> pd.DataFrame:
    shows = (quality["error"] == "") & (quality["contrast"] >= BLANK_CONTRAST)
    rows = np.flatnonzero(shows & ~quality["sha256"].duplicated())
    if len(rows) < 2:
        return pd.DataFrame(columns=COLUMNS)
    search = _Search(small, rows, quality[["width", "height"]].max(axis=1).to_numpy()[rows])
    caught = flags(quality)
    blurred = quality["image_id"].isin(caught.loc[caught["rule"] == "blurred", "image_id"]).to_numpy()[rows]
    found = [pair for pair in search.pairs() if pair[-1] >= _BLURRED or not blurred[list(pair[:2])].all()]
    # what holds for one of several identical files holds for all of them
    copied = quality[shows & quality["sha256"].duplicated(keep=False)]
    members = {key: copied.index.to_numpy()[places] for key, places in copied.groupby("sha256").indices.items()}
    digest, ids = quality["sha256"].to_numpy(), quality["image_id"].to_numpy()
    table = [
        (min(a, b), max(a, b), *rest)
        for i, j, *rest in found
        for a in members.get(digest[rows[i]], rows[[i]])
        for b in members.get(digest[rows[j]], rows[[j]])
    ]
    table.sort()
    return pd.DataFrame([(ids[a], ids[b], *rest) for a, b, *rest in table], columns=COLUMNS)


class _Search:
    """Candidates and their check; images are numbered by their place in `rows`.

    Of every image stay in memory the low frequencies of the whole picture; what else is needed of it is computed from
    the small pictures again, for a few thousand images at a time.
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
        """The numbers of all images, a few thousand at a time."""
        return np.array_split(np.arange(len(self.rows)), max(1, len(self.rows) // _IMAGES))

    def pairs(self) -> list[tuple[int, int, str, float, float]]:
        """Pairs with orientation, overlap and correlation, the first with the smaller number."""
        candidates = self._candidates()
        checked = self._check(*candidates)
        found = {(min(i, j), max(i, j)): rest for i, j, *rest in checked}
        # copies of one image are copies of each other: families larger than the neighbours asked for stay whole
        missing = np.array([pair for pair in _relatives(found) if pair not in found]).reshape(-1, 2)
        if len(missing):
            more = self._check(*self._best_windows(missing))
            found |= {(min(i, j), max(i, j)): rest for i, j, *rest in more}
        return [(i, j, *rest) for (i, j), rest in sorted(found.items())]

    def _candidates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images, the others that they may hold, and the number of the window of the first that shows the second.

        They come in the order of the images.
        """
        whole = np.concatenate([_invariant(self.low[chunk]) for chunk in self._chunks()])
        centre = whole.mean(0)
        spread, axes = np.linalg.eigh(np.cov(whole.T))
        # the square root of whitening: what all images of a kind vary in counts for less
        axes = (axes[:, ::-1] / np.maximum(spread[::-1], 1e-9) ** 0.25)[:, :_DIMENSIONS].astype(np.float32)
        tree_points = (whole - centre) @ axes
        tree = KDTree(tree_points)
        reach = _REACH * float(np.sqrt((tree_points**2).sum(1).mean()))
        few = min(_NEIGHBOURS + 1, len(whole))
        del whole
        found = []
        for chunk in self._chunks():
            low = _frequencies(self.small[self.rows[chunk]])
            columns = []
            for window in range(len(_WINDOWS)):
                points = (_invariant(low[:, window]) - centre) @ axes
                distance, other = tree.query(
                    points, few, eps=_SLACK, distance_upper_bound=reach, workers=runtime.cores()
                )
                column = (np.repeat(chunk, few), other.ravel(), np.full(other.size, window), distance.ravel())
                known = (column[1] < tree.n) & (column[1] != column[0])
                columns.append([each[known] for each in column])
            one, other, window, distance = (np.concatenate(column) for column in zip(*columns, strict=True))
            order = _first(one, other, np.lexsort((window, distance)))
            kinds = (np.int32, np.int32, np.uint8, np.float32)
            values = (one, other, window, distance)
            found.append([each[order].astype(kind) for each, kind in zip(values, kinds, strict=True)])
        one, other, window, distance = (np.concatenate(column) for column in zip(*found, strict=True))
        kept = _first(np.minimum(one, other), np.maximum(one, other), np.lexsort((other, one, distance)))
        near = (_rank(one[kept]) < _KEPT) | (_rank(other[kept]) < _KEPT)
        kept = np.sort(kept[near])
        return one[kept], other[kept], window[kept]

    def _best_windows(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For pairs that no query gave: the window, and which image it is of, by the low frequencies."""
        found = []
        for start in range(0, len(pairs), _PAIRS):
            some = pairs[start : start + _PAIRS]
            both = np.concatenate([some, some[:, ::-1]])
            shown, place = self._windows(both[:, 0])
            number = range(len(_WINDOWS))
            scores = np.stack([self._turned(shown[place, window], both[:, 1]).max(1) for window in number], 1)
            straight, back = scores[: len(some)], scores[len(some) :]
            forward = straight.max(1) >= back.max(1)
            window = np.where(forward, straight.argmax(1), back.argmax(1))
            found.append((np.where(forward, *some.T), np.where(forward, *some.T[::-1]), window))
        one, other, window = (np.concatenate(column) for column in zip(*found, strict=True))
        return one, other, window

    def _windows(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Low frequencies of all windows `(m, windows, f, f)` of m images, each once, and where each image is there."""
        needed, place = np.unique(images, return_inverse=True)
        return _frequencies(self.small[self.rows[needed]]), place

    def _turned(self, left: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Correlation of low frequencies `(p, f, f)` with those of whole images, in each orientation, `(p, 8)`."""
        right = self.low[other]
        left[:, 0, 0] = right[:, 0, 0] = 0
        size = np.sqrt((left**2).sum((1, 2)) * (right**2).sum((1, 2))) + 1e-6
        return np.stack([(left * turned).sum((1, 2)) / size for turned in _orientations(right)], 1)

    def _check(
        self, one: np.ndarray, other: np.ndarray, window: np.ndarray
    ) -> list[tuple[int, int, str, float, float]]:
        """Those of the candidates whose pixels agree."""

        def some(start: int) -> list[tuple[int, int, str, float, float]]:
            chosen = slice(start, start + _PAIRS)
            pairs = one[chosen], other[chosen], window[chosen]
            shown, place = self._windows(pairs[0])
            rough = self._turned(shown[place, pairs[2]], pairs[1])
            alike = np.flatnonzero(rough.max(1) >= _ROUGH)
            found = []
            for first in range(0, len(alike), _CHUNK):
                few = alike[first : first + _CHUNK]
                found += self._look(*(each[few] for each in pairs), rough[few])
            return found

        with ThreadPoolExecutor(runtime.cores()) as pool:
            return [pair for found in pool.map(some, range(0, len(one), _PAIRS)) for pair in found]

    def _look(
        self, one: np.ndarray, other: np.ndarray, window: np.ndarray, rough: np.ndarray
    ) -> list[tuple[int, int, str, float, float]]:
        row, orientation = np.nonzero((rough >= _ROUGH) & (rough >= rough.max(1, keepdims=True) - _RIVAL))
        one, other, warp = one[row], other[row], _warps(window[row])
        for steps, lowest in ((2, _COARSE), (2, _FINE), (0, NEAR_CORRELATION)):
            if not len(one):
                return []
            source, template = self._shown(one, other, lowest)
            warp, correlation = align(turn(template, orientation), source, warp, steps)
            good = correlation >= lowest
            one, other, orientation, warp = one[good], other[good], orientation[good], warp[good]
        correlation = correlation[good]
        best: dict[tuple[int, int], tuple[int, int, str, float, float]] = {}
        for index in np.argsort(correlation, kind="stable"):
            i, j = int(one[index]), int(other[index])
            overlap = min(1.0, float(warp[index, 0] * warp[index, 2]))
            turned = ORIENTATIONS[orientation[index]]
            best[i, j] = (i, j, turned, round(overlap, 3), round(float(correlation[index]), 4))
        return list(best.values())

    def _shown(self, one: np.ndarray, other: np.ndarray, lowest: float) -> tuple[np.ndarray, np.ndarray]:
        """What must correlate by `lowest`: half-size pictures of both images, bands, or details.

        Details are as fine as the smaller image of a pair has them.
        """
        fine, side = lowest == NEAR_CORRELATION, SIDE // 2 if lowest == _COARSE else SIDE
        source, template = (np.empty((len(one), side, side), np.float32) for _ in range(2))
        scales = np.maximum(self.scale[one], self.scale[other]) if fine else np.ones(len(one))
        for scale in np.unique(scales):
            chosen = np.flatnonzero(scales == scale)
            needed, place = np.unique(np.concatenate([one[chosen], other[chosen]]), return_inverse=True)
            small = self.small[self.rows[needed]]
            shown = _half(small) if lowest == _COARSE else details(small, scale) if fine else band(small, 1.0, 5.0)
            source[chosen], template[chosen] = shown[place[: len(chosen)]], shown[place[len(chosen) :]]
        return source, template


def _first(one: np.ndarray, other: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Of the rows that `order` lists, the first of each pair, in that order, int `(m,)`."""
    pair = one[order].astype(np.int64) << 32 | other[order]
    return order[np.sort(np.unique(pair, return_index=True)[1])]


def _rank(values: np.ndarray) -> np.ndarray:
    """How often each value has come before, int `(n,)`."""
    return pd.Series(values).groupby(values).cumcount().to_numpy()


def _frequencies(small: np.ndarray, windows: Sequence[tuple[float, ...]] = _WINDOWS) -> np.ndarray:
    """Lowest cosine frequencies of windows of pictures, float32 `(n, windows, m, m)`."""
    spans = sorted(set(_SPANS) | {(_TRIM, 1 - _TRIM)})
    cosines = {span: _cosines(*span) for span in spans}
    values = small.astype(np.float32)
    rows = {span: np.matmul(cosines[span], values) for span in {(top, bottom) for *_, top, bottom in windows}}
    seen = [np.matmul(rows[top, bottom], cosines[left, right].T) for left, right, top, bottom in windows]
    return np.stack(seen, 1)


def _cosines(start: float, end: float) -> np.ndarray:
    """Cosines over a span of an axis of 0 to 1, 0 outside, float32 `(m, SIDE)`; pixels at its ends count in part."""
    edges = np.linspace(0, 1, SIDE + 1)
    inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) * SIDE
    place = ((edges[1:] + edges[:-1]) / 2 - start) / (end - start)
    waves = np.cos(np.pi * np.arange(_FREQUENCIES)[:, None] * place) * inside / inside.sum()
    waves[1:] *= np.sqrt(2)
    return waves.astype(np.float32)


def _orientations(frequencies: np.ndarray) -> Iterator[np.ndarray]:
    """The cosine transform `(n, m, m)` of pictures in the eight orientations, in the order of `ORIENTATIONS`."""
    signs = (-1.0) ** np.arange(_FREQUENCIES, dtype=np.float32)
    for mirrored in (False, True):
        turned = frequencies * signs if mirrored else frequencies
        for _ in range(4):
            yield turned
            turned = (turned * signs).transpose(0, 2, 1)


def _invariant(frequencies: np.ndarray) -> np.ndarray:
    """What the eight orientations leave of a cosine transform `(n, m, m)`, of length 1, float32 `(n, m² - 1)`.

    Mirroring changes signs, and turning exchanges the axes: left are the sums and differences of magnitudes.
    """
    size = np.abs(frequencies)
    crossed = size.transpose(0, 2, 1)
    row, column = np.triu_indices(_FREQUENCIES)
    off = row < column
    sums = (size + crossed)[:, row, column] / np.where(off, np.sqrt(2), 2)
    differences = np.abs(size - crossed)[:, row[off], column[off]] / np.sqrt(2)
    found = np.concatenate([sums[:, row + column > 0], differences], 1)
    return found / (np.linalg.norm(found, axis=1, keepdims=True) + 1)


def _half(small: np.ndarray) -> np.ndarray:
    """Pictures at half size, without the finest and coarsest structure."""
    side = SIDE // 2
    halved = np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in small])
    return band(halved, 0.7, 6.0)


def _warps(window: np.ndarray) -> np.ndarray:
    """Where a picture lies on the one whose window it shows, as `alignment.align` takes it, float32 `(p, 4)`."""
    left, right, top, bottom = np.array(_WINDOWS, np.float32)[window].T
    return np.stack([right - left, left + right - 1, bottom - top, top + bottom - 1], 1)


def _relatives(pairs: dict[tuple[int, int], list]) -> Iterator[tuple[int, int]]:
    """All pairs of each family, of at most 64 images."""
    from scipy.cluster.hierarchy import DisjointSet

    families = DisjointSet({image for pair in pairs for image in pair})
    for one, other in pairs:
        families.merge(one, other)
    for family in families.subsets():
        if 2 < len(family) <= 64:
            members = sorted(family)
            yield from ((one, other) for place, one in enumerate(members) for other in members[place + 1 :])
