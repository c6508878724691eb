"""The bundle: it is read as it was written, and any inconsistency is an error of one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from helpers.bundles import CLASSES, SIZE, colour_graph, write, write_all_formats
from scanbook import bundle
from scanbook.errors import BundleError
from scanbook.store import file_digest, write_json


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def refused(folder: Path, about: str) -> str:
    with pytest.raises(BundleError) as caught:
        bundle.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert about in message
    return message


def test_what_is_written_is_read_back(whole):
    read = bundle.load(whole.folder)
    assert asdict(read) == asdict(whole)
    assert read.classes == CLASSES and read.image_size == SIZE and read.model_path().is_file()
    assert read.metrics["kappa"] == {"value": None}


def test_folder_holds_card_requirements_and_checksums(whole):
    names = {path.name for path in whole.folder.iterdir()}
    assert names == {
        *("bundle.json", "checksums.json", "MODEL_CARD.md", "model.xml", "model.bin", "scanbook"),
        *("requirements.txt", "Dockerfile", ".dockerignore", "cloudformation", "MODEL_CARD.html", "check"),
    }
    card = (whole.folder / "MODEL_CARD.md").read_text()
    assert (
        "| accuracy | 0.900 | 0.800 to 0.950 |" in card
        and "| kappa | not defined |  |" in card
        and "| images | 40 |" in card
    )
    assert "not a diagnosis" in card and "red, green, blue" in card and "plain \\| images" in card
    lines = (whole.folder / "requirements.txt").read_text().split()
    assert lines and all(re.fullmatch(r"[a-z-]+==[\d.]+", line) for line in lines)
    assert not any(line.startswith(("tensorflow", "keras", "pandas")) for line in lines)


def test_every_changed_byte_is_refused(copy):
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert len(files) > 15
    for number, path in enumerate(files):
        data = path.read_bytes()
        positions = sorted({0, len(data) // 2, len(data) - 1})
        if path.suffix != ".json":  # its checksum covers every byte alike
            positions = [positions[number % len(positions)]]
        for position in positions:
            changed = bytearray(data)
            changed[position] ^= 1
            path.write_bytes(changed)
            refused(copy, path.name if path.name != "checksums.json" else str(copy))
        path.write_bytes(data)
    bundle.load(copy)


def test_every_missing_file_is_refused(copy):
    for path in [path for path in copy.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        path.unlink()
        refused(copy, path.name)
        path.write_bytes(data)


def test_extra_file_is_refused_but_compiled_python_is_not(copy):
    (copy / "scanbook" / "__pycache__").mkdir()
    (copy / "scanbook" / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"x")
    bundle.load(copy)
    (copy / "scanbook" / "sitecustomize.py").write_text("")
    assert "remove it" in refused(copy, "sitecustomize.py")


def reseal(folder: Path, change) -> None:
    """Changes the description as a careless editor who also renews the checksums would."""
    path = folder / "bundle.json"
    values = json.loads(path.read_text())
    change(values)
    write_json(path, values)
    sums = json.loads((folder / "checksums.json").read_text())
    write_json(folder / "checksums.json", sums | {"bundle.json": file_digest(path)})


@pytest.mark.parametrize(
    ("change", "about"),
    [
        (
            lambda values: values["classes"].append("white"),
            "model.xml gives probabilities of 3 classes, bundle.json names 4",
        ),
        (lambda values: values.update(classes=["red", "green", "red"]), "names that differ"),
        (lambda values: values.update(image_size=[24, 16]), "expected u8 (24, 16, 3)"),
        (lambda values: values.update(abstain_below=1.2), "abstain_below is 1.2"),
        (lambda values: values.update(temperature="warm"), "temperature is 'warm'"),
        (lambda values: values.update(models={}), "an 'openvino' model"),
        (
            lambda values: values.update(format=1),
            "format 1, this scanbook reads 2, 3, 4, 5; export it again: scanbook export --study colours",
        ),
        (
            lambda values: values.update(format=1, name="a b", about={"profile": "quick"}),
            "--study 'a b' --profile quick",
        ),
        (lambda values: values.pop("format"), "format None, this scanbook reads 2, 3, 4, 5; export it again"),
        (lambda values: values.update(format=6), "format 6, this scanbook reads 2, 3, 4, 5; update scanbook"),
        (lambda values: values.update(format=True), "format True"),
        (lambda values: values.update(colour="red"), "colour"),
        (lambda values: values.pop("classes"), "classes"),
        (lambda values: values["models"].update(openvino="../model.xml"), "'../model.xml'"),
        (lambda values: values["models"].update(onnx="model.onnx"), "names the onnx model 'model.onnx'"),
        (lambda values: values["names"].update(ko=["빨강", "초록"]), "a name for each of the 3 classes"),
        (lambda values: values["names"].update(ko=["빨강", "초록", "초록"]), "names that differ"),
        (
            lambda values: values.update(operating_points={"warm": {"classes": ["orange"]}}),
            "operating_points.warm is ['orange']",
        ),
    ],
)
def test_description_that_does_not_fit_is_refused(copy, change, about):
    reseal(copy, change)
    refused(copy, about)


@pytest.mark.parametrize(
    ("graph", "about"),
    [
        ({"width": 2, "map_width": 2}, "probabilities of 2 classes"),
        ({"map_width": 2}, "heat maps of 2 classes"),
        ({"map_width": 0}, "1 outputs"),
        ({"swap": True}, "probabilities with 4 axes"),
        ({"size": (24, 16)}, "(24, 16, 3)"),
        ({"kind": np.float32}, "takes f32 images"),
        ({"layout": "NCHW", "map_width": 0}, "(3, 16, 24)"),
    ],
)
def test_model_that_does_not_fit_is_never_written(tmp_path, graph, about):
    with pytest.raises(BundleError, match=re.escape(about)):
        write(tmp_path / "bundle", graph=graph)
    assert {path.name for path in tmp_path.iterdir()} == {"model.xml", "model.bin"}


# formats


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every")
    names = {"pt": ("vermelho", "verde", "azul")}
    return write(folder / "bundle", models=write_all_formats(folder), names=names, dataset_card="# Colours\n")


@pytest.fixture
def every_copy(every, tmp_path):
    return Path(shutil.copytree(every.folder, tmp_path / "copy"))


def test_every_format_has_its_name_and_its_checksums(every):
    read = bundle.load(every.folder)
    assert read == every and read.models == bundle.FILES and read.precisions == ("fp32", "int8")
    assert (every.folder / "saved_model" / "variables" / "variables.index").read_bytes() == b"index"
    assert (
        read.model_path("int8") == every.folder / "model_int8.xml" and read.model_path() == every.folder / "model.xml"
    )
    assert (every.folder / "model_int8.bin").is_file()
    assert (every.folder / "DATASET_CARD.md").read_text() == "# Colours\n"
    sums = json.loads((every.folder / "checksums.json").read_text())
    assert {"saved_model/saved_model.pb", "saved_model/variables/variables.index", "model_int8.bin"} <= set(sums)


def test_classes_have_names_in_other_languages(every):
    assert [every.label(index, "pt") for index in range(3)] == ["vermelho", "verde", "azul"]
    assert [every.label(2, language) for language in ("en", "ko")] == ["blue", "blue"]


@pytest.mark.parametrize("name", ["saved_model/variables/variables.index", "model.keras", "model_int8.bin"])
def test_changed_byte_of_any_format_is_refused(every_copy, name):
    (every_copy / name).write_bytes(b"other")
    assert "changed after the export" in refused(every_copy, name)


def test_formats_that_no_service_runs_may_be_missing_each_as_a_whole(every_copy):
    shutil.rmtree(every_copy / "saved_model" / "variables")
    assert "missing" in refused(every_copy, "variables.index")
    shutil.rmtree(every_copy / "saved_model")
    (every_copy / "model.keras").unlink()
    assert set(bundle.load(every_copy).models) == {*bundle.FILES} - {"saved_model", "keras"}
    (every_copy / "model_int8.xml").unlink()
    assert "missing" in refused(every_copy, "model_int8.xml")


@pytest.mark.parametrize(
    ("graph", "about"),
    [
        ({"width": 2, "map_width": 2}, "model_int8.xml gives probabilities of 2 classes, bundle.json names 3"),
        ({"size": (8, 8)}, "model_int8.xml takes u8 images (8, 8, 3), expected u8 (16, 24, 3)"),
    ],
)
def test_int8_model_that_does_not_fit_is_never_written(tmp_path, graph, about):
    with pytest.raises(BundleError, match=re.escape(about)):
        write(tmp_path / "bundle", models=write_all_formats(tmp_path, **graph))
    assert not (tmp_path / "bundle").exists()


def test_a_precision_that_is_not_there_says_why(tmp_path):
    made = write(tmp_path / "bundle", excluded={"openvino_int8": "int8: right on 8 of 10"})
    with pytest.raises(BundleError, match=r"no int8 model \(int8: right on 8 of 10\); expected one of fp32"):
        made.model_path("int8")
    with pytest.raises(BundleError, match="no fp16 model; expected"):
        made.model_path("fp16")
    assert "OpenVINO int8 is not available: int8: right on 8 of 10." in (made.folder / "MODEL_CARD.md").read_text()


def test_everybody_may_read_and_nobody_else_write(every):
    for path in (every.folder, *every.folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_failed_export_keeps_the_old_bundle_and_a_good_one_replaces_it(tmp_path):
    folder = tmp_path / "bundle"
    write(folder)
    with pytest.raises(BundleError, match="temperature"):
        write(folder, temperature=0.0)
    assert bundle.load(folder).temperature == 1.5
    write(folder, temperature=2.0)
    assert bundle.load(folder).temperature == 2.0
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "model.xml", "model.bin"}


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").write_text("text")
    with pytest.raises(BundleError, match="not a bundle"):
        write(folder)
    assert (folder / "thesis.tex").read_text() == "text"
    refused(folder, "not a bundle")


def test_missing_model_files_are_named(tmp_path):
    graph = colour_graph(tmp_path / "model.xml")
    graph.with_suffix(".bin").unlink()
    with pytest.raises(BundleError, match=r"model\.bin is missing"):
        write(tmp_path / "bundle", models={"openvino": graph})
    with pytest.raises(BundleError, match="expected an 'openvino' model among them"):
        write(tmp_path / "bundle", models={"keras": graph})


def test_moved_bundle_answers(whole, copy):
    assert bundle.load(copy) == replace(whole, folder=copy)


@pytest.mark.parametrize("name", [".DS_Store", "scanbook/._images.py", "scanbook/__pycache__/images.pyc"])
def test_what_the_system_adds_by_itself_does_no_harm(tmp_path, name):
    made = write(tmp_path / "bundle")
    (made.folder / name).parent.mkdir(exist_ok=True)
    (made.folder / name).write_bytes(b"\0")
    assert bundle.load(made.folder).classes == made.classes


def test_bundle_runs_on_its_own_code(whole):
    """The code in the bundle is complete, is the code that runs, and imports no training library."""
    code = (
        "import scanbook, sys\n"
        "from scanbook.serving.app import create_app\n"
        "client = create_app('.').test_client()\n"
        "client.get('/')\n"
        "training = {'tensorflow', 'keras', 'pandas', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print(scanbook.__file__, client.get('/healthz').get_json()['model'], sorted(training))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=whole.folder,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split("\n")[0] == f"{whole.folder / 'scanbook' / '__init__.py'} colours []", run.stderr
