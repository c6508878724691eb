"""What a prediction costs: formulas, the price table, and published tables computed anew."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.projects import shipped
from scanbook import config
from scanbook.benchmark import cost
from scanbook.config import Published
from scanbook.config.prices import Price, prices, prices_file
from scanbook.errors import StudyError
from scanbook.runner.freshness import Batch, CodeState

HERE = cost.Measurement("a network", "an engine", milliseconds=4.0, images_per_second=1000.0)
POSITIVE = st.floats(1e-3, 1e3)


@cache
def there() -> pd.DataFrame:
    return cost.published_costs(config.load("retinopathy").published)


def price(usd: float) -> Price:
    return Price(usd_per_hour=usd, vcpus=4, memory_gb=16, isa="x86-64", source="a test", date="2026-01-02")


# --- formulas


def test_an_hour_of_predictions_costs_an_hour() -> None:
    assert cost.per_million(3.6, 1.0) == pytest.approx(1000)
    assert cost.per_million_busy(3.6, 1000.0) == pytest.approx(1.0)


@settings(deadline=None, max_examples=25)
@given(POSITIVE, POSITIVE)
def test_one_at_a_time_is_busy_with_one(usd: float, seconds: float) -> None:
    assert cost.per_million(usd, seconds) == pytest.approx(float(cost.per_million_busy(usd, 1 / seconds)))
    assert cost.per_million(usd, seconds) * 3600 / seconds / 1e6 == pytest.approx(usd)


@settings(deadline=None, max_examples=25)
@given(POSITIVE, POSITIVE)
def test_at_the_break_even_price_a_prediction_costs_the_same(milliseconds: float, rate: float) -> None:
    mine = cost.Measurement("n", "e", milliseconds, rate)
    for row in cost.break_even([mine], there().iloc[:2]).to_dict(orient="records"):
        assert cost.per_million(row["break_even"], milliseconds / 1000) == pytest.approx(row["usd_per_million"])
        assert cost.per_million_busy(row["break_even_busy"], rate) == pytest.approx(row["usd_per_million"])


# --- here and there


def test_measured_here_and_published_there_stand_side_by_side() -> None:
    table = cost.compare_costs([HERE], prices(), 0.1, there())
    assert table["kind"].value_counts().to_dict() == {"published": 8, "measured": 1}
    mine = table[table["kind"] == "measured"].iloc[0]
    assert mine["where"] == "this machine" and mine["usd_per_hour"] == 0.1
    assert mine["usd_per_million"] == pytest.approx(0.1 / 3600 * 0.004 * 1e6)
    assert mine["usd_per_million_busy"] == pytest.approx(0.1 / 3600 / 1000 * 1e6)
    assert table.loc[table["kind"] == "published", "usd_per_million_busy"].isna().all()


def test_a_machine_without_a_price_is_shown_at_the_tables_and_says_so() -> None:
    table = cost.compare_costs([HERE], {"x": price(0.5), "y": price(1.0)}, None)
    assert table["where"].tolist() == [f"this machine, if it cost what {name} costs" for name in "xy"]
    assert set(table["kind"]) == {"what-if"} and table["milliseconds"].eq(4).all()
    assert table["usd_per_million"].iloc[1] == pytest.approx(2 * table["usd_per_million"].iloc[0])
    eight = price(33.0).model_copy(update={"gpu": "a GPU", "gpus": 8})
    assert len(cost.compare_costs([HERE], {"x": price(0.5), "y": eight}, None)) == 1, "eight GPUs, for one prediction"
    assert cost.compare_costs([HERE], {}, None).empty and cost.compare_costs([], prices(), 1.0).empty


def test_the_best_is_of_what_is_not_refused() -> None:
    columns = ["engine", "precision", "mode", "threads", "batch", "images_per_second", "refused"]
    rows = [
        ("OpenVINO", "int8", "latency", 2, 1, 900.0, "loses 3 points"),
        ("OpenVINO", "fp32", "latency", 2, 1, 400.0, ""),
        ("OpenVINO", "fp32", "latency", 1, 1, 300.0, ""),
        ("OpenVINO", "fp32", "throughput", 2, 1, 700.0, ""),
        ("OpenVINO", "fp32", "throughput", 2, 32, 800.0, ""),
    ]
    best = cost.Measurement.best(pd.DataFrame(rows, columns=columns), "mobilenet at 96 px")
    assert best == cost.Measurement("mobilenet at 96 px", "OpenVINO fp32, 2 threads", 2.5, 800.0)


def test_the_cheaper_hour_can_be_the_more_expensive_prediction() -> None:
    comparisons = cost.compare_instances(there())
    assert (comparisons["hour"] < 0).all()
    first = comparisons.iloc[:2].set_index("network")
    assert set(first["of"]) == {"ml.m5.xlarge"} and set(first["instead"]) == {"ml.c7g.xlarge"}
    assert first["hour"].tolist() == pytest.approx([-0.2435] * 2, abs=5e-5)
    # the study's figures, cut off after the digit
    assert 0.141 <= first.loc["VGG19", "prediction"] < 0.142
    assert -0.125 < first.loc["MobileNet", "prediction"] <= -0.124
    assert cost.select_example(there()) == ("ml.m5.xlarge", "ml.c7g.xlarge")
    assert cost.describe_example(there()) == (
        "An hour of ml.c7g.xlarge costs 24.3 % less than one of ml.m5.xlarge; "
        "a prediction of VGG19 14.2 % more, a prediction of MobileNet 12.4 % less."
    )
    fair = there()[there()["where"] != "ml.m5.xlarge"]
    assert cost.select_example(fair) is None and cost.describe_example(fair) == ""
    assert len(comparisons) == 12 and cost.compare_instances(cost.published_costs({})).empty


# --- the price table


def test_the_price_table_has_the_published_prices_and_says_where_each_is_from() -> None:
    table = prices()
    published = there().drop_duplicates("where").set_index("where")["usd_per_hour"].to_dict()
    assert {name: table[name].usd_per_hour for name in published} == published
    assert table["g4dn.xlarge"].usd_per_hour == 0.526 and "T4" in table["g4dn.xlarge"].gpu
    for entry in table.values():
        assert entry.source and entry.date.year >= 2026
    assert cost.price_table(table).loc["ml.m5.xlarge", ["usd_per_hour", "isa"]].tolist() == [0.23, "x86-64"]
    assert {table[name].vcpus for name in published} == {4}
    assert {table[name].memory_gb for name in published} == {8, 16} and table["ml.c7g.xlarge"].memory_gb == 8


GOOD = "a: {usd_per_hour: 1, vcpus: 4, memory_gb: 16, isa: x86-64, source: s, date: 2026-01-02}\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks" / "studies").mkdir(parents=True)
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path))
    return prices_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD.replace("usd_per_hour: 1", "usd_per_hour: -1"),
            "a.usd_per_hour: input should be greater than 0 (got -1)",
        ),
        (GOOD.replace("vcpus", "cpus"), "unknown key 'a.cpus'; expected one of usd_per_hour, vcpus"),
        (GOOD.replace("source: s, ", ""), "key 'a.source' is missing"),
        (GOOD.replace("usd_per_hour: 1", "usd_per_hour: .nan"), "a.usd_per_hour: "),
        (GOOD.replace("2026-01-02", "soon"), "a.date: "),
        (GOOD.replace("2026-01-02", "2026-13-02"), "is not valid YAML"),
        ("a: [1\n", "is not valid YAML"),
        ("a: 0.5\n", "a: input should be a valid dictionary or instance of Price (got 0.5)"),
        ("- a\n", "expected keys and values"),
    ],
)
def test_a_wrong_price_is_one_line(table: Path, text: str, message: str) -> None:
    table.write_text(text)
    with pytest.raises(StudyError) as caught:
        prices()
    assert str(caught.value).startswith(str(table)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prices_count_for_the_notebook_that_reads_them(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prices() == {}
    monkeypatch.setattr("scanbook.runner.freshness.notebook_fingerprint", lambda name: name)
    batch = Batch.__new__(Batch)
    batch.study, batch.shared, batch.code = SimpleNamespace(weight_files={}, pretraining={}), {}, CodeState()
    monkeypatch.setattr("scanbook.reporting.suite.script", lambda name: "")
    fingerprints = []
    for text in (GOOD, f"# a remark\n{GOOD}", GOOD.replace("usd_per_hour: 1", "usd_per_hour: 2")):
        table.write_text(text)
        fingerprints.append(batch.fingerprints("06_hardware_benchmark"))
        assert "prices" not in batch.fingerprints("05_fine_tuning")
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


# --- published tables, computed anew


def recomputed(name: str, table: str) -> pd.DataFrame:
    return cost.recompute(table, config.load(name).published)


def column(table: pd.DataFrame, name: str) -> list[float]:
    return [float(value) if value is not None else math.nan for value in table[name]]


def test_dermnets_parallel_study() -> None:
    table = recomputed("dermnet", "parallel")
    assert column(table, "speed-up (published)")[1:] == [1.2, 29]
    assert column(table, "speed-up (recomputed)")[1:] == pytest.approx([1.171, 28.97], abs=0.006)
    assert column(table, "efficiency (published)")[1:] == [0.6, 0.01]
    sequential, parallel, gpu = column(table, "efficiency (recomputed)")
    assert sequential == 1 and parallel == 0.586
    assert math.isnan(gpu), "divided by its cores, a GPU's speed-up says nothing"


def test_dermnets_scaling() -> None:
    strong, weak = recomputed("dermnet", "strong_scaling"), recomputed("dermnet", "weak_scaling")
    assert column(strong, "efficiency (published)")[1:] == [0.387, 0.485, 0.535]
    assert column(strong, "efficiency (recomputed)")[1:] == [0.775, 0.485, 0.268]
    assert column(strong, "speed-up (recomputed)")[1:] == pytest.approx(
        column(strong, "speed-up (published)")[1:], abs=0.01
    )
    assert column(weak, "scaled speed-up (recomputed)")[1:] == pytest.approx([1.57, 2.02, 2.65], abs=0.006)
    assert column(weak, "efficiency (recomputed)")[1:] == pytest.approx([0.79, 0.51, 0.33], abs=0.006)
    assert column(weak, "speed-up (recomputed)")[1:] == pytest.approx(
        column(weak, "speed-up (published)")[1:], abs=0.01
    )


def test_retinopathys_costs() -> None:
    table = recomputed("retinopathy", "inference")
    for network, costs in {"VGG19": [23.37, 13.07, 20.13, 14.92], "MobileNet": [5.40, 3.93, 4.48, 3.44]}.items():
        assert column(table, f"{network} USD per million (published)") == costs
        # the study cuts off where it should round
        assert column(table, f"{network} USD per million (recomputed)") == pytest.approx(costs, abs=0.0101)


def test_retinopathys_comparisons() -> None:
    table = recomputed("retinopathy", "comparisons")
    assert table["VGG19 (recomputed)"].tolist()[:3] == pytest.approx([1.92, 1.71, 1.27], abs=0.005)
    assert table["MobileNet (recomputed)"].tolist()[:3] == pytest.approx([1.42, 1.32, 1.23], abs=0.005)
    assert table["VGG19 (published)"].iloc[3] == "-33.72 %" and table["VGG19 (recomputed)"].iloc[3] == "-33.74 %"
    assert table["hourly cost (published)"].tolist()[1:] == ["-4.17 %", "-5.84 %", "-24.34 %"]
    assert table["hourly cost (recomputed)"].tolist()[1:] == ["-4.17 %", "-5.84 %", "-24.35 %"]
    assert table["VGG19 cost per prediction (recomputed)"].iloc[3] == "+14.18 %"
    assert table["MobileNet cost per prediction (recomputed)"].iloc[3] == "-12.42 %"


def comparison(**values: object) -> Published:
    rows = {"row": {"first": "b", "second": "a"} | values}
    return Published(notebook="n", caption="c", recompute="comparison", of="costs", rows=rows)


def test_a_comparison_of_what_is_not_there_is_one_line() -> None:
    rows = {name: {"USD an hour": 1.0, "net ms": 5.0 + place} for place, name in enumerate("ab")}
    costs = Published(notebook="n", caption="c", recompute="cost", rows=rows)
    assert cost.recompute("x", {"costs": costs, "x": comparison()})["net (recomputed)"].tolist() == [0.833]
    with pytest.raises(StudyError, match="first of 'row' is 'z'; expected one of a, b"):
        cost.recompute("x", {"costs": costs, "x": comparison(first="z")})
    with pytest.raises(StudyError, match=r"published\.x\.of is 'costs'"):
        cost.recompute("x", {"x": comparison()})


@pytest.mark.parametrize(
    ("recompute", "of", "message"),
    [
        ("speedup", "", "row 'row' has no 'seconds'"),
        ("scaled_speedup", "classes", "row 'row' has no 'seconds'"),
        ("cost", "", "row 'row' has no 'USD an hour'"),
        ("comparison", "t", "row 'row' has no 'first'"),
    ],
)
def test_raw_figures_that_are_missing_are_named(recompute: str, of: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Published(notebook="n", caption="c", recompute=recompute, of=of, rows={"row": {"note": 1}})


def test_no_corrected_figure_is_typed_by_hand() -> None:
    for name in shipped():
        for table in config.load(name).published.values():
            for row in table.rows.values():
                assert not [heading for heading in row if "corrected" in heading or "recomputed" in heading], name
    assert np.isfinite(there()["usd_per_million"]).all()
