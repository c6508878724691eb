"""Origin of pretrained weights, and the results without the images of the pretraining."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import planted
from scanbook import evaluation, runtime
from scanbook.data.manifest import TEST
from scanbook.reporting import notebook, pretraining

NAME = "baseline_cnn"


def made(tmp_path, monkeypatch, **stated):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    known = {NAME: stated} if stated else {}
    return notebook.Session("05_fine_tuning", planted.study(bootstrap_rounds=40, pretraining=known))


def predictions(manifest):
    """Three of four images of the test split are right."""
    draw = np.random.default_rng(0)
    values = np.nan_to_num(manifest.label_values(TEST))
    return manifest.predictions(TEST, draw.normal(size=values.shape) + 3 * values)


def show(session, manifest, capsys, backbone=NAME, others=()):
    test = predictions(manifest)
    final = SimpleNamespace(backbone=backbone, others=others)
    models = SimpleNamespace(splits=[SimpleNamespace(final=final)], manifest=manifest)
    summary = evaluation.summary(test, rounds=40)
    pretraining.show_overlap(session, models, test, summary)
    session.finish()
    results = json.loads((session.folder / "results.json").read_text())
    for path in (session.folder / "tables").glob("*.csv"):
        assert pd.read_csv(path).notna().all(axis=None)
    return test, summary, results, capsys.readouterr().out


def listing(tmp_path, *lines):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("manifest", [planted.manifest(), planted.observed()], ids=["classes", "findings"])
def test_listed_images_are_counted_and_left_out(manifest, tmp_path, monkeypatch, capsys):
    names = manifest.frame["image_id"].iloc[manifest.rows(TEST)].tolist()
    chosen = [names[0], names[5], names[10]]
    path = listing(tmp_path, *(f"folder/{name.upper()}.jpg" for name in chosen), "another.png")
    session = made(tmp_path, monkeypatch, corpus_list=path)
    test, _, results, printed = show(session, manifest, capsys)
    assert results["pretraining_overlap"] == {"listed": 4, "test_images": 3, "test_groups": 3}
    assert f"3 test images of {len(names)} are among the 4 listed images of the pretraining" in printed
    rest = test.subset(~np.isin(test.image_id, chosen))
    [*metrics] = results["without_pretraining_images"]
    expected = evaluation.summary(rest, metrics, rounds=40)
    for name in metrics:
        shown = results["without_pretraining_images"][name]
        assert shown["value"] == pytest.approx(expected.loc[name, "value"], abs=1e-5)
        assert shown["low"] <= shown["value"] <= shown["high"]
    assert "auroc" in metrics and (session.folder / "figures" / "pretraining_overlap.svg").exists()


def test_lists_of_all_backbones_of_an_average_count(tmp_path, monkeypatch, capsys):
    manifest = planted.manifest()
    name = manifest.frame["image_id"].iloc[manifest.rows(TEST)[0]]
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, name))
    _, _, results, printed = show(session, manifest, capsys, backbone="small_cnn", others=(NAME,))
    assert results["pretraining_overlap"]["test_images"] == 1
    assert "names no list of the images on which small_cnn was pretrained" in printed


def test_images_are_found_by_the_digest_of_their_file(tmp_path, monkeypatch, capsys):
    from scanbook.store import file_digest

    manifest = planted.manifest()
    paths = manifest.frame["path"].iloc[manifest.rows(TEST)].map(runtime.path_in_project).tolist()
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, file_digest(paths[2])))
    _, _, results, printed = show(session, manifest, capsys)
    assert (
        results["pretraining_overlap"]["test_images"] == 1
        and "1 test image of 12 is among the 1 listed image" in printed
    )


def test_none_of_the_test_images_is_listed(tmp_path, monkeypatch, capsys):
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, "ILSVRC2012_val_00000001.JPEG"))
    _, _, results, printed = show(session, planted.manifest(), capsys)
    assert "None of the 12 test images is among the 1 listed image of the pretraining." in printed
    assert results["pretraining_overlap"] == {"listed": 1, "test_images": 0, "test_groups": 0}
    assert "without_pretraining_images" not in results


def test_all_test_images_are_listed(tmp_path, monkeypatch, capsys):
    manifest = planted.manifest()
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, *manifest.frame["image_id"]))
    _, _, _, printed = show(session, manifest, capsys)
    assert "No test image is left without them" in printed


def test_a_class_that_is_lost_is_said(tmp_path, monkeypatch, capsys):
    manifest = planted.manifest()
    test = manifest.frame.iloc[manifest.rows(TEST)]
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, *test["image_id"][test["label"] != "sky"]))
    _, _, _, printed = show(session, manifest, capsys)
    assert "Not defined on the 4 other test images, which lack leaf, brick: accuracy, " in printed


def test_patients_are_counted_where_the_source_names_them(tmp_path, monkeypatch, capsys):
    manifest = planted.manifest()
    frame = manifest.frame.assign(group=np.where(manifest.frame["label"] == "sky", "p1", manifest.frame["group"]))
    manifest = replace(manifest.with_frame(frame), facts={"names_groups": True})
    test = frame.iloc[manifest.rows(TEST)]
    listed = [*test["image_id"][test["group"] == "p1"].iloc[:2], *test["image_id"][test["label"] == "leaf"].iloc[:1]]
    session = made(tmp_path, monkeypatch, corpus_list=listing(tmp_path, *listed))
    _, _, results, printed = show(session, manifest, capsys)
    assert "3 test images of 12 (2 patients) are among the 3 listed images" in printed
    assert results["pretraining_overlap"]["test_groups"] == 2


@pytest.mark.parametrize(("content", "words"), [(None, "there is no list"), ("", "is empty")])
def test_a_list_that_cannot_be_used_is_said(content, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_text(content)
    session = made(tmp_path, monkeypatch, corpus_list=str(path))
    _, _, results, printed = show(session, planted.manifest(), capsys)
    assert f"Whether {NAME} was pretrained on test images is not known: " in printed and words in printed
    assert "pretraining_overlap" not in results


def test_a_study_without_a_list_says_so(tmp_path, monkeypatch, capsys):
    _, _, results, printed = show(made(tmp_path, monkeypatch), planted.manifest(), capsys)
    assert "names no list of the images on which baseline_cnn was pretrained" in printed and not results


def test_the_origin_is_a_table_and_a_result(tmp_path, monkeypatch, capsys):
    session = made(tmp_path, monkeypatch)
    weights = planted.weights()
    pretraining.show_origins(session, {NAME: weights}, {"vgg16": "no weights for vgg16"})
    session.finish()
    results = json.loads((session.folder / "results.json").read_text())["pretraining"][NAME]
    assert results["sha256"] == weights.digest and results["licence"] == "not stated"
    assert "Not run: no weights for vgg16." in capsys.readouterr().out
    pretraining.show_origins(session, {}, {"vgg16": "no weights for vgg16"})
