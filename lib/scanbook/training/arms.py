"""What a study trains on the way to its model: heads on frozen backbones, the best of them as a whole, averages.

A trained network is chosen on validation; its test logits are computed once, when training is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from scanbook import runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import RANDOM, Weights
from scanbook.store import atomic_write, stage
from scanbook.training import trained as kept
from scanbook.training.head import Rows, fit_head
from scanbook.training.trained import Trained, validation_loss
from scanbook.training.whole import Whole, check_classes, fine_tuned, from_scratch


def transfer(
    study: Study,
    manifest: Manifest,
    images: np.ndarray,
    backbone: str,
    weights: Weights,
    *,
    policy: str | None = None,
) -> Trained:
    """Trains a head on the features of a frozen backbone.

    Args:
        study: Hyper-parameters, in `head`.
        manifest: The dataset, split.
        images: Its pixels, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its pretrained weights.
        policy: Augmentation of the training images, None for the head's own; unless it is "none", the head learns from
            `head.views` augmented copies of each beside the image itself.

    Returns:
        The whole network, backbone and head.

    Raises:
        ModelError: The weights are random, or the training images are of one class.
    """
    if weights == RANDOM:
        raise ModelError(
            f"backbone {backbone} has random weights; a frozen backbone must be pretrained, so set weights to auto"
        )
    policy = study.head.augmentation if policy is None else policy
    name = f"{backbone}, frozen"
    inputs = features.inputs(manifest, images, backbone, weights) | {
        "head": study.head,
        "policy": policy,
        "seed": study.seed,
    }

    def build(folder: Path) -> None:
        check_classes(study, manifest)
        runtime.configure(study.seed)
        found, extracting = features.extract(manifest, images, backbone, weights)
        rows, started = manifest.rows(TRAIN), time.perf_counter() - extracting
        x_train, y_train = [(found, rows)], manifest.one_hot(TRAIN)
        if policy != "none":
            views, labels, more = features.extract_views(
                manifest, images, backbone, weights, policy=policy, views=study.head.views, seed=study.seed
            )
            started = time.perf_counter() - extracting - more
            x_train += [(view, np.arange(len(rows))) for view in views]
            y_train = np.concatenate([y_train, *labels])
        head, history = fit_head(study, manifest, (Rows(x_train), y_train), found[manifest.rows(VALIDATION)])
        model = backbones.build(backbone, images.shape[1:3], len(manifest.classes), weights, study.head)
        for layer, values in zip(heads.head_layers(model), head, strict=True):
            layer.set_weights(values)
        kept.save(folder, model, history, manifest, images)
        kept.note_seconds(folder, started)

    return kept.trained(name, manifest, stage("transfer", inputs, build, __name__), policy, study.seed)


def scratch(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None) -> Trained:
    """A network trained from random weights, all layers, with the study's augmentation or another policy."""
    return from_scratch(study, manifest, images, backbone, policy).trained()


def fine_tune(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> Trained:
    """A pretrained network with a head, then trained in stages up to all layers."""
    return whole(study, manifest, images, backbone, weights).trained()


def whole(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> Whole:
    """What is trained as a whole with these weights: fine-tuned where they are pretrained, else from scratch."""
    if weights == RANDOM:
        return from_scratch(study, manifest, images, backbone)
    frozen = transfer(study, manifest, images, backbone, weights)
    return fine_tuned(study, manifest, images, backbone, weights, frozen=frozen)


def start(study: Study, manifest: Manifest, images: np.ndarray) -> tuple[Trained, str, Weights]:
    """The network that fine-tuning starts from, chosen by validation loss; its backbone and its weights.

    It is a frozen pretrained backbone with its head; where the study has no pretrained weights at all, a network from
    scratch, which fine-tuning then leaves as it is. `images` are of all rows, uint8 `(n, h, w, 3)`, here and below.
    """
    weights, _ = backbones.resolve(study)
    arms = {name: transfer(study, manifest, images, name, each) for name, each in weights.items()}
    arms = arms or {name: scratch(study, manifest, images, name) for name in study.backbones}
    best = min(arms, key=lambda name: validation_loss(manifest, arms[name].logits(VALIDATION)))
    return arms[best], best, weights.get(best, RANDOM)


def final(study: Study, manifest: Manifest, images: np.ndarray) -> Trained:
    """The study's model: the best start, fine-tuned where it is a pretrained one; of its first seed."""
    return repeats(study.model_copy(update={"seeds": 1}), manifest, images)[0]


def starts(study: Study, manifest: Manifest, images: np.ndarray) -> list[Trained]:
    """What `start` chose with the first seed, trained with each of the study's seeds."""
    _, name, weights = start(study, manifest, images)
    if weights == RANDOM:
        return [scratch(each, manifest, images, name) for each in seeded(study)]
    return [transfer(each, manifest, images, name, weights) for each in seeded(study)]


def repeats(study: Study, manifest: Manifest, images: np.ndarray) -> list[Trained]:
    """The study's model with each of its seeds; the backbone is chosen with the first."""
    _, name, weights = start(study, manifest, images)
    return [whole(each, manifest, images, name, weights).trained() for each in seeded(study)]


def seeded(study: Study) -> list[Study]:
    """The study with each of its seeds."""
    return [study.model_copy(update={"seed": study.seed + more}) for more in range(study.seeds)]


def averaged(study: Study, manifest: Manifest, images: np.ndarray, networks: Sequence[Trained]) -> Trained:
    """Networks of several seeds, and augmented views of each image, averaged in probability.

    Args:
        study: `evaluation.ensemble` and `evaluation.test_time_views` say what is averaged; neither leaves the first
            network as it is.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        networks: The study's model with each of its seeds.

    Returns:
        What answers as one network; its `model()` is the first network alone.
    """
    options = study.evaluation
    members = list(networks) if options.ensemble else [networks[0]]
    if len(members) == 1 and not options.test_time_views:
        return networks[0]
    counts = {"seeds": len(members), "views": 1 + options.test_time_views}
    what = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count > 1)
    name = f"{networks[0].name}, {what} averaged"
    inputs = {"networks": [each.folder.name for each in members], "views": options.test_time_views}

    def build(folder: Path) -> None:
        (folder / kept.MODEL).write_bytes((members[0].folder / kept.MODEL).read_bytes())
        atomic_write(folder / kept.HISTORY, members[0].history.to_csv(index=False))
        found = {}
        for split in (VALIDATION, TEST):
            rows = manifest.rows(split)
            probabilities = [softmax(each.logits(split).astype(np.float64), axis=1) for each in members]
            for each in members if options.test_time_views else ():
                probabilities += _views(study, each, images, rows, f"views of {split} images")
            found[split] = np.log(np.maximum(np.mean(probabilities, axis=0), 1e-12)).astype(np.float32)
        np.savez(folder / kept.LOGITS, **found)
        atomic_write(folder / kept.SECONDS, f"{sum(each.seconds for each in members):.3f}\n")

    found = stage("averaged", inputs, build, __name__)
    return kept.trained(name, manifest, found, members[0].policy, study.seed)


def _views(study: Study, network: Trained, images: np.ndarray, rows: np.ndarray, said: str) -> list[np.ndarray]:
    """Probabilities of augmented views of the images of n rows, float64 `(n, k)` a view."""
    engine = engines.OpenVinoEngine(engines.to_openvino(network.model()), "throughput")
    augment = Augmenter(network.policy, len(rows), study.seed)
    starts = range(0, len(rows), engines.CHUNK)
    chunks = [np.arange(start, min(start + engines.CHUNK, len(rows))) for start in starts]
    found = []
    for view in runtime.progress(range(study.evaluation.test_time_views), said):
        logits = [engine.predict(augment(images[rows[chunk]], chunk, view))[0] for chunk in chunks]
        found.append(softmax(np.concatenate(logits).astype(np.float64), axis=1))
    return found
