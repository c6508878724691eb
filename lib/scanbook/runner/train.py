"""A study's networks trained by one process, by all GPUs of a machine, or by the processes of a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scanbook import store
from scanbook.config import Study
from scanbook.config.block import check_name
from scanbook.data.manifest import TRAIN, VALIDATION
from scanbook.errors import RunError, ScanbookError, StudyError
from scanbook.runtime import distribution

if TYPE_CHECKING:
    from scanbook.training import Trained  # which imports Keras, whose backend is chosen first
    from scanbook.training.whole import Whole

_LOST = re.compile(r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|Gloo|NCCL|[Hh]eartbeat")
"""What JAX says, among other things, where another process does not answer any more."""


def choose_distribution(wanted: str, addresses: Sequence[str] = ()) -> str:
    """How to train: "none" or "data-parallel".

    Args:
        wanted: "none", "data-parallel" or "auto", which takes data parallelism where this process is one of several of
            a job, or the machine has several GPUs.
        addresses: Those of the processes of a job, where they were given.

    Raises:
        RunError: One process was asked for, and this is one of several.
    """
    several = len(addresses) > 1 or distribution.slurm_tasks() > 1
    if wanted == "none" and several:
        count = len(addresses) or distribution.slurm_tasks()
        raise RunError(
            f"{count} processes were started to train with --distribute none, and each would train it all; "
            "start one, or leave --distribute out"
        )
    if wanted == "auto":
        return "data-parallel" if several or distribution.gpus() > 1 else "none"
    return wanted


@dataclass(frozen=True)
class Wanted:
    """Which of a study's networks are to be trained.

    Attributes:
        backbone: A backbone; "" for the one that validation chooses, as notebook 05 does.
        scratch: Whether it starts from random weights, whatever weights there are.
        policy: Augmentation of the training images; "" for the study's.
        seed: Seed of the one network that is wanted; None for one of each of the study's seeds. What the study draws
            beside training, such as its sample of images, stays.

    Raises:
        StudyError: The backbone or the policy is unknown.
    """

    backbone: str = ""
    scratch: bool = False
    policy: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        try:
            for kind, name in (("backbone", self.backbone), ("policy", self.policy)):
                if name:
                    check_name(kind, name)
        except ValueError as error:
            raise StudyError(str(error)) from None


def networks(study: Study, wanted: Wanted) -> list[Whole]:
    """What is to be trained, a network a seed. What it starts from is made now if it is missing.

    Raises:
        StudyError: There are no pretrained weights for the backbone.
    """
    from scanbook import segmentation, training
    from scanbook.data import pixels
    from scanbook.models import backbones
    from scanbook.training.whole import from_scratch

    manifest = segmentation.prepare(study)
    images = pixels.load(manifest, study.size)
    if wanted.policy:
        study = study.model_copy(update={"augmentation": wanted.policy})
    if wanted.seed is not None:
        study = study.model_copy(update={"seed": wanted.seed, "seeds": 1})
    backbone = wanted.backbone
    if wanted.scratch:
        name = backbone or study.backbones[0]
        return [from_scratch(each, manifest, images, name) for each in training.seeded(study)]
    if backbone:
        found, missing = backbones.resolve(study.model_copy(update={"backbones": [backbone]}))
        if backbone in missing:
            raise StudyError(f"{missing[backbone]}; name another backbone, or train it with --from-scratch")
        weights = found.get(backbone, backbones.RANDOM)
    else:
        _, backbone, weights = training.start(study, manifest, images)
    return [training.whole(each, manifest, images, backbone, weights) for each in training.seeded(study)]


def train(study: Study, wanted: Wanted, record: Path | None = None) -> None:
    """Trains a study's networks in this process, and says a line of each.

    Args:
        study: The study.
        wanted: Which.
        record: A file for what became of the one network that is wanted, JSON; its predictions for the validation
            images go into a CSV file of the same name, before. The test images are left alone.

    Raises:
        RunError: What became of several networks is to go into one file.
    """
    found = networks(study, wanted)
    if record and len(found) > 1:
        raise RunError(f"--record takes one network, and study {study.study} has {len(found)} seeds; name one: --seed")
    for network in found:
        trained = network.trained()
        print(_described(trained, len(network.manifest.rows(TRAIN))))
        if record:
            _record(record, network, trained)


def train_together(
    study: Study,
    command: Sequence[str],
    wanted: Wanted,
    *,
    addresses: Sequence[str] = (),
    process: int | None = None,
) -> None:
    """Trains a study's networks with the other processes of the job, or with all GPUs of this machine.

    What precedes training and what follows it takes one process, on TensorFlow: `command` does both. Between the two
    every process computes the same, but for its part of each batch, and the first one writes the checkpoints that the
    last command goes on from; this process becomes that command.

    Args:
        study: The study.
        command: Trains the same in one process; with `--prepare`, it stops where training starts.
        wanted: Which.
        addresses: As `parallel.join` takes them.
        process: As `parallel.join` takes it.

    Raises:
        RunError: What training starts from could not be made. What happens later in one of several processes ends it
            there and then, with a line.
    """
    environment = {key: value for key, value in os.environ.items() if key != distribution.TASKS}  # those are alone
    # in every process: where they share a store, one makes what the others wait for
    if subprocess.run([*command, "--prepare"], env=environment, check=False).returncode:
        raise RunError("nothing was trained, since what training starts from could not be made; see above")
    share = distribution.join(addresses, process)
    if share.process == 0:
        print(f"processes that train together: {share.processes}; devices: {share.devices}", flush=True)
    try:
        with ExitStack() as held:
            for network in networks(study, wanted):
                network.train_together(held)
            distribution.leave()
    except Exception as error:
        if share.processes == 1:
            raise
        _say(error, share)
        os._exit(1)  # at once: JAX would wait for the others, and they for this one
    if share.process == 0:
        sys.stdout.flush()
        os.execve(command[0], list(command), environment)  # and so this process lets go of the devices


def _say(error: Exception, share: distribution.Share) -> None:
    """Says why this process stops; where another one was lost, what to do."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, ScanbookError):
        print(f"scanbook: {reason}", file=sys.stderr)
    elif _LOST.search(str(error)):
        print(
            f"scanbook: process {share.process} of {share.processes} lost another one ({reason}); run the same again "
            "on as many processes as you like: training goes on after the last epoch that was finished",
            file=sys.stderr,
        )
    else:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()


def _record(file: Path, network: Whole, trained: Trained) -> None:
    from scanbook.training import validation_loss

    validation = network.manifest.predictions(VALIDATION, trained.logits(VALIDATION))
    validation.save(file.with_suffix(".csv"))
    facts = {
        "network": trained.name,
        "backbone": network.backbone,
        "policy": trained.policy,
        "seed": trained.seed,
        "epochs": len(trained.history),
        "training images": len(network.manifest.rows(TRAIN)),
        "log loss": validation_loss(network.manifest, trained.logits(VALIDATION)),
        "seconds": trained.seconds,
    }
    store.write_json(file, facts)


def _described(network: Trained, images: int) -> str:
    history = network.history
    best, last = history.loc[history["validation_loss"].idxmin()], history.iloc[-1]
    epochs, rate = last["epoch"], images * last["epoch"] / last["seconds"]
    return (
        f"{network.arm}: {epochs:.0f} epochs of {images:,} images, {last['seconds']:,.0f} s, {rate:,.0f} images/s; "
        f"validation loss {best['validation_loss']:.3f} and accuracy {best['validation_accuracy']:.3f} "
        f"after epoch {best['epoch']:.0f}"
    )
