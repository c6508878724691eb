"""The networks of a study: heads on frozen backbones, networks that are trained end to end, and averages of several.

The base model is selected on validation; test logits are computed once, when training is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scanbook import registry, runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import Weights
from scanbook.registry import EMBEDDINGS
from scanbook.store import atomic_write, stage
from scanbook.training import objectives, trained_model
from scanbook.training.end_to_end import EndToEndTraining, check_labels
from scanbook.training.head import Rows, fit_head
from scanbook.training.trained_model import TrainedModel, validation_loss


def train_head(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, *, policy: str | None = None
) -> TrainedModel:
    """Train a head on the features of a frozen backbone.

    Args:
        study: Study with the hyper-parameters, in `head`.
        manifest: The dataset, split.
        images: Images of all its rows, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its pretrained weights.
        policy: Augmentation policy of the training images, None for `head.augmentation`; unless it is "none", the head
            learns from `head.views` augmented copies of each image beside the image itself.

    Returns:
        The whole network, backbone and head.

    Raises:
        ModelError: The weights are random, or the training images do not show what is to be learnt.
    """
    if weights.random:
        raise ModelError(
            f"backbone {backbone} has random weights; a frozen backbone must be pretrained, so set weights to auto"
        )
    policy = study.head.augmentation if policy is None else policy
    inputs = features.inputs(manifest, images, backbone, weights)
    inputs |= {"head": study.head, "policy": registry.policy(policy), "seed": study.seed}

    def build(folder: Path) -> None:
        check_labels(study, manifest)
        runtime.configure(study.seed)
        values, extraction = features.extract(manifest, images, backbone, weights)
        rows, started = manifest.rows(TRAIN), time.perf_counter() - extraction
        x_train, y_train = [(values, rows)], manifest.label_values(TRAIN)
        if policy != "none":
            views, labels, extraction_of_views = features.extract_views(
                manifest, images, backbone, weights, policy=policy, views=study.head.views, seed=study.seed
            )
            started = time.perf_counter() - extraction - extraction_of_views
            x_train += [(view, np.arange(len(rows))) for view in views]
            y_train = np.concatenate([y_train, *labels])
        head, history = fit_head(study, manifest, (Rows(x_train), y_train), values[manifest.rows(VALIDATION)])
        model = backbones.build(backbone, images.shape[1:3], len(manifest.names), weights, study.head)
        for layer, arrays in zip(heads.head_layers(model), head, strict=True):
            layer.set_weights(arrays)
        trained_model.save_training(folder, model, history, manifest, images)
        trained_model.save_seconds(folder, started)

    folder = stage("transfer", inputs, build, __name__)
    return trained_model.read_training(backbone, "frozen", manifest, folder, policy=policy, seed=study.seed)


def scratch_training(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None
) -> EndToEndTraining:
    """Return the training of a network from random weights, with the study's augmentation or another policy."""
    policy = study.augmentation if policy is None else policy
    architecture = backbones.architectures(study.model_copy(update={"backbones": [backbone]}))
    if backbone not in architecture:
        raise ModelError(f"backbone {backbone} is not on this machine and cannot be downloaded; name another one")
    return EndToEndTraining(study, manifest, images, backbone, architecture[backbone], policy)


def scratch_backbones(study: Study) -> list[str]:
    """Return the networks that a study trains from scratch: those never pretrained, and the first of the others.

    They are none where the models take vectors, which have no network.
    """
    names = [name for name in backbones.architectures(study) if name != EMBEDDINGS]
    pretrained = [name for name in names if name in study.pretrained_backbones]
    return [name for name in names if name not in study.pretrained_backbones] + pretrained[:1]


def train_from_scratch(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None
) -> TrainedModel:
    """Train all layers from random weights, with the study's augmentation or another policy."""
    return scratch_training(study, manifest, images, backbone, policy).run()


def end_to_end_training(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights
) -> EndToEndTraining:
    """Return the training of all layers: fine-tuning if the weights are pretrained, else from scratch."""
    if backbone == EMBEDDINGS:
        raise ModelError("the models take vectors; there is no network to fine-tune: leave dataset.embeddings out")
    if weights.random:
        return scratch_training(study, manifest, images, backbone)
    frozen = train_head(study, manifest, images, backbone, weights)
    return EndToEndTraining(study, manifest, images, backbone, weights, study.augmentation, frozen)


def rank_base_models(study: Study, manifest: Manifest, images: np.ndarray) -> list[tuple[TrainedModel, str, Weights]]:
    """Return the networks from which fine-tuning can start, with their backbones and weights, the best first.

    They are frozen pretrained backbones with their heads, by validation loss. If the study has no pretrained weights at
    all, they are networks from scratch, which fine-tuning leaves as they are. `images` are of all rows, uint8
    `(n, h, w, 3)`, here and below.
    """
    weights, _ = backbones.resolve(study)
    candidates = {name: train_head(study, manifest, images, name, values) for name, values in weights.items()}
    if not candidates:
        weights = backbones.architectures(study)
        candidates = {name: train_from_scratch(study, manifest, images, name) for name in weights}
    losses = {name: validation_loss(manifest, network.logits(VALIDATION)) for name, network in candidates.items()}
    return [(candidates[name], name, weights[name]) for name in sorted(losses, key=losses.__getitem__)]


def select_base_model(study: Study, manifest: Manifest, images: np.ndarray) -> tuple[TrainedModel, str, Weights]:
    """Return the network with the lowest validation loss, from which fine-tuning starts; its backbone and weights."""
    return rank_base_models(study, manifest, images)[0]


def seeded_studies(study: Study) -> list[Study]:
    """Return one copy of the study per seed."""
    return [study.model_copy(update={"seed": study.seed + offset}) for offset in range(study.seeds)]


def average(
    study: Study, manifest: Manifest, images: np.ndarray, members: Sequence[TrainedModel], views: int
) -> TrainedModel:
    """Average the probabilities of networks, and of augmented views of each image.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        members: Networks of several seeds or backbones.
        views: Number of augmented views beside the image itself.

    Returns:
        The average as one network, whose `load_model()` gives the first network alone; a single network without views
        as it is.
    """
    if len(members) == 1 and not views:
        return members[0]
    seeds, names = {member.seed for member in members}, dict.fromkeys(member.name for member in members)
    counts = {"backbones": len(names), "seeds": len(seeds), "views": 1 + views}
    averaged = [f"{count} {kind}" for kind, count in counts.items() if count > 1]
    inputs = {"networks": [member.folder.name for member in members], "views": views}
    if views:
        inputs["policy"] = registry.view_policy(study.augmentation)

    def build(folder: Path) -> None:
        (folder / trained_model.MODEL).write_bytes((members[0].folder / trained_model.MODEL).read_bytes())
        atomic_write(folder / trained_model.HISTORY, members[0].history.to_csv(index=False))
        objective, logits = objectives.of(manifest.labels), {}
        for split in (VALIDATION, TEST):
            rows = manifest.rows(split)
            of_members = [member.logits(split) for member in members]
            for member in members if views else ():
                of_members += _predict_views(study, member, images[rows], views)
            average = np.mean([objective.probabilities(values) for values in of_members], axis=0)
            logits[split] = objective.logits(average).astype(np.float32)
        np.savez(folder / trained_model.LOGITS, **logits)
        atomic_write(folder / trained_model.SECONDS, f"{sum(member.seconds for member in members):.3f}\n")

    name, first = f"{' + '.join(names)}, {' and '.join(averaged)} averaged", members[0]
    folder = stage("averaged", inputs, build, __name__)
    network = trained_model.read_training(
        first.backbone, first.kind, manifest, folder, policy=first.policy, seed=study.seed, name=name
    )
    others = dict.fromkeys(member.backbone for member in members if member.backbone != first.backbone)
    return replace(network, others=tuple(others))


def _predict_views(study: Study, network: TrainedModel, images: np.ndarray, views: int) -> list[np.ndarray]:
    """Return the logits of augmented views of n images, float32 `(n, k)` per view."""
    engine = engines.OpenVinoEngine(engines.to_openvino(network.load_model()), "throughput")
    augment = Augmenter(registry.view_policy(study.augmentation), len(images), study.seed)
    of_views = []
    for view in runtime.progress(range(views), "augmented views"):
        logits = [
            engine.predict(augment(images[chunk], chunk, view))[0] for chunk in engines.chunks(np.arange(len(images)))
        ]
        of_views.append(np.concatenate(logits))
    return of_views
