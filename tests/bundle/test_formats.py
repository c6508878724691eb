"""Bundles of former formats: each is read for good, or refused with the command that exports it again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from helpers import stored
from helpers.uploads import png
from scanbook import bundle, cli
from scanbook.bundle import checking
from scanbook.bundle.description import FORMAT, READ
from scanbook.models import engines
from scanbook.models.engines import OpenVinoEngine
from scanbook.serving.app import create_app
from scanbook.serving.predictor import Predictor
from scanbook.serving.settings import Settings


@pytest.fixture(scope="module", params=READ)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return bundle.load(stored.unpack(request.param, tmp_path_factory.mktemp("old")))


def test_a_bundle_of_every_format_that_is_read_is_stored() -> None:
    names = {path.name for path in stored.FOLDER.glob("*.tar.xz")}
    kept = {*map(stored.archive, READ), stored.findings_archive()}
    assert names == {path.name for path in kept} and max(READ) == FORMAT
    assert sum(path.stat().st_size for path in stored.FOLDER.iterdir()) < 700 * 2**10


def test_an_old_bundle_is_read_and_served(old: bundle.Bundle) -> None:
    assert stored.archive(old.format).is_file() and old.precisions == ("fp32", "int8")
    assert old.classes == ("sky", "leaf", "brick") and old.label(0, "ko") == "하늘" and old.temperature == 1.7
    client = create_app(old.folder).test_client()
    answer = client.post("/predict", data=png(), content_type="image/png")
    assert answer.status_code == 200 and set(answer.get_json()["predictions"][0]["probabilities"]) == set(old.classes)
    page = client.get("/model-card").text
    assert "0.400 to 0.600" in page and "not a diagnosis" in page
    # before format 3 cards were not rendered at the export: their text is shown
    assert (re.search(r"<pre>---\nlicense: other\n", page) is not None) == (old.format < 3)
    assert ('<th scope="row">accuracy</th>' in page) == (old.format >= 3)
    assert client.get("/dataset-card").status_code == 200


def test_a_stored_bundle_of_findings_is_read_and_served(tmp_path: Path) -> None:
    folder = stored.unpack_findings(tmp_path)
    old = bundle.load(folder)
    assert old.findings == ("Atelectasis", "Cardiomegaly") and old.exam["rule"] == "maximum" and old.format == 4
    assert "8 test pictures get the answers of the export" in checking.check(folder)
    client = create_app(folder).test_client()
    answer = client.post("/predict?exam=1", data=png(), content_type="image/png").get_json()
    assert answer["predictions"][0]["present"] == answer["exam"]["present"] == ["Atelectasis"]
    assert client.get("/model-card").status_code == client.get("/dataset-card").status_code == 200


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_format_2_answers_as_it_did(precision: str, tmp_path: Path) -> None:
    """Its answers were stored beside it when it was exported, by the scanbook of that time."""
    old = bundle.load(stored.unpack(2, tmp_path))
    with np.load(stored.FOLDER / "format_2.npz") as table:
        expected, images = table[precision], table["images"]
    answers = OpenVinoEngine(old.model_path(precision)).predict(images)[0]
    tolerance = engines.PARITY if precision == "fp32" else 0.3  # in int8 processors differ
    assert engines.parity(engines.centred_log(expected), engines.centred_log(answers)) <= tolerance
    predictor = Predictor(old, Settings(precision=precision))
    by_service = [predictor.predict([png_of(image)])[0].probabilities for image in images]
    assert np.allclose(by_service, answers, atol=1e-6)


def png_of(pixels: np.ndarray) -> bytes:
    from scanbook.data.images import encode_png

    return encode_png(pixels)


def test_a_former_format_without_a_table_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stored.unpack(2, tmp_path)
    assert cli.main(["check", str(folder)]) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and "(format 2): " in error
    assert error.endswith("export it again: scanbook export --study planted --profile quick\n")


def test_todays_format_passes_its_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(stored.unpack(FORMAT, tmp_path))]) == 0
    assert f"(format {FORMAT}): " in capsys.readouterr().out


def test_a_layout_tells_files_and_keys_apart(tmp_path: Path) -> None:
    old, new = (stored.layout(stored.unpack(version, tmp_path / str(version))) for version in (2, 3))
    assert new[0] - old[0] == {"MODEL_CARD.html", "DATASET_CARD.html", "check/*.png", "check/*.json"}
    assert new[1] - old[1] == {f"check/answers.json: {key}" for key in ("processor", "decided", "answers")}
    assert not old[0] - new[0] and not old[1] - new[1]
    assert {"classes", "int8.change", "parity.*.difference", "operating_points.*.sensitivity.value"} <= old[1]
