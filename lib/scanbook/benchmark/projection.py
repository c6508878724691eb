"""What a study would take elsewhere: hours and USD of its training and features, from speeds measured here.

Nothing here was run elsewhere. This machine's hours follow from its own speed, a cluster's from the same and from the
network between its nodes; a GPU's follow from arithmetic: what a training image takes, over the share of the GPU's peak
that others have published. Each is a range, from the best to the worst that the assumptions allow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scanbook.benchmark.flops import TRAINING
from scanbook.errors import StudyError
from scanbook.study.prices import Gpu, Price

HERE, CLUSTER = "this machine", "Slurm cluster"
GRADIENT = 4
"""Bytes of a gradient, float32."""
Stage = Literal["training", "features"]


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        study: Its name.
        network: The backbone.
        size: Side of the images, in pixels.
        batch: Images in a training step, on all devices together.
        epochs: Passes over the training images, of all seeds together.
        train: Training images.
        validation: Validation images, predicted after every epoch.
        images: All images, whose features are extracted once.
        policy: Augmentation of the training images.
    """

    study: str
    network: str
    size: int
    batch: int
    epochs: int
    train: int
    validation: int
    images: int
    policy: str


@dataclass(frozen=True)
class Rates:
    """What was measured on this machine, all of its processors busy; images a second, a value a round.

    Attributes:
        training: Training steps at the study's batch, on TensorFlow.
        together: Training steps at one node's share of the batch, on JAX, which trains on several nodes.
        augmentation: Augmented batches, without training.
        features: Forward passes, by OpenVINO.
        flops: Floating-point operations of a forward pass of one image.
        learning: Parameters that learn, whose gradients are exchanged.
        depthwise: Whether the network convolves channel by channel.
        cores: Processors.
        peak: Floating-point operations a second of large float32 matrix products on all processors.
    """

    training: Sequence[float]
    together: Sequence[float]
    augmentation: Sequence[float]
    features: Sequence[float]
    flops: float
    learning: int
    depthwise: bool
    cores: int
    peak: float

    @property
    def share(self) -> float:
        """Share of `peak` that training reaches, on the median round."""
        ordered = sorted(self.training)
        return TRAINING * self.flops * ordered[len(ordered) // 2] / self.peak


@dataclass(frozen=True)
class Range:
    """The least and the most that something may be."""

    low: float
    high: float

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Projection:
    """What one machine takes for one stage of a study.

    Attributes:
        study: Its name.
        stage: "training" or "features".
        machine: Its name.
        hours: How long it takes.
        usd: What that costs; None where no price is known.
        bound: What decides the speed, in words.
    """

    study: str
    stage: Stage
    machine: str
    hours: Range
    usd: Range | None
    bound: str


def all_reduce(parameters: int, devices: int, bytes_per_second: float) -> float:
    """Seconds that averaging the gradients over devices takes, by a ring, without latency.

    Each device sends 2(n − 1)/n of the gradients' bytes (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009).

    Args:
        parameters: That learn.
        devices: That train together; 1 takes no time.
        bytes_per_second: What a device sends to the next one in a second.
    """
    return 0.0 if devices == 1 else 2 * (devices - 1) / devices * GRADIENT * parameters / bytes_per_second


@dataclass(frozen=True)
class Counted:
    """A network's arithmetic: operations of a forward pass of an image, and whether it convolves channel by channel."""

    flops: float
    depthwise: bool


@dataclass(frozen=True)
class Shares:
    """Shares of its peak that training reaches on a GPU, as follows from published speeds.

    Attributes:
        of: By whether a network convolves channel by channel: the least and the most.
        borrowed: Kinds for which they are those of other GPUs, since none is published of this one.
    """

    of: Mapping[bool, Range]
    borrowed: frozenset[bool]


def shares(name: str, gpus: Mapping[str, Gpu], counted: Mapping[tuple[str, int], Counted]) -> Shares:
    """The shares of a GPU: published images/s × operations an image ÷ peak.

    Args:
        name: The GPU.
        gpus: All that are known.
        counted: The arithmetic of each published network, by its name and the size of its images.
    """
    own = _published(gpus[name], counted)
    others = [each for other, gpu in gpus.items() if other != name for each in _published(gpu, counted)]
    found, borrowed = {}, set()
    for kind in (False, True):
        seen = [share for depthwise, share in own if depthwise is kind]
        if not seen:
            borrowed.add(kind)
            seen = [share for depthwise, share in others if depthwise is kind]
        if seen:
            found[kind] = Range(min(seen), max(seen))
    return Shares(found, frozenset(borrowed))


def _published(gpu: Gpu, counted: Mapping[tuple[str, int], Counted]) -> list[tuple[bool, float]]:
    """Of each published speed, whether its network is depthwise and the share of the peak that it is."""
    found = []
    for each in gpu.published:
        network = counted[each.network, each.image_size]
        operations = network.flops * (TRAINING if each.task == "training" else 1)
        found.append((network.depthwise, each.images_per_second * operations / (gpu.peak_tflops * 1e12)))
    return found


# --- machines


@dataclass(frozen=True)
class Rented:
    """A machine with GPUs.

    Attributes:
        name: Of the instance.
        price: What it has and costs.
        gpu: What each of its GPUs does.
        shares: Of the GPUs' peak.
    """

    name: str
    price: Price
    gpu: Gpu
    shares: Shares


def here(work: Work, rates: Rates, usd: float | None) -> list[Projection]:
    """This machine: training and augmentation share its processors, so that their times add up."""
    seconds = Range(
        *(
            work.epochs * (_passes(work) / training + work.train / augmentation)
            for training, augmentation in (
                (max(rates.training), max(rates.augmentation)),
                (min(rates.training), min(rates.augmentation)),
            )
        )
    )
    features = Range(work.images / max(rates.features), work.images / min(rates.features))
    said = "arithmetic, as measured"
    return _projected(work, HERE, {"training": (seconds, usd, said), "features": (features, usd, said)})


def cluster(work: Work, rates: Rates, nodes: int, gbit_per_second: float, usd: float | None) -> list[Projection]:
    """Nodes like this machine, which train together; one of them extracts the features, as scanbook does.

    The exchange of gradients hides behind the arithmetic in the best case, and adds to it in the worst.

    Args:
        work: What is to be done.
        rates: What was measured here.
        nodes: How many there are.
        gbit_per_second: What a node sends to the next one.
        usd: What an hour of a node costs; None where that is not known.
    """
    name = f"{CLUSTER}, {nodes} nodes"
    share = math.ceil(work.batch / nodes)
    exchange = all_reduce(rates.learning, nodes, gbit_per_second * 1e9 / 8)
    steps = work.epochs * math.ceil(work.train / work.batch)
    checked = work.epochs * work.validation / TRAINING / nodes

    def seconds(pick: type[max] | type[min], hidden: bool) -> float:
        node = share / pick(rates.together) + share / pick(rates.augmentation)
        step = max(node, exchange) if hidden else node + exchange
        return steps * step + checked / pick(rates.together)

    found = Range(seconds(max, True), seconds(min, False))
    bound = "the network between the nodes" if exchange > share / max(rates.together) else "arithmetic, on JAX"
    alone = Range(work.images / max(rates.features), work.images / min(rates.features))
    all_nodes = None if usd is None else usd * nodes
    stages = {"training": (found, all_nodes, bound), "features": (alone, usd, "one node extracts them")}
    return _projected(work, name, stages)


def rented(work: Work, rates: Rates, machine: Rented) -> list[Projection]:
    """A machine with GPUs, which train together where there are several; its processors augment and extract features.

    A step takes what its arithmetic takes at a share of the peak, and no less than thrice the smallest forward pass;
    the exchange of gradients adds to it in the worst case. Its processors must augment as fast: each counts as one of
    this machine's in the best case, and as half of one in the worst, since two of them share a core.

    Args:
        work: What is to be done.
        rates: What was measured here.
        machine: The machine.

    Raises:
        StudyError: No speed of such a network is published, of any GPU.
    """
    price, gpu = machine.price, machine.gpu
    if rates.depthwise not in machine.shares.of:
        kind = "depthwise" if rates.depthwise else "plain"
        raise StudyError(
            f"no speed of a network with {kind} convolutions is published in gpus of the price table, "
            f"so {work.network} on {machine.name} cannot be projected; add one"
        )
    reached = machine.shares.of[rates.depthwise]
    each = math.ceil(work.batch / price.gpus)
    exchange = all_reduce(rates.learning, price.gpus, (gpu.link_gb_per_second or math.inf) * 1e9)
    processors = Range(0.5 * price.vcpus / rates.cores, price.vcpus / rates.cores)
    steps = work.epochs * math.ceil(work.train / work.batch)
    ends, bounds = [], []
    for share, least, added, augmented in (
        (reached.high, min(gpu.forward_ms), 0.0, processors.high * max(rates.augmentation)),
        (reached.low, max(gpu.forward_ms), exchange, processors.low * min(rates.augmentation)),
    ):
        arithmetic = TRAINING * rates.flops * each / (share * gpu.peak_tflops * 1e12)
        causes = {
            "arithmetic": arithmetic,
            "the smallest step": TRAINING * least / 1000,
            "augmentation": work.batch / augmented,
        }
        causes = {cause: taken + (added if cause != "augmentation" else 0) for cause, taken in causes.items()}
        step = max(causes.values())
        checked = max(arithmetic, TRAINING * least / 1000) / TRAINING * work.validation / work.batch
        ends.append(steps * step + work.epochs * checked)
        bounds.append(max(causes, key=lambda cause: causes[cause]))
    features = Range(
        work.images / (processors.high * max(rates.features)), work.images / (processors.low * min(rates.features))
    )
    usd, said = price.usd_per_hour, " or ".join(dict.fromkeys(bounds))
    said = said.replace("augmentation", f"augmentation on {price.vcpus} vCPUs")
    by = f"OpenVINO on {price.vcpus} vCPUs"
    return _projected(work, machine.name, {"training": (Range(*ends), usd, said), "features": (features, usd, by)})


def _passes(work: Work) -> float:
    """Training images of an epoch, validation counted by its arithmetic: a forward pass is a third of a step."""
    return work.train + work.validation / TRAINING


def _projected(work: Work, machine: str, stages: Mapping[Stage, tuple[Range, float | None, str]]) -> list[Projection]:
    """Of seconds, USD an hour and what decides, by stage."""
    found = []
    for stage, (seconds, usd, bound) in stages.items():
        hours = seconds * (1 / 3600)
        found.append(Projection(work.study, stage, machine, hours, None if usd is None else hours * usd, bound))
    return found


def break_even(here: Projection, other: Projection) -> Range:
    """USD an hour of this machine: below the low end it is surely the cheaper one, above the high end the dearer one.

    Args:
        here: This machine's.
        other: That of a machine whose cost is known, for the same stage of the same study.
    """
    assert other.usd
    return Range(other.usd.low / here.hours.high, other.usd.high / here.hours.low)
