"""The whole of HAM10000: it is split as published, and the required Dice is reached on lesions not trained on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from scanbook import config, segmentation
from scanbook.config import Study
from scanbook.data import adapters, pixels, splits
from scanbook.data.manifest import Manifest
from scanbook.segmentation.scores import dice, resize_masks

pytestmark = pytest.mark.slow
LEARNING = "segmentation.unet.epochs=8 segmentation.unet.images=800 segmentation.unet.learning_rate=0.004"


@pytest.fixture(scope="module")
def ham10000(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, Manifest, Path]]:
    """The study, the dataset in its splits, and the folder of the images."""
    folder = tmp_path_factory.mktemp("ham10000")
    with zipfile.ZipFile(real_data / "ham10000_200x150.zip") as file:
        file.extractall(folder / "images")
    root = next(folder.rglob("HAM10000_metadata.csv")).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCANBOOK_STORE", str(folder / "store"))
        study = config.load("ham10000", "quick", str(root), f"{LEARNING} segmentation.methods=[Otsu,U-Net]")
        yield study, splits.prepare(study), root


def test_ham10000_is_split_as_published(ham10000: tuple[Study, Manifest, Path]) -> None:
    study, split, root = ham10000
    manifest = adapters.load(study)
    assert len(manifest.frame) == 10015 and manifest.frame["group"].nunique() == 7470
    assert manifest.frame["label"].value_counts().to_dict() == study.dataset.claimed
    assert (manifest.frame["mask_path"] != "").all()
    source = pd.read_csv(root / "HAM10000_metadata.csv")
    fold = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    test = next(fold.split(source, source["dx"], source["lesion_id"]))[1]
    assert split.frame["image_id"].tolist() == source["image_id"].tolist()
    assert split.rows("test").tolist() == test.tolist() and len(test) == 2004
    used = split.frame[split.frame["split"] != ""]
    assert used.groupby("group")["split"].nunique().max() == 1
    validation = len(split.rows("validation"))
    assert 1500 < validation < 1700 and len(split.rows("train")) + validation + 2004 <= 10015


def test_real_lesions_are_found(ham10000: tuple[Study, Manifest, Path]) -> None:
    """Splits never share a lesion, everything is chosen on validation, and test is used once."""
    study, manifest, _ = ham10000
    images = pixels.load(manifest, study.size)
    experts, has_mask = pixels.masks(manifest, study.size)
    names = study.segmentation.methods
    predicted = {name: segmentation.segment(study, manifest, images, name, "test") for name in names}
    scores = segmentation.scores(manifest, "test", experts, has_mask, predicted).groupby("method")["dice"].mean()
    assert has_mask[manifest.rows("test")].sum() > 1900
    assert scores["U-Net"] >= 0.90 and scores["Otsu"] >= 0.78, scores
    test = manifest.with_frame(manifest.frame[manifest.frame["split"] == "test"])
    native_experts, _ = pixels.masks(test, (150, 200))
    at_native = {name: dice(native_experts, resize_masks(predicted[name], (150, 200))).mean() for name in names}
    assert at_native["U-Net"] >= 0.90 and at_native["Otsu"] >= 0.78, at_native
