"""How well two sources can be told apart, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from scanbook.evaluation.two_sample import balance_labels, separate

OTHER = np.arange(400) % 2 == 1
GROUP = np.array([f"p{number}" for number in range(400)])


@pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
def test_a_shift_of_normal_values_has_its_auroc(shift: float) -> None:
    """Φ(d / √2) of two normal populations whose means differ by d deviations."""
    values = np.random.default_rng(1).normal(size=(4000, 1))
    other = np.arange(4000) % 2 == 1
    values[other] += shift
    area = separate(values, other, np.arange(4000), rounds=100)
    assert area.value == pytest.approx(norm.cdf(shift / np.sqrt(2)), abs=0.02)
    assert area.low < norm.cdf(shift / np.sqrt(2)) < area.high and area.low > 0.5


def test_sources_that_are_alike_are_rarely_told_apart() -> None:
    clear = 0
    for seed in range(12):
        values = np.random.default_rng(seed).normal(size=(400, 8))
        clear += separate(values, OTHER, GROUP, rounds=60, seed=seed).low > 0.5
    assert clear <= 2


def test_a_pattern_of_each_patient_tells_nothing_of_the_source() -> None:
    """Ten images of each patient are nearly alike: who splits by images recognises the patient, not the source."""
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    values = draw.normal(size=(40, 60))[patient] + 0.05 * draw.normal(size=(400, 60))
    honest = separate(values, patient % 2 == 1, patient, rounds=60)
    leaked = separate(values, patient % 2 == 1, np.arange(400), rounds=60)
    assert honest.low < 0.5 < leaked.low and leaked.value > 0.95


def test_what_follows_from_the_prevalence_alone_is_no_other_shift() -> None:
    draw = np.random.default_rng(3)
    other, group = np.arange(1200) % 2 == 1, np.arange(1200)
    label = draw.random(1200) < np.where(other, 0.8, 0.3)
    values = draw.normal(size=(1200, 2)) + 2 * label[:, None]
    labels = np.column_stack([label, ~label])
    weights = balance_labels(labels, other, group)
    assert np.average(label[other], weights=weights[other]) == pytest.approx(label[~other].mean(), abs=0.03)
    assert separate(values, other, group, rounds=100).low > 0.6
    assert separate(values, other, group, weights=weights, rounds=100).low < 0.5
    values[other, 0] += 1.5
    assert separate(values, other, group, weights=weights, rounds=100).low > 0.7, "but another one is found"


def test_long_features_of_few_images_are_projected_on_fewer_axes() -> None:
    """Of 30 images a training fold has 24: fewer than the axes of longer sets."""
    values = np.random.default_rng(0).normal(size=(30, 100))
    area = separate(values, OTHER[:30], GROUP[:30], rounds=50)
    assert 0 <= area.low <= area.value <= area.high <= 1


def test_four_patients_are_too_few() -> None:
    group = np.repeat(["a", "b", "c", "d", *"efghij"], 4)
    assert separate(np.zeros((40, 1)), np.arange(40) < 16, group) is None
