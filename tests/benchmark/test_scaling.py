"""Speed-up, efficiency and serial fractions: planted laws are found again, published figures are corrected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook.benchmark import scaling

SHARES = st.floats(0, 1)
WORKERS = st.lists(st.integers(2, 256), min_size=2, max_size=6, unique=True).map(lambda more: [1, *sorted(more)])


def law(serial: float, workers: list[int], alone: float = 100.0) -> np.ndarray:
    return alone * (serial + (1 - serial) / np.array(workers))


def test_the_dermnet_studys_parallel_arms_by_threads_used() -> None:
    total = scaling.table([2491, 2127, 86], [1, 2, np.nan])
    assert total["speedup"].round(3).tolist() == [1, 1.171, 28.965]
    assert total["efficiency"].round(3).tolist()[:2] == [1, 0.586]
    assert np.isnan(total["efficiency"][2]), "a GPU's cores are not a processor's threads"
    an_epoch = scaling.table([207, 177], [1, 2])
    assert an_epoch.round(3).to_dict("list") == {"speedup": [1, 1.169], "efficiency": [1, 0.585]}


def test_the_dermnet_studys_strong_scaling_by_threads_used() -> None:
    table = scaling.table([1827, 1179, 941, 853], [1, 2, 4, 8])
    assert table["speedup"].round(2).tolist() == [1, 1.55, 1.94, 2.14]
    assert table["efficiency"].round(3).tolist() == [1, 0.775, 0.485, 0.268]


def test_the_dermnet_studys_weak_scaling_by_work_done() -> None:
    table = scaling.table([2747, 2093, 1903, 1863], [1, 2, 4, 8], work=[10, 12, 14, 18])
    assert table["speedup"].round(2).tolist() == [1, 1.57, 2.02, 2.65]
    assert table["efficiency"].round(2).tolist() == [1, 0.79, 0.51, 0.33]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=6), st.floats(0.1, 10))
def test_work_that_grows_with_the_workers_is_as_efficient_as_its_times_are_equal(
    seconds: list[float], share: float
) -> None:
    workers = list(range(1, len(seconds) + 1))
    table = scaling.table(seconds, workers, [share * count for count in workers])
    np.testing.assert_allclose(table["efficiency"], seconds[0] / np.array(seconds))
    np.testing.assert_allclose(table["speedup"], table["efficiency"] * workers)


def test_the_first_row_is_the_reference_whatever_its_workers() -> None:
    table = scaling.table([8, 4], [2, 4])
    assert table.to_dict("list") == {"speedup": [1, 2], "efficiency": [1, 1]}


@settings(deadline=None, max_examples=25)
@given(SHARES, WORKERS)
def test_karp_and_flatt_find_the_serial_fraction_of_amdahls_law(serial: float, workers: list[int]) -> None:
    times = law(serial, workers)
    fractions = scaling.karp_flatt(times[0] / times, workers)
    assert np.isnan(fractions[0])
    np.testing.assert_allclose(fractions[1:], serial, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(SHARES, WORKERS)
def test_gustafson_finds_the_serial_share_of_scaled_speedups(serial: float, workers: list[int]) -> None:
    used = np.array(workers)
    fractions = scaling.gustafson(used - serial * (used - 1), workers)
    assert np.isnan(fractions[0])
    np.testing.assert_allclose(fractions[1:], serial, atol=1e-9)


def test_serial_fractions_tell_overhead_and_more_than_ideal() -> None:
    # overhead: the fraction grows with the workers
    growing = scaling.karp_flatt([1.8, 2.9, 4.0], [2, 4, 8])
    assert (np.diff(growing) > 0).all()
    assert scaling.karp_flatt([2.5], [2])[0] < 0 and scaling.karp_flatt([0.5], [2])[0] > 1


@settings(deadline=None, max_examples=25)
@given(SHARES, st.lists(st.integers(2, 128), min_size=2, max_size=6, unique=True), st.floats(0.1, 1e4))
def test_the_fit_finds_a_law_without_noise(serial: float, more: list[int], alone: float) -> None:
    workers = [1, *more]
    fit = scaling.amdahl(workers, law(serial, workers, alone))
    assert fit is not None
    assert fit.serial == pytest.approx(serial, abs=1e-6) and fit.alone == pytest.approx(alone)
    assert fit.low == pytest.approx(serial, abs=1e-3) and fit.high == pytest.approx(serial, abs=1e-3)


@pytest.mark.parametrize("serial", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("workers", [[1, 2, 4], [1, 2, 4, 8, 16]])
def test_the_interval_covers_the_truth_as_often_as_it_says(serial: float, workers: list[int]) -> None:
    draw = np.random.default_rng(3)
    noisy = law(serial, workers) * (1 + 0.03 * draw.normal(size=(1000, len(workers))))
    fits = [scaling.amdahl(workers, times) for times in noisy]
    covered = np.mean([fit.low <= serial <= fit.high for fit in fits])
    assert 0.92 <= covered <= (0.97 if serial else 1)  # at 0 half of what misses is cut off
    assert all(0 <= fit.low <= fit.serial <= fit.high <= 1 for fit in fits)


def test_fewer_than_three_numbers_of_workers_are_no_fit() -> None:
    assert scaling.amdahl([1, 2], [10, 6]) is None
    assert scaling.amdahl([1, 2, 2, 1], [10, 6, 6, 10]) is None


def test_faster_than_ideal_is_no_serial_share_and_noise_says_nothing() -> None:
    fit = scaling.amdahl([1, 2, 4], [100, 40, 15])
    assert fit.serial == fit.low == 0
    assert scaling.amdahl([1, 2, 3], [0.01, 900, 0.01]).high == 1


def test_the_laws_curve_lies_within_its_band_and_its_limits() -> None:
    fit = scaling.amdahl([1, 2, 4, 8], [1827, 1179, 941, 853])
    assert 0.26 < fit.low < fit.serial < fit.high < 0.57
    curve = fit.curve(8)
    assert curve["threads"].iloc[[0, -1]].tolist() == pytest.approx([1, 8])
    assert curve.iloc[0, 1:].tolist() == pytest.approx([1, 1, 1])
    later = curve.iloc[1:]
    assert (later["low"] < later["speedup"]).all() and (later["speedup"] < later["high"]).all()
    assert (later["speedup"] < 1 / fit.serial).all()
    assert str(fit) == "serial share of 39.1% (95 % interval 26.3% to 56.3%)"
