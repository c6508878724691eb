"""`scanbook projection`: measures this machine for a few minutes and writes what whole studies would take on others."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scanbook import parallel, runtime, splits, store, study
from scanbook.benchmark import projection
from scanbook.benchmark.projection import Counted, Projection, Rates, Rented, Work
from scanbook.errors import RunError, StudyError
from scanbook.manifest import TEST, TRAIN, VALIDATION
from scanbook.performance import projected
from scanbook.performance.pairs import Side, interleave, running
from scanbook.runner import locks
from scanbook.runner.freshness import at_hand
from scanbook.study import Study
from scanbook.study.prices import GPUS, gpus, prices, prices_file

PROFILE = "full"
FOLDER, RESULTS, PAGE = "projection", "projection.json", "index.html"
TENSORFLOW, JAX, OPENVINO, AUGMENTATION = "training", "together", "features", "augmentation"


@dataclass(frozen=True)
class Sizes:
    """How much is measured: rounds, training steps of a round, and images of a round for the rest."""

    rounds: int = 3
    steps: int = 2
    features: int = 64
    augmented: int = 256


QUICK = Sizes(rounds=1, steps=1, features=8, augmented=32)


@dataclass(frozen=True)
class Plan:
    """What is projected.

    Attributes:
        studies: By name.
        machines: Of the price table, with GPUs.
        nodes: Of the cluster.
        network: Between its nodes, in Gbit/s.
        price: What an hour of this machine, and of a node, costs, in USD; None where that is not known.
        quick: Whether to measure too little for figures that mean anything.
    """

    studies: Sequence[str]
    machines: Sequence[str]
    nodes: int = 8
    network: float = 10.0
    price: float | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if not self.studies:
            raise RunError(f"no study is named; expected some of {', '.join(study.studies())}")
        for name, value in (("--nodes", self.nodes - 1), ("--network", self.network), ("--price", self.price)):
            if value is not None and not 0 < value < math.inf:
                least = "2 or more" if name == "--nodes" else "a number above 0"
                raise RunError(f"{name} is {value + (name == '--nodes'):g}; expected {least}")


def project(plan: Plan) -> Path:
    """Measures this machine, and writes `projection.json` and the page.

    Returns:
        Path of the page.

    Raises:
        StudyError: A study or a machine is unknown, or the number of a study's images is.
        RunError: A measurement failed.
    """
    chosen = [study.load(name, PROFILE) for name in plan.studies]
    works = [work(each) for each in chosen]
    listed = rented(plan.machines)
    with locks.machine(True, lambda: _say("waiting for the machine")):
        load = round(os.getloadavg()[0], 2)
        counted, peak = count(chosen)
        rates = {}
        for each, what in zip(chosen, works, strict=True):
            rates[each.study] = measure(each, what, plan, counted[what.network, what.size], peak)
            _say(f"{each.study}: {projected.measured_line(rates[each.study])}")
    found = results(plan, chosen, works, rates, machines=_with_shares(listed, counted)) | {"load before": load}
    folder = runtime.reports_dir() / FOLDER
    store.write_json(folder / RESULTS, found)
    store.atomic_write(folder / PAGE, projected.render(found))
    return folder / PAGE


# --- what there is to do


def work(chosen: Study) -> Work:
    """What a study's training and features are, as its file says."""
    values = chosen.fine_tuning
    epochs = (values.head_epochs + values.top_epochs + values.epochs) * chosen.seeds
    counts = images(chosen)
    return Work(
        study=chosen.study,
        network=chosen.backbones[0],
        size=chosen.size[0],
        batch=values.batch_size,
        epochs=epochs,
        train=counts[TRAIN],
        validation=counts[VALIDATION],
        images=sum(counts.values()),
        policy=chosen.augmentation,
    )


def images(chosen: Study) -> dict[str, int]:
    """Images of each part: counted where the data are at hand, else as the source states them.

    Raises:
        StudyError: The source states no number, and the data are not at hand.
    """
    data = chosen.dataset
    if data.adapter != "drawn" and not chosen.on_stand_in and at_hand(chosen):
        parts = splits.prepare(chosen).frame["part"].value_counts()
        return {part: int(parts.get(part, 0)) for part in (TRAIN, VALIDATION, TEST)}
    stated = dict(data.claimed_parts)
    total = data.images if data.adapter == "drawn" else sum(data.claimed.values())
    if not stated and not total:
        raise StudyError(
            f"study {chosen.study} has no data at {chosen.location}, and its dataset block states neither claimed nor "
            "claimed_parts; put the data there, or add one of them"
        )
    total = min(total, chosen.limit or total)
    found = {TEST: stated.get(TEST, total // chosen.parts.test_folds)}
    rest = stated.get(TRAIN, total - found[TEST])
    # a validation part that the source has not is carved from training
    found[VALIDATION] = stated.get(VALIDATION, rest // chosen.parts.validation_folds)
    found[TRAIN] = rest - (0 if VALIDATION in stated else found[VALIDATION])
    return found


def rented(names: Sequence[str]) -> dict[str, Any]:
    """The machines with GPUs that are named, of the price table.

    Raises:
        StudyError: One is not there, has no GPU, or nothing is known of its GPU.
    """
    table, known = prices(), gpus()
    fit = [name for name, each in table.items() if each.gpu in known]
    for name in names:
        if name not in fit:
            raise StudyError(
                f"no GPU machine {name!r} in {prices_file()}; expected some of {', '.join(fit)}, "
                f"or add it there, and its GPU to {GPUS}"
            )
    return {name: table[name] for name in names}


def _with_shares(listed: Mapping[str, Any], counted: Mapping[tuple[str, int], Counted]) -> list[Rented]:
    known = gpus()
    return [
        Rented(name, price, known[price.gpu], projection.shares(price.gpu, known, counted))
        for name, price in listed.items()
    ]


# --- what is measured


def _classes(chosen: Study) -> int:
    named = chosen.dataset.claimed or (chosen.stand_in.classes if chosen.stand_in else {})
    return max(len(named), 2)


def _shape(chosen: Study) -> dict[str, Any]:
    """A study's first network, as the sides take it."""
    head = chosen.head.model_dump()
    return {"backbone": chosen.backbones[0], "size": chosen.size[0], "classes": _classes(chosen), "head": head}


def count(chosen: Sequence[Study]) -> tuple[dict[tuple[str, int], Any], float]:
    """The arithmetic of the studies' networks and of the published ones, by name and size; and this machine's peak."""
    wanted = {
        (each.network, each.image_size): {
            "backbone": each.network,
            "size": each.image_size,
            "classes": 1000,
            "head": {},
        }
        for gpu in gpus().values()
        for each in gpu.published
    }
    wanted |= {(each.backbones[0], each.size[0]): _shape(each) for each in chosen}
    function = "scanbook.performance.rates:arithmetic"
    side = Side("arithmetic", function, "", {"networks": list(wanted.values())}, True)
    with running(side, {}) as process:
        found = process.measure()
    return dict(zip(wanted, (_Counts(**each) for each in found["networks"]), strict=True)), found["value"]


@dataclass(frozen=True)
class _Counts(Counted):
    """With the parameters that learn."""

    learning: int


def measure(chosen: Study, what: Work, plan: Plan, counted: Any, peak: float) -> Rates:
    """Measures a study's network on this machine, each engine in a process of its own, in turn."""
    sizes = QUICK if plan.quick else Sizes()
    shape, function = _shape(chosen), "scanbook.performance.rates:"
    step = shape | {"batch": what.batch, "count": sizes.steps}
    alike = {"size": what.size, "batch": what.batch, "policy": what.policy, "count": sizes.augmented}
    sides = {
        TENSORFLOW: Side(TENSORFLOW, f"{function}steps", "", step, True),
        JAX: Side(JAX, f"{function}steps", "", step | {"batch": math.ceil(what.batch / plan.nodes)}, True),
        OPENVINO: Side(
            OPENVINO,
            f"{function}features",
            "",
            {"backbone": what.network, "size": what.size, "count": sizes.features},
            True,
        ),
        AUGMENTATION: Side(AUGMENTATION, f"{function}augmentation", "", alike, True),
    }
    if not parallel.installed():
        del sides[JAX]  # and there is no cluster then

    def start(side: Side, environment: Mapping[str, str]) -> Any:
        return running(side, {"KERAS_BACKEND": "jax"} if side.name == JAX else environment)

    found = interleave(sides, sizes.rounds, start=start)
    values = {
        name: [each["value"] for each in found.get(name, [])] for name in (TENSORFLOW, JAX, OPENVINO, AUGMENTATION)
    }
    return Rates(
        **values,
        flops=counted.flops,
        learning=counted.learning,
        depthwise=counted.depthwise,
        cores=runtime.cores(),
        peak=peak,
    )


# --- what follows


def results(
    plan: Plan, chosen: Sequence[Study], works: Sequence[Work], rates: Mapping[str, Rates], machines: Sequence[Rented]
) -> dict[str, Any]:
    """What `projection.json` holds.

    Args:
        plan: What was asked for.
        chosen: The studies.
        works: What there is to do in each.
        rates: What was measured, by study.
        machines: Those with GPUs.
    """
    studies = []
    for each, what in zip(chosen, works, strict=True):
        measured = rates[each.study]
        rows = projection.here(what, measured, plan.price)
        if measured.together:
            rows += projection.cluster(what, measured, plan.nodes, plan.network, plan.price)
        for machine in machines:
            rows += projection.rented(what, measured, machine)
        studies.append(
            {
                "title": each.title,
                "work": asdict(what),
                "counted": not each.on_stand_in and each.dataset.adapter != "drawn" and at_hand(each),
                "measured": asdict(measured) | {"share": measured.share},
                "projections": [asdict(row) for row in rows],
                "break even": _break_even(rows),
            }
        )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": plan.quick,
        "plan": asdict(plan),
        "machine": runtime.describe_machine(),
        "versions": runtime.versions((*runtime.PACKAGES, "jax")),
        "studies": studies,
        "machines": [_facts(each) for each in machines],
    }


def _break_even(rows: Sequence[Projection]) -> dict[str, Any]:
    """Of training: the machine with GPUs that costs least at its worst, and at which price this one costs as much."""
    training = [row for row in rows if row.stage == "training"]
    elsewhere = [
        row for row in training if row.usd and not row.machine.startswith((projection.HERE, projection.CLUSTER))
    ]
    if not elsewhere:
        return {}
    cheapest = min(elsewhere, key=lambda row: row.usd.high if row.usd else math.inf)
    even = projection.break_even(training[0], cheapest)
    return {"machine": cheapest.machine, "usd": asdict(cheapest.usd), "low": even.low, "high": even.high}


def _facts(machine: Rented) -> dict[str, Any]:
    shares = {str(kind): asdict(share) for kind, share in machine.shares.of.items()}
    return {
        "name": machine.name,
        "price": machine.price.model_dump(mode="json"),
        "gpu": machine.gpu.model_dump(mode="json"),
        "shares": shares,
        "borrowed": sorted(machine.shares.borrowed),
    }


def _say(text: str) -> None:
    print(text, flush=True)
