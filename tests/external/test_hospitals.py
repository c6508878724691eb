"""Synthetic hospitals with one planted shift each: the report names it first."""

from __future__ import annotations

import pytest

from scanbook import config, external
from scanbook.data import splits
from scanbook.data.manifest import TRAIN
from scanbook.reporting.external_answers import describe_shifts

pytestmark = pytest.mark.slow
SMALL = "dataset.images=240 dataset.size=96"
PLANTED = {
    "prevalence": "dataset.hospital.frequencies={melanoma: 5, vascular_lesion: 4}",
    "colour and light": "dataset.hospital.tint=14",
    "scanner and size": "dataset.hospital.blur=1.2",
}


@pytest.mark.parametrize("shift", PLANTED)
def test_the_planted_shift_is_named_first(shift: str) -> None:
    manifest = splits.prepare(config.load("synthetic", "smoke", overrides=SMALL))
    training, everything = (manifest.with_frame(manifest.frame.iloc[manifest.rows(*names)]) for names in (
        (TRAIN,), (TRAIN, "validation", "test")
    ))  # fmt: skip
    key, _, value = PLANTED[shift].partition("=")
    hospital = config.load("synthetic", "smoke", overrides=f"{SMALL} dataset.seed=5 '{key}={value}'")
    other, _ = external.load_external(hospital)
    shifts = external.find_shifts(training, other, everything, rounds=200)
    assert shifts.index[0] == shift and shifts["low"].iloc[0] > 0.55
    assert (shifts["low"].iloc[1:] < 0.5).all(), "and no other one stands out"
    sentence = describe_shifts(shifts)
    assert sentence.startswith(f"The shift that stands out most is in {shift} (AUROC 0.")
    assert all(name in sentence.partition("; none is seen in ")[2] for name in shifts.index[1:])
