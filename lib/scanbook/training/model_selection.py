"""The models of a study: heads on frozen backbones, the best of them trained end to end, and averages of several.

A network is selected on validation; its test logits are computed once, when training is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanbook import registry, runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import RANDOM, Weights
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
    name = f"{backbone}, head" if backbone == EMBEDDINGS else f"{backbone}, frozen"
    return trained_model.read_training(name, manifest, folder, policy, study.seed)


def scratch_training(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None
) -> EndToEndTraining:
    """Return the training of a network from random weights, with the study's augmentation or another policy."""
    policy = study.augmentation if policy is None else policy
    architecture = backbones.architectures(study.model_copy(update={"backbones": [backbone]}))
    if backbone not in architecture:
        raise ModelError(f"backbone {backbone} is not on this machine and cannot be downloaded; name another one")
    return EndToEndTraining("scratch", study, manifest, images, backbone, architecture[backbone], policy)


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
    return EndToEndTraining("fine_tuning", study, manifest, images, backbone, weights, study.augmentation, frozen)


def select_base_model(study: Study, manifest: Manifest, images: np.ndarray) -> tuple[TrainedModel, str, Weights]:
    """Return the network with the lowest validation loss, from which fine-tuning starts; its backbone and weights.

    It is a frozen pretrained backbone with its head. If the study has no pretrained weights at all, it is a network
    from scratch, which fine-tuning leaves as it is. `images` are of all rows, uint8 `(n, h, w, 3)`, here and below.
    """
    weights, _ = backbones.resolve(study)
    candidates = {name: train_head(study, manifest, images, name, values) for name, values in weights.items()}
    if not candidates:
        candidates = {
            name: train_from_scratch(study, manifest, images, name) for name in backbones.architectures(study)
        }
    best = min(candidates, key=lambda name: validation_loss(manifest, candidates[name].logits(VALIDATION)))
    return candidates[best], best, weights.get(best, RANDOM)


def train_base_models(study: Study, manifest: Manifest, images: np.ndarray) -> list[TrainedModel]:
    """Return the base model trained with each of the study's seeds; it is selected with the first."""
    _, name, weights = select_base_model(study, manifest, images)
    if weights.random:
        return [train_from_scratch(seeded, manifest, images, name) for seeded in seeded_studies(study)]
    return [train_head(seeded, manifest, images, name, weights) for seeded in seeded_studies(study)]


def train_final_model(study: Study, manifest: Manifest, images: np.ndarray) -> TrainedModel:
    """Return the study's model, of its first seed: the base model, fine-tuned if its weights are pretrained."""
    return train_final_models(study.model_copy(update={"seeds": 1}), manifest, images)[0]


def train_final_models(study: Study, manifest: Manifest, images: np.ndarray) -> list[TrainedModel]:
    """Return the study's model trained with each of its seeds; the base model is selected with the first."""
    _, name, weights = select_base_model(study, manifest, images)
    if name == EMBEDDINGS:  # the model is the head on the vectors
        return train_base_models(study, manifest, images)
    return [end_to_end_training(seeded, manifest, images, name, weights).run() for seeded in seeded_studies(study)]


def seeded_studies(study: Study) -> list[Study]:
    """Return one copy of the study per seed."""
    return [study.model_copy(update={"seed": study.seed + offset}) for offset in range(study.seeds)]


def average_models(
    study: Study, manifest: Manifest, images: np.ndarray, networks: Sequence[TrainedModel]
) -> TrainedModel:
    """Average the probabilities of networks of several seeds, and of augmented views of each image.

    Args:
        study: Study whose `evaluation.ensemble` and `evaluation.test_time_views` say what is averaged; with neither,
            the first network is returned as it is.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        networks: The study's model with each of its seeds.

    Returns:
        The average as one network; its `load_model()` gives the first network alone.
    """
    options = study.evaluation
    members = list(networks) if options.ensemble else [networks[0]]
    if len(members) == 1 and not options.test_time_views:
        return networks[0]
    counts = {"seeds": len(members), "views": 1 + options.test_time_views}
    averaged = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count > 1)
    inputs = {"networks": [member.folder.name for member in members], "views": options.test_time_views}

    def build(folder: Path) -> None:
        (folder / trained_model.MODEL).write_bytes((members[0].folder / trained_model.MODEL).read_bytes())
        atomic_write(folder / trained_model.HISTORY, members[0].history.to_csv(index=False))
        objective, logits = objectives.of(manifest.labels), {}
        for split in (VALIDATION, TEST):
            rows = manifest.rows(split)
            of_members = [member.logits(split) for member in members]
            for member in members if options.test_time_views else ():
                of_members += _predict_views(study, member, images, rows, f"views of {split} images")
            average = np.mean([objective.probabilities(values) for values in of_members], axis=0)
            logits[split] = objective.logits(average).astype(np.float32)
        np.savez(folder / trained_model.LOGITS, **logits)
        atomic_write(folder / trained_model.SECONDS, f"{sum(member.seconds for member in members):.3f}\n")

    name, folder = f"{networks[0].name}, {averaged} averaged", stage("averaged", inputs, build, __name__)
    return trained_model.read_training(name, manifest, folder, members[0].policy, study.seed)


def _predict_views(
    study: Study, network: TrainedModel, images: np.ndarray, rows: np.ndarray, description: str
) -> list[np.ndarray]:
    """Return the logits of augmented views of the images of n rows, float32 `(n, k)` per view."""
    engine = engines.OpenVinoEngine(engines.to_openvino(network.load_model()), "throughput")
    augment = Augmenter(network.policy, len(rows), study.seed)
    of_views = []
    for view in runtime.progress(range(study.evaluation.test_time_views), description):
        logits = [
            engine.predict(augment(images[rows[chunk]], chunk, view))[0]
            for chunk in engines.chunks(np.arange(len(rows)))
        ]
        of_views.append(np.concatenate(logits))
    return of_views
