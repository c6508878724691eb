"""Reports and trials of a sweep notice that a file of pretrained weights, or a list of images, changed."""

import pytest

from scanbook import config
from scanbook.runner.freshness import Batch, study_fingerprint


def study(overrides):
    return config.load("synthetic", "smoke", "", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        "weights='{{mobilenet_v2_0.35: {path}}}'",
        "backbones='[\"file:{path}\"]' pretraining='{{\"file:{path}\": {{scaling: 0..1}}}}'",
        "backbones='[\"hub:{folder}\"]'",
    ],
)
def test_a_changed_file_changes_the_study(overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    path = tmp_path / "files" / "network.keras"
    path.parent.mkdir()
    named = study(overrides.format(path=path, folder=path.parent))
    prints = []
    for content in (None, b"a", b"b", b"a"):
        if content:
            path.write_bytes(content)
        prints.append(study_fingerprint(named))
    assert len(set(prints[:3])) == 3 and prints[3] == prints[1]


def test_a_changed_list_concerns_the_notebook_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    path = tmp_path / "list.txt"
    named = study(f"pretraining='{{mobilenet_v2_0.35: {{corpus_list: {path}}}}}'")
    prints = []
    for content in ("a", "b"):
        path.write_text(content)
        batch = Batch(named)
        prints.append([batch.fingerprints(name) for name in ("05_fine_tuning", "04_transfer_learning")])
    assert prints[0][0] != prints[1][0] and prints[0][1] == prints[1][1]
    assert "corpus lists" not in Batch(study("")).fingerprints("05_fine_tuning")
