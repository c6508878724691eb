"""Trains a study's networks in one process, on all GPUs of a machine, or in the processes of a job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scanbook import runtime, store
from scanbook.config import Study, Sweep
from scanbook.config.block import check_name
from scanbook.data.manifest import TRAIN, VALIDATION
from scanbook.errors import RunError, ScanbookError, StudyError
from scanbook.reporting.records import HISTORY_COLUMNS
from scanbook.runner import tracking
from scanbook.runner.origin import commit
from scanbook.runtime import distribution, steps

if TYPE_CHECKING:
    from scanbook.training import TrainedModel  # which imports Keras, whose backend is chosen first
    from scanbook.training.end_to_end import EndToEndTraining

_LOST = re.compile(r"UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|Gloo|NCCL|[Hh]eartbeat")
"""Words in JAX's messages when another process does not answer any more."""


def choose_distribution(requested: str, addresses: Sequence[str] = ()) -> str:
    """Return how to train: "none" or "data-parallel".

    Args:
        requested: "none", "data-parallel" or "auto", which is data parallelism if this process is one of several of a
            job, or the machine has several GPUs.
        addresses: Addresses of the processes of a job, if given.

    Raises:
        RunError: One process was requested, and this is one of several.
    """
    several = len(addresses) > 1 or distribution.slurm_tasks() > 1
    if requested == "none" and several:
        count = len(addresses) or distribution.slurm_tasks()
        raise RunError(
            f"{count} processes were started to train with --distribute none, and each would train it all; "
            "start one, or remove --distribute"
        )
    if requested == "auto":
        return "data-parallel" if several or distribution.gpus() > 1 else "none"
    return requested


@dataclass(frozen=True)
class Request:
    """Which networks of a study to train.

    Attributes:
        backbone: A backbone; "" for the one that validation chooses, as notebook 05 does.
        scratch: Whether it starts from random weights, even if pretrained ones are available.
        policy: Augmentation of the training images; "" for the study's.
        seed: Seed of one network; None for one network of each of the study's seeds. The study's other random choices,
            such as its sample of images, stay.

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


def prepare_networks(study: Study, request: Request) -> list[EndToEndTraining]:
    """Return the networks to train, one for each seed; compute what they start from if it is missing.

    Raises:
        StudyError: There are no pretrained weights for the backbone, or no network, since the models take vectors.
    """
    from scanbook import segmentation, training
    from scanbook.data import pixels
    from scanbook.models import backbones

    if study.embeddings:
        raise StudyError(
            f"study {study.study}: the models take vectors, and there is no network to train; notebook 04 trains the "
            "head, or leave dataset.embeddings out"
        )
    manifest = segmentation.prepare(study)
    images = pixels.load(manifest, study.size)
    if request.policy:
        study = study.model_copy(update={"augmentation": request.policy})
    if request.seed is not None:
        study = study.model_copy(update={"seed": request.seed, "seeds": 1})
    backbone = request.backbone
    if request.scratch:
        name = backbone or study.backbones[0]
        return [training.scratch_training(seeded, manifest, images, name) for seeded in training.seeded_studies(study)]
    if backbone:
        available, missing = backbones.resolve(study.model_copy(update={"backbones": [backbone]}))
        if backbone in missing:
            raise StudyError(f"{missing[backbone]}; name another backbone, or train it with --from-scratch")
        weights = available.get(backbone, backbones.RANDOM)
    else:
        _, backbone, weights = training.select_base_model(study, manifest, images)
    return [
        training.end_to_end_training(seeded, manifest, images, backbone, weights)
        for seeded in training.seeded_studies(study)
    ]


def _logged_steps() -> AbstractContextManager[None]:
    """Return a context that prints every few seconds how far this process is, where nobody sees its progress bar."""
    return nullcontext() if runtime.interactive() else steps.logged(lambda line: print(line, flush=True))


def train_networks(study: Study, request: Request, record: Path | None = None) -> None:
    """Train a study's networks in this process, and print a line for each.

    Args:
        study: The study.
        request: Which networks.
        record: A JSON file for the result of one network; its predictions for the validation images are written before,
            into a CSV file of the same name. The test images are not used.

    Raises:
        RunError: The results of several networks would go into one file.
    """
    networks = prepare_networks(study, request)
    if record and len(networks) > 1:
        count = len(networks)
        raise RunError(f"--record takes one network, and study {study.study} has {count} seeds; name one: --seed")
    with _logged_steps():
        for network in networks:
            trained = network.run()
            print(_describe(trained, len(network.manifest.rows(TRAIN))))
            if record:
                _record(record, study, network, trained)


def train_together(
    study: Study,
    command: Sequence[str],
    request: Request,
    *,
    addresses: Sequence[str] = (),
    process: int | None = None,
) -> None:
    """Train a study's networks with the other processes of the job, or with all GPUs of this machine.

    One process on TensorFlow does what precedes training and what follows it: `command` does both. Between the two,
    every process computes the same, except for its share of each batch. The first process writes the checkpoints from
    which the last command goes on, and then becomes that command.

    Args:
        study: The study.
        command: Command that trains the same in one process; with `--prepare`, it stops where training starts.
        request: Which networks.
        addresses: As `distribution.join` takes them.
        process: As `distribution.join` takes it.

    Raises:
        RunError: The preparation failed. A later error in one of several processes ends it at once, with a line.
    """
    environment = {key: value for key, value in os.environ.items() if key != distribution.TASKS}  # they run alone
    # in every process: if they share a store, one computes what the others wait for
    if subprocess.run([*command, "--prepare"], env=environment, check=False).returncode:
        raise RunError("nothing was trained, since its preparation failed; see above")
    share = distribution.join(addresses, process)
    if share.process == 0:
        print(f"processes that train together: {share.processes}; devices: {share.devices}", flush=True)
    try:
        with ExitStack() as locks, _logged_steps() if share.process == 0 else nullcontext():
            for network in prepare_networks(study, request):
                network.run_distributed(locks)
            distribution.leave()
    except Exception as error:
        if share.processes == 1:
            raise
        _print_reason(error, share)
        os._exit(1)  # at once: JAX would wait for the others, and they for this one
    if share.process == 0:
        sys.stdout.flush()
        os.execve(command[0], list(command), environment)  # which also frees the devices


def _print_reason(error: Exception, share: distribution.Share) -> None:
    """Print why this process stops and, if another one was lost, what to do."""
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


def _record(file: Path, study: Study, network: EndToEndTraining, trained: TrainedModel) -> None:
    from scanbook.training import validation_loss

    own = {"backbones": [network.backbone], "augmentation": trained.policy, "seed": trained.seed}

    validation = network.manifest.predictions(VALIDATION, trained.logits(VALIDATION))
    validation.save(file.with_suffix(".csv"))
    facts = {
        "network": trained.name,
        "backbone": network.backbone,
        "policy": trained.policy,
        "seed": trained.seed,
        "fold": network.manifest.facts.get("fold"),
        "epochs": len(trained.history),
        "training images": len(network.manifest.rows(TRAIN)),
        "log loss": validation_loss(network.manifest, trained.logits(VALIDATION)),
        "seconds": trained.seconds,
        "split": VALIDATION,
        "study": study.model_copy(update=own | {"seeds": 1, "sweep": Sweep()}).resolved(),
        "history": trained.history[list(HISTORY_COLUMNS)].to_dict("list"),
        "versions": runtime.versions(),
        "hardware": runtime.describe_machine(),
        "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    store.write_json(file, facts)
    if logged := tracking.log(file):
        print(logged, flush=True)


def _describe(network: TrainedModel, images: int) -> str:
    history = network.history
    best, last = history.loc[history["validation_loss"].idxmin()], history.iloc[-1]
    epochs, rate = last["epoch"], images * last["epoch"] / last["seconds"]
    return (
        f"{network.label}: {epochs:.0f} epochs of {images:,} images, {last['seconds']:,.0f} s, {rate:,.0f} images/s; "
        f"validation loss {best['validation_loss']:.3f} and accuracy {best['validation_accuracy']:.3f} "
        f"after epoch {best['epoch']:.0f}"
    )
