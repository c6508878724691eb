"""The projection: planted speeds give hours and costs by hand, arithmetic is counted as published, the page renders."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

import pages
from scanbook import backbones, cli, plots, study
from scanbook.benchmark import flops, projection
from scanbook.benchmark.projection import Counted, Range, Rates, Rented, Work
from scanbook.errors import RunError, StudyError
from scanbook.performance import projected, projecting, rates
from scanbook.plots import projection as figures
from scanbook.runner import index
from scanbook.store import write_json
from scanbook.study.prices import Gpu, Price, gpus, prices, prices_file

DAY = datetime.date(2026, 1, 2)
# 3,600 training images and 900 validation ones: an epoch is the work of 3,900 training images
WORK = Work("s", "resnet50", 224, batch=36, epochs=2, train=3600, validation=900, images=7200, policy="none")
RATES = Rates(
    training=[3.0, 2.0, 2.5],
    together=[4.0],
    augmentation=[100.0, 200.0],
    features=[20.0, 10.0],
    flops=1e9,
    learning=1_000_000,
    depthwise=False,
    cores=2,
    peak=30e9,
)


def price(**values: object) -> Price:
    usual = {"usd_per_hour": 3.0, "vcpus": 4, "memory_gb": 16, "isa": "x86-64", "gpu": "G", "gpus": 1}
    return Price.model_validate(usual | {"source": "a test", "date": DAY} | values)


def gpu(**values: object) -> Gpu:
    usual = {"peak_tflops": 3.0, "precision": "half", "memory_gb": 16, "memory_gb_per_second": 300}
    return Gpu.model_validate(usual | {"forward_ms": [1.0, 2.0], "source": "a test", "date": DAY} | values)


def machine(**values: object) -> Rented:
    shares = projection.Shares({False: Range(0.1, 0.2)}, frozenset())
    return Rented("m", price(**values), gpu(link="a link", link_gb_per_second=1.0), shares)


def both(found: list[projection.Projection]) -> tuple[projection.Projection, projection.Projection]:
    training, features = found
    assert (training.stage, features.stage) == ("training", "features")
    return training, features


# --- arithmetic


def test_this_machine_takes_what_it_took_and_augments_meanwhile() -> None:
    training, features = both(projection.here(WORK, RATES, 0.5))
    # two epochs of 3,900 images' work at 3 a second and 3,600 augmented at 200; at worst at 2 and at 100
    assert training.hours.low == pytest.approx(2 * (3900 / 3 + 3600 / 200) / 3600)
    assert training.hours.high == pytest.approx(2 * (3900 / 2 + 3600 / 100) / 3600)
    assert (features.hours.low, features.hours.high) == pytest.approx((0.1, 0.2))
    assert training.usd and training.usd.low == pytest.approx(0.5 * training.hours.low)
    assert both(projection.here(WORK, RATES, None))[0].usd is None


def test_share_of_the_peak_is_of_the_median_round() -> None:
    assert RATES.share == pytest.approx(3 * 1e9 * 2.5 / 30e9)


def test_a_ring_sends_each_gradient_almost_twice() -> None:
    # 4 MB of gradients among 4 devices at 1 MB/s: 2 · 3/4 · 4 MB
    assert projection.all_reduce(1_000_000, 4, 1e6) == pytest.approx(6.0)
    assert projection.all_reduce(1_000_000, 1, 1e6) == 0


def test_a_cluster_of_planted_speed() -> None:
    # 4 nodes take 9 images of each batch of 36: 2.25 s at 4 images/s; 4 MB · 1.5 over 8 Mbit/s takes 6 s
    training, features = both(projection.cluster(WORK, RATES, 4, 0.008, 0.5))
    checked = 2 * 900 / 3 / 4 / 4
    assert training.hours.low == pytest.approx((200 * 6 + checked) / 3600)  # the exchange hides the arithmetic
    assert training.hours.high == pytest.approx((200 * (9 / 4 + 9 / 100 + 6) + checked) / 3600)
    assert training.usd and training.usd.high == pytest.approx(4 * 0.5 * training.hours.high)
    assert training.machine == "Slurm cluster, 4 nodes" and "network" in training.bound
    # one node extracts the features, and is paid alone
    assert features.usd and features.usd.low == pytest.approx(0.5 * features.hours.low)
    assert features.hours == both(projection.here(WORK, RATES, None))[1].hours
    quick = both(projection.cluster(WORK, RATES, 4, 100, None))[0]
    assert quick.hours.low == pytest.approx((200 * (9 / 4 + 9 / 200) + checked) / 3600) and "JAX" in quick.bound


def test_a_gpu_of_planted_speed() -> None:
    # a step of 36 images is 108 GFLOP: 0.18 s at 20 % of 3 TFLOP/s, 0.36 s at 10 %
    fast = replace(RATES, augmentation=[1e6])
    training, features = both(projection.rented(WORK, fast, machine()))
    checked = 900 / 36 / 3
    assert training.hours.low == pytest.approx(2 * (100 + checked) * 0.18 / 3600)
    assert training.hours.high == pytest.approx(2 * (100 + checked) * 0.36 / 3600)
    assert training.usd and training.usd.low == pytest.approx(3 * training.hours.low)
    assert training.bound == "arithmetic"
    # 4 virtual processors are as good as 4 of the 2 here, or as 2 of them
    assert features.hours.low == pytest.approx(7200 / (2 * 20) / 3600)
    assert features.hours.high == pytest.approx(7200 / (1 * 10) / 3600)


def test_a_gpu_waits_for_its_processors() -> None:
    # 4 virtual processors augment 400 images a second at best, 100 at worst: 0.36 s a step, more than 0.18 s
    training, _ = both(projection.rented(WORK, replace(RATES, augmentation=[100.0, 200.0]), machine()))
    checked = 900 / 36 / 3 * 0.36
    assert training.hours.high == pytest.approx(2 * (100 * 0.36 + checked) / 3600)
    slow, _ = both(projection.rented(WORK, replace(RATES, augmentation=[1.0]), machine()))
    assert slow.bound == "augmentation on 4 vCPUs"
    assert slow.hours.low == pytest.approx(2 * (100 * 36 / 2 + 25 / 3 * 0.18) / 3600)


def test_small_steps_take_their_least_time() -> None:
    # 36 GPUs take an image each: 3 GFLOP take 5 ms at best, and thrice a forward pass of 10 ms takes 30
    tiny = replace(RATES, augmentation=[1e9], learning=1)
    slow = replace(machine(gpus=36, vcpus=400), gpu=gpu(forward_ms=[10.0, 20.0], link="l", link_gb_per_second=1.0))
    training, _ = both(projection.rented(WORK, tiny, slow))
    assert training.hours.low == pytest.approx(2 * (100 + 25 / 3) * 0.030 / 3600)
    assert training.hours.high == pytest.approx(2 * (100 + 25 / 3) * 0.060 / 3600, rel=1e-6)
    assert training.bound == "the smallest step"


def test_several_gpus_exchange_gradients_in_the_worst_case() -> None:
    # 4 GPUs take 9 images each: 0.09 s at 10 %; 4 MB · 1.5 over 1 GB/s takes 6 ms more
    training, _ = both(projection.rented(WORK, replace(RATES, augmentation=[1e9]), machine(gpus=4)))
    assert training.hours.high == pytest.approx(2 * (100 * 0.096 + 25 / 3 * 0.09) / 3600)
    assert training.hours.low == pytest.approx(2 * (100 + 25 / 3) * 0.045 / 3600)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.integers(1, 16))
def test_the_best_case_is_never_worse_than_the_worst(one: float, two: float, count: int) -> None:
    seen = replace(RATES, training=[one, two], together=[two, one], augmentation=[one * 9, two * 9])
    every = projection.here(WORK, seen, 1.0) + projection.cluster(WORK, seen, count + 1, 1.0, 1.0)
    every += projection.rented(WORK, seen, machine(gpus=count))
    for each in every:
        assert 0 < each.hours.low <= each.hours.high and each.usd and each.usd.low <= each.usd.high


def test_at_the_break_even_price_both_cost_the_same() -> None:
    mine, other = (projection.here(WORK, RATES, None)[0], projection.rented(WORK, RATES, machine())[0])
    even = projection.break_even(mine, other)
    assert other.usd and even.low * mine.hours.high == pytest.approx(other.usd.low)
    assert even.high * mine.hours.low == pytest.approx(other.usd.high)


def test_shares_follow_from_what_is_published() -> None:
    speed = {"network": "resnet50", "image_size": 224, "source": "s", "date": DAY}
    rows = [
        speed | {"task": "training", "images_per_second": 100.0},
        speed | {"task": "inference", "images_per_second": 600.0},
    ]
    deep = speed | {"network": "efficientnet_b0", "task": "training", "images_per_second": 50.0}
    known = {"one": gpu(published=rows), "two": gpu(published=[deep])}
    counted = {("resnet50", 224): Counted(2e9, False), ("efficientnet_b0", 224): Counted(1e9, True)}
    found = projection.shares("one", known, counted)
    # 100 · 6 GFLOP and 600 · 2 GFLOP of 3 TFLOP/s
    assert found.of[False] == Range(pytest.approx(0.2), pytest.approx(0.4))
    assert found.of[True] == Range(pytest.approx(0.05), pytest.approx(0.05)) and found.borrowed == {True}
    with pytest.raises(StudyError, match="no speed of a network with depthwise convolutions is published"):
        projection.rented(WORK, replace(RATES, depthwise=True), machine())


@pytest.mark.parametrize(
    ("name", "millions", "depthwise"),
    # multiplications with additions, of He et al. (2016, table 1) and of Sandler et al. (2018, table 4)
    [
        pytest.param("resnet50", 3800, False, marks=pytest.mark.slow),
        ("mobilenet_v2_1.0", 300, True),
    ],
)
def test_arithmetic_is_counted_as_published(name: str, millions: float, depthwise: bool) -> None:
    model = backbones.build(name, (224, 224), 1000)
    # what else is counted, such as normalisation, is a few percent
    assert flops.forward(model) == pytest.approx(2e6 * millions, rel=0.05)
    assert flops.depthwise(model) is depthwise


# --- what there is to do


def test_work_is_what_the_study_says() -> None:
    melanoma = study.load("melanoma", "full", data="/nowhere")
    found = projecting.work(melanoma)
    assert found.images == 33_126 and found.train + found.validation + 33_126 // 5 == 33_126
    assert found.validation == (33_126 - 33_126 // 5) // 5
    assert (found.network, found.size) == (melanoma.backbones[0], melanoma.image_size)
    assert (found.epochs, found.batch) == (melanoma.fine_tuning.epochs, melanoma.fine_tuning.batch_size)
    dermnet = projecting.work(study.load("dermnet", "full"))
    assert dermnet.train + dermnet.validation == 15_557 and dermnet.images == 15_557 + 4002
    assert projecting.images(study.load("drawn", overrides="dataset.images=90"))["test"] == 30


def test_a_study_that_says_no_number_is_one_line() -> None:
    with pytest.raises(StudyError, match="states neither claimed nor claimed_parts; put the data there") as caught:
        projecting.images(study.load("folder", data="/nowhere"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", "1"], "--nodes is 1; expected 2 or more"),
        (["--network", "0"], "--network is 0; expected a number above 0"),
        (["--price", "-1"], "--price is -1; expected a number above 0"),
        (["--machines", "ml.m5.xlarge"], "no GPU machine 'ml.m5.xlarge' in .*; expected some of g4dn.xlarge, "),
        (["nobody"], "unknown study 'nobody'"),
    ],
)
def test_what_cannot_be_projected_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["projection", *words]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


# --- the table of prices


def test_gpus_of_the_price_table_have_what_is_reckoned_with_and_say_where_it_is_from() -> None:
    table, known = prices(), gpus()
    assert table["p4d.24xlarge"].gpus == 8 and table["g4dn.xlarge"].gpus == 1
    for name in ("g4dn.xlarge", "p4d.24xlarge"):
        found = known[table[name].gpu]
        assert found.source and found.published and found.forward_ms[0] < found.forward_ms[1]
        assert (found.link_gb_per_second is not None) == (table[name].gpus > 1)
        for each in found.published:
            assert "https://" in each.source and each.date.year >= 2026
    # NVIDIA's data sheets: 65 and 312 TFLOP/s in float16, dense
    assert [known[table[name].gpu].peak_tflops for name in ("g4dn.xlarge", "p4d.24xlarge")] == [65, 312]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {usd_per_hour: 1, vcpus: 4, memory_gb: 1, isa: x, gpu: G, source: s, date: 2026-01-02}", "gpu is 'G' and"),
        ("gpus: {G: {peak: 1}}", "unknown key 'gpus.G.peak' (1); expected one of peak_tflops"),
        ("gpus: {G: 1}", "gpus.G is 1; expected a block"),
        ("gpus: 1", "gpus is 1; expected a block for each GPU"),
    ],
)
def test_a_wrong_gpu_is_one_line(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks" / "studies").mkdir(parents=True)
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path))
    prices_file().write_text(text)
    with pytest.raises(StudyError) as caught:
        prices()
    assert said in str(caught.value) and "\n" not in str(caught.value)


# --- the page


@pytest.fixture
def found() -> dict[str, object]:
    plan = projecting.Plan(["melanoma", "dermnet"], ["g4dn.xlarge", "p4d.24xlarge"], price=0.1)
    chosen = [study.load(name, "full") for name in plan.studies]
    counted = {("resnet50", 224): Counted(7.8e9, False), ("efficientnet_b0", 224): Counted(0.8e9, True)}
    measured = {
        "melanoma": replace(RATES, flops=0.8e9, depthwise=True, augmentation=[2000.0, 2200.0]),
        "dermnet": replace(RATES, flops=7.8e9, augmentation=[2000.0, 2200.0]),
    }
    machines = projecting._with_shares(projecting.rented(plan.machines), counted)
    works = [projecting.work(each) for each in chosen]
    return json.loads(json.dumps(projecting.results(plan, chosen, works, measured, machines)))


def test_the_page_has_figures_assumptions_and_sources_and_needs_nothing_else(found: dict[str, object]) -> None:
    html = projected.render(found)
    text = " ".join(BeautifulSoup(html, "html.parser").get_text(" ").split())
    for words in (
        "only this machine's speed was measured",
        "no GPU was measured",
        "8 × NVIDIA A100 40 GB",
        "Slurm cluster, 8 nodes",
        "those of other GPUs",
        "2(n − 1)/n",
        "not checked at https://aws.amazon.com",
        "surely costs less while an hour of this machine costs less than",
        "at 0.1 USD an hour",
        "NVIDIA, MXNet 20.12",
    ):
        assert words in text, words
    assert html.count("data:image/svg+xml;base64,") == 1
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", html)
    rows = found["studies"][0]["projections"]
    assert {row["machine"] for row in rows} == {
        "this machine",
        "Slurm cluster, 8 nodes",
        "g4dn.xlarge",
        "p4d.24xlarge",
    }


def test_ranges_in_words() -> None:
    assert projected.span({"low": 3.14159, "high": 31.4159}, "h") == "3.1 to 31 h"
    assert projected.span({"low": 3.001, "high": 3.002}) == "3" and projected.span(None) == "–"
    assert projected.hours({"low": 0.25, "high": 0.5}) == "15 to 30 min"
    assert projected.hours({"low": 0.25, "high": 1.5}) == "0.25 to 1.5 h"
    assert projected.hours({"low": 0.001, "high": 0.002}) == "3.6 to 7.2 s"
    assert projected.rough(1234.0) == "1,200" and projected.rough(9.96) == "10"
    assert projected.even_sentence({}, None) == ""


def test_the_figure_has_every_machine_in_every_panel(found: dict[str, object]) -> None:
    with plots.apply():
        figure = figures.hours(found["studies"])
    assert len(figure.axes) == 2
    for axis in figure.axes:
        assert axis.get_xscale() == "log" and len(axis.get_yticklabels()) == 4 and len(axis.texts) == 8
        ends = np.concatenate([line.get_xdata() for line in axis.lines])
        assert axis.get_xlim()[0] < ends.min() and ends.max() < axis.get_xlim()[1]
    assert "hours" in figure.axes[-1].get_xlabel()


def test_the_index_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    assert "projection/index.html" not in index.write().read_text()
    (tmp_path / "projection").mkdir()
    (tmp_path / "projection" / "index.html").write_text("")
    assert 'href="projection/index.html"' in index.write().read_text()


@pytest.mark.slow
@pages.needs_chromium
def test_the_page_can_be_read_everywhere(found: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(projected.render(found))
    write_json(tmp_path / "projection.json", found)
    pages.check_file(tmp_path / "index.html")
    with pages.browser() as chromium:
        pages.check_shown(chromium, tmp_path / "index.html", [("light", 360), ("dark", 1440)])


# --- measuring


@pytest.mark.slow
def test_sides_measure_what_they_say() -> None:
    with rates.augmentation(policy="dermoscopy", size=32, batch=8, count=16) as augmented:
        assert augmented() > 0
    shape = {"backbone": "baseline_cnn", "size": 32, "classes": 3, "head": {}}
    with rates.steps(**shape, batch=4, count=1) as step, rates.arithmetic(networks=[shape]) as count:
        assert step() > 0
        seen = count()
    [network] = seen["networks"]
    assert seen["value"] > 1e8 and network["flops"] > 1e5 and network["depthwise"] is False
    assert network["learning"] > 1000


@pytest.mark.cluster
def test_a_whole_projection_in_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    assert cli.main(["projection", "melanoma", "--quick", "--nodes", "2"]) == 0
    kept = json.loads((tmp_path / "projection" / "projection.json").read_text())
    [only] = kept["studies"]
    assert kept["quick"] and only["work"]["images"] == 33_126
    assert "quick run" in (tmp_path / "projection" / "index.html").read_text()


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(RunError, match="no study is named"):
        projecting.Plan([], [])
