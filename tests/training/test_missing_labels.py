"""Labels that are missing from a study of findings, on synthetic radiographs of which all labels are known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from helpers import planted
from scanbook import runtime
from scanbook.data.adapters.synthetic import chest, findings
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest, finding_column
from scanbook.models import backbones, features
from scanbook.training import head
from scanbook.training.head import Rows

KINDS = ("effusion", "atelectasis", "consolidation", "pneumothorax")
COUNTS = {TRAIN: 1500, VALIDATION: 300, TEST: 1800}
SIZE, SEEDS = 64, 5
NETWORK = "mobilenet_v2_0.35"


def films(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Radiographs of patients with three exams each, uint8 (n, SIZE, SIZE, 3), and what their reader states, (n, k)."""
    draw, count = np.random.default_rng(seed), sum(COUNTS.values())
    patients = np.arange(count) // 3
    liabilities = findings.sample_liabilities(KINDS, patients, draw)
    severities = np.stack([findings.severity(kind, liabilities[:, k]) for k, kind in enumerate(KINDS)], 1)
    chances = np.stack([findings.posterior(kind, severities[:, k]) for k, kind in enumerate(KINDS)], 1)

    def render(row: int) -> np.ndarray:
        shown = dict(zip(KINDS, severities[row].tolist(), strict=True))
        patient, own = np.random.default_rng([seed, 3, patients[row]]), np.random.default_rng([seed, 1, row])
        return chest.render(shown, patient, own, SIZE)

    with ThreadPoolExecutor() as pool:
        grey = np.stack(list(pool.map(render, range(count))))
    return np.repeat(grey[..., None], 3, -1), (draw.random(chances.shape) < chances).astype(float)


def areas(seed: int) -> np.ndarray:
    """AUROC on test of heads that learnt from all labels, from half of them, and with the others as absent, (3, k).

    One head has a column for each of the three and each finding, since each column is learnt as if it were alone.
    """
    images, present = films(seed)
    split = np.repeat(list(COUNTS), list(COUNTS.values()))
    learnt, draw = np.flatnonzero(split != TEST), np.random.default_rng([seed, 1])
    missing = np.zeros(present.shape, bool)
    for column in range(len(KINDS)):
        missing[draw.permutation(learnt)[: len(learnt) // 2], column] = True
    arms = [present, np.where(missing, np.nan, present), np.where(missing, 0, present)]
    frame = pd.DataFrame({"image_id": [f"i{row}" for row in range(len(images))], "path": "", "mask_path": ""})
    frame = frame.assign(group=(np.arange(len(images)) // 3).astype(str), split=split)
    names = [f"{kind} {arm}" for arm in range(3) for kind in KINDS]
    stated = pd.DataFrame(np.concatenate(arms, 1), columns=list(map(finding_column, names)))
    manifest = Manifest.of_findings(f"films {seed}", pd.concat([frame, stated], axis=1), names)
    values, _ = features.extract(manifest, images, NETWORK, backbones.pretrained(NETWORK, "scanbook"))
    study = planted.study(image_size=SIZE, head={"epochs": 8, "batch_size": 128}, seed=seed)
    rows = Rows([(values, manifest.rows(TRAIN))])
    runtime.configure(seed)
    ((kernel, bias), *_), _ = head.fit_head(
        study, manifest, (rows, manifest.label_values(TRAIN)), values[manifest.rows(VALIDATION)]
    )
    logits = values[manifest.rows(TEST)] @ kernel + bias
    known = present[split == TEST]
    scores = logits.reshape(len(known), 3, len(KINDS))
    return np.array([[roc_auc_score(known[:, k], scores[:, arm, k]) for k in range(len(KINDS))] for arm in range(3)])


@pytest.mark.slow
def test_half_of_the_labels_cost_little_on_radiographs(tmp_path, monkeypatch):
    """Of each finding, over five datasets; the mean loss is larger where those that are missing count as absent."""
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")
    whole, half, absent = np.stack([areas(seed) for seed in range(SEEDS)], axis=1)  # each (seeds, k)
    half_width = stats.t.ppf(0.975, SEEDS - 1) / np.sqrt(SEEDS)  # of Student's interval, in standard deviations
    loss, gain = whole - half, (half - absent).mean(axis=1)
    assert (loss.mean(axis=0) + half_width * loss.std(axis=0, ddof=1) < 0.03).all(), loss
    assert gain.mean() - half_width * gain.std(ddof=1) > 0, gain
