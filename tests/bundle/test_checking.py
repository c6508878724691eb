"""The test table of a bundle: it shows no patient, and it tells the exported model from any other."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import CLASSES, SIZE, colour_graph, exchange_model, write, write_all_formats
from scanbook import bundle, cli
from scanbook.bundle import checking
from scanbook.bundle.checking import ANSWERS, TOLERANCES
from scanbook.bundle.description import FORMAT
from scanbook.data import images
from scanbook.errors import BundleError
from scanbook.models.engines import OpenVinoEngine
from scanbook.serving.predictor import Predictor
from scanbook.store import file_digest, write_json


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    folder = tmp_path_factory.mktemp("every")
    return write(folder / "bundle", models=write_all_formats(folder))


@pytest.fixture
def copy(every: bundle.Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(every.folder, tmp_path / "copy"))


def reseal(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file and its checksum."""
    (folder / name).write_bytes(data)
    sums = json.loads((folder / "checksums.json").read_text())
    write_json(folder / "checksums.json", sums | {name: file_digest(folder / name)})


def test_the_table_holds_tiles_of_colours_and_the_answers_to_them(every: bundle.Bundle) -> None:
    answers = json.loads((every.folder / ANSWERS).read_text())["answers"]
    assert set(answers) == {"fp32", "int8"}
    paths = sorted((every.folder / "check").glob("*.png"))
    assert len(paths) == len(answers["fp32"]) == checking.PICTURES
    classes = set()
    for path, stored in zip(paths, answers["fp32"], strict=True):
        pixels = images.read(path)
        # at most 8 × 8 tiles of one colour each: nothing that shows anybody
        assert pixels.shape == (*SIZE, 3) and len(np.unique(pixels.reshape(-1, 3), axis=0)) <= 64
        assert OpenVinoEngine(every.model_path()).predict(pixels[None])[0][0] == pytest.approx(stored, abs=1e-6)
        classes.add(CLASSES[int(np.argmax(stored))])
    assert len(classes) > 1
    sizes = [path.stat().st_size for path in (every.folder / "check").iterdir()]
    assert sum(sizes) < 64 * 2**10


def test_a_sound_bundle_says_what_was_compared(every: bundle.Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(every.folder)]) == 0
    out, error = capsys.readouterr()
    assert out.startswith(f"{every.folder} (format {FORMAT}): ") and out.count("\n") == 1 and not error
    assert "8 test pictures" in out and "(fp32)" in out and "(int8) of their spread" in out
    # the bundle's own code says the same, in the folder itself
    own = subprocess.run(
        [sys.executable, "-m", "scanbook.serving", "check"],
        cwd=every.folder,
        env=os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (own.returncode, own.stdout) == (0, out), own.stderr


def failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["check", str(folder)]) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    return error


def test_other_weights_with_their_own_checksums_are_noticed(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange_model(copy, colour_graph(tmp_path / "other.xml", gain=4.99))
    bundle.load(copy)  # by its files it is sound
    assert "fp32 model does not answer as at the export: on 8 test pictures logits differ by 0.0" in failure(
        copy, capsys
    )
    with pytest.raises(BundleError, match="does not answer as at the export"):
        Predictor(bundle.load(copy))
    shutil.copytree(copy, tmp_path / "int8")
    assert Predictor(bundle.load(copy), precision("int8")).bundle.precisions == ("fp32", "int8")


def precision(name: str):
    from scanbook.serving.settings import Settings

    return Settings(precision=name)


def test_a_model_of_another_order_of_channels_is_noticed(every: bundle.Bundle) -> None:
    table = checking.read_table(every)
    engine = OpenVinoEngine(every.model_path())
    assert checking.compare(every, "fp32", table, engine.predict(table.pixels)[0]) < 1e-6
    swapped = engine.predict(np.ascontiguousarray(table.pixels[..., ::-1]))[0]
    with pytest.raises(BundleError, match=r"and [1-8] get another class or abstention"):
        checking.compare(every, "fp32", table, swapped)


@pytest.mark.parametrize(("share", "allowed"), [(0.9, True), (1.1, False)])
@pytest.mark.parametrize("name", ["fp32", "int8"])
def test_the_tolerance_is_a_share_of_the_spread(every: bundle.Bundle, name: str, share: float, allowed: bool) -> None:
    """One logit of one picture is moved, centred as the logits are, and the answers are its softmax again."""
    table = checking.read_table(every)
    stored = np.log(table.answers[name])
    logits = stored - stored.mean(1, keepdims=True)
    moved = logits.copy()
    row, top = 0, int(logits[0].argmax())
    moved[row, top] += share * TOLERANCES[name] * logits.std() * 3 / 2  # centring takes a third of it away
    answers = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
    if allowed:
        assert checking.compare(every, name, table, answers) == pytest.approx(share * TOLERANCES[name], rel=1e-6)
    else:
        with pytest.raises(BundleError, match="and 0 get another class"):
            checking.compare(every, name, table, answers)


def test_an_abstention_that_differs_is_noticed(every: bundle.Bundle) -> None:
    """Within the tolerance of int8, but to the other side of the threshold."""
    table = checking.read_table(every)
    answers = table.answers["int8"].copy()
    near = checking.Table(table.pixels, {"int8": answers})
    answers[0] = (0.6 + 1e-4, 0.2, 0.2 - 1e-4)
    other = answers.copy()
    other[0] = (0.6 - 1e-4, 0.2, 0.2 + 1e-4)
    with pytest.raises(BundleError, match="and 1 get another class or abstention"):
        checking.compare(every, "int8", near, other)


def table_of(rows: list[list[float]]) -> bytes:
    return json.dumps({"processor": "", "answers": {"fp32": rows, "int8": rows}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "about"),
    [
        (ANSWERS, b"{}", "'answers'"),
        (ANSWERS, b"[]", "not the test table"),
        (ANSWERS, b'{"answers": {"int8": [[0.1, 0.9]]}}', "'fp32'"),
        (ANSWERS, table_of([[0.1, 0.9]]), "an answer for each picture and class"),
        (ANSWERS, table_of([]), "an answer for each picture and class"),
        (ANSWERS, table_of([[math.nan] * 3] * 8), "does not answer"),
        ("check/0.png", b"no picture", "not the test table"),
    ],
)
def test_a_table_that_is_none_is_refused(
    copy: Path, name: str, data: bytes, about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reseal(copy, name, data)
    assert about in failure(copy, capsys)


def test_a_table_that_was_taken_out_is_missed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "check")
    sums = json.loads((copy / "checksums.json").read_text())
    write_json(copy / "checksums.json", {name: digest for name, digest in sums.items() if "check/" not in name})
    assert "not the test table" in failure(copy, capsys)


def test_int8_is_compared_only_on_the_kind_of_processor_that_exported_it(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = colour_graph(tmp_path / "other.xml", gain=2)
    exchange_model(copy, other, "model_int8")
    assert "int8 model does not answer as at the export" in (message := failure(copy, capsys))
    assert message.endswith("or this processor computes int8 otherwise: serve fp32\n")
    table = json.loads((copy / ANSWERS).read_text())
    reseal(copy, ANSWERS, json.dumps(table | {"processor": "another"}).encode())
    assert cli.main(["check", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "(fp32) of their spread; int8 was exported on another kind of processor, so it was not compared\n" in out
    assert Predictor(bundle.load(copy), precision("int8"))
    exchange_model(copy, other)
    assert "fp32 model does not answer as at the export" in failure(copy, capsys)


def test_a_changed_file_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "model.keras").write_bytes(b"other")
    assert "model.keras was changed after the export" in failure(copy, capsys)


def test_of_a_model_that_decides_nothing_the_logits_are_compared(tmp_path: Path) -> None:
    """A network of one epoch may answer every picture alike; its bundle can be written and checked."""
    bundle = write(tmp_path / "bundle", graph={"gain": 0})
    table = checking.read_table(bundle)
    assert not table.decided and len(table.pixels) == checking.PICTURES
    assert f"{checking.PICTURES} test pictures get logits that differ by at most 0" in checking.check(bundle.folder)
    other = np.roll(np.eye(len(CLASSES)), 1)[:1].repeat(checking.PICTURES, 0)
    with pytest.raises(BundleError, match="does not answer as at the export"):
        checking.compare(bundle, "fp32", table, other)
