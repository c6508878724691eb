"""`scanbook embed`: the vectors are the features of notebook 04, a killed process loses a piece at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

from helpers.studies import ROOT, environment, results
from scanbook import cli, config, segmentation, training
from scanbook.data import embeddings, inputs, pixels
from scanbook.data.manifest import Manifest
from scanbook.errors import RunError, StudyError
from scanbook.models import backbones, engines, features
from scanbook.registry import EMBEDDINGS
from scanbook.runner import embed, train
from scanbook.runner.freshness import Batch
from scanbook.runner.sweeps import running

NETWORK = "mobilenet_v2_0.35"


def load(path: Path | None = None) -> config.Study:
    return config.load("synthetic", "smoke", overrides=f"dataset.embeddings={path}" if path else "")


class Colours:
    """A network whose vectors are mean colours; it stops after some pieces, as with Ctrl-C.

    Attributes:
        pieces: Number of images of each piece that it saw.
        most: Pieces after which it stops.
    """

    def __init__(self) -> None:
        self.pieces: list[int] = []
        self.most = 1000

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        if len(self.pieces) == self.most:
            raise KeyboardInterrupt
        self.pieces.append(len(images))
        return (images.mean(axis=(1, 2), dtype=np.float32),)

    def begin(self, most: int = 1000) -> None:
        self.pieces, self.most = [], most


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Colours:
    """Every network is this one, on pieces of 16 images."""
    colours = Colours()
    monkeypatch.setattr(embed, "PIECE", 16)
    monkeypatch.setattr(features, "open_backbone", lambda *_: colours)
    return colours


def test_heads_on_embedded_images_are_those_on_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vectors.npz"
    words = ["embed", "synthetic", "--profile", "smoke", "--backbone", NETWORK, "--to", str(path)]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "70 vectors of 1,280 channels, float32, by mobilenet_v2_0.35 at 64 × 64 pixels, pretrained on: " in output
    assert "2 images cannot be read" in output, "the planted ones"
    manifest = segmentation.prepare(load())
    images, weights = pixels.load(manifest, load().size), backbones.resolve(load())[0][NETWORK]
    expected, _ = features.extract(manifest, images, NETWORK, weights)
    used = manifest.frame["split"] != ""
    assert engines.parity(expected[used], inputs.load(load(path), manifest)[used]) < 1e-5
    of_pixels = training.train_head(load(), manifest, images, NETWORK, weights)
    of_vectors, name, found = training.select_base_model(load(path), manifest, inputs.load(load(path), manifest))
    assert name == EMBEDDINGS and found.in_words == "synthetic images"
    for split in ("validation", "test"):
        assert engines.parity(of_pixels.logits(split), of_vectors.logits(split)) < engines.base.PARITY
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_pieces_that_are_there_are_not_computed_again(
    tmp_path: Path, network: Colours, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = (embed.Task(load(), NETWORK, tmp_path / name) for name in ("whole.npz", "stopped.npz"))
    embed.run(whole)
    assert network.pieces == [16, 16, 16, 16, 6]
    network.begin(most=2)
    with pytest.raises(KeyboardInterrupt):
        embed.run(stopped)
    assert not stopped.path.exists()
    network.begin()
    embed.run(stopped)
    assert network.pieces == [16, 16, 6], "two were there"
    assert "continues after 2 of 5 pieces" in capsys.readouterr().err
    assert stopped.path.read_bytes() == whole.path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stopped.npz", "whole.npz"]


def test_pieces_of_another_size_are_not_used(tmp_path: Path, network: Colours) -> None:
    task = embed.Task(load(), NETWORK, tmp_path / "vectors.npz")
    network.begin(most=2)
    with pytest.raises(KeyboardInterrupt):
        embed.run(task)
    network.begin()
    larger = task.study.model_copy(update={"image_size": 96})
    embed.run(embed.Task(larger, NETWORK, task.path, "float16"))
    assert len(network.pieces) == 5
    with np.load(task.path) as archive:
        assert archive["vector"].dtype == np.float16 and archive["vector"].shape == (70, 3)
    about = embeddings.read(load(task.path)).about
    assert about["image_size"] == [96, 96] and about["backbone"] == NETWORK and about["weights"]
    assert list(tmp_path.iterdir()) == [task.path]


def test_cut_out_images_are_embedded_for_the_study_they_are_of(
    tmp_path: Path, network: Colours, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = {"input": "cutout", "method": "Otsu", "data": "a folder of the store"}
    cut: list[int] = []

    def cut_out(_: config.Study, manifest: Manifest) -> Manifest:
        cut.append(int((manifest.frame["split"] != "").sum()))
        return replace(manifest, facts=manifest.facts | derived)

    monkeypatch.setattr(segmentation, "cut", cut_out)
    task = embed.Task(load().model_copy(update={"input": "cutout"}), NETWORK, tmp_path / "vectors.npz")
    embed.run(task)
    assert cut == [sum(network.pieces)] == [70], "all that can be read, not those of the splits alone"
    study = load(task.path)
    assert "at 64 × 64 pixels, cut out by a mask, pretrained on" in embeddings.read(study).in_words
    manifest = segmentation.prepare(study.model_copy(update={"input": "cutout"}))
    assert inputs.load(study, manifest).shape == (72, 3), "nothing is cut out again"


def test_pieces_of_images_that_were_cut_out_otherwise_are_not_used(
    tmp_path: Path, network: Colours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another background, another method of segmentation, or splits that choose another one."""

    def cut_out(study: config.Study, manifest: Manifest) -> Manifest:
        facts = {"input": "cutout", "method": "Otsu", "data": f"cut out on {study.segmentation.background}"}
        return replace(manifest, facts=manifest.facts | facts)

    monkeypatch.setattr(segmentation, "cut", cut_out)
    white, black = (
        config.load("synthetic", "smoke", overrides=f"input=cutout segmentation.background={colour}")
        for colour in ("white", "black")
    )
    network.begin(most=2)
    with pytest.raises(KeyboardInterrupt):
        embed.run(embed.Task(white, NETWORK, tmp_path / "vectors.npz"))
    network.begin()
    embed.run(embed.Task(black, NETWORK, tmp_path / "vectors.npz"))
    assert len(network.pieces) == 5


@pytest.mark.parametrize(
    ("backbone", "to", "error", "says"),
    [
        ("mobile", "a.npz", StudyError, r"unknown backbone 'mobile'; expected one of .*hub:PRESET or file:PATH"),
        ("embeddings", "a.npz", StudyError, "unknown backbone 'embeddings'"),
        ("baseline_cnn", "a.npz", StudyError, "baseline_cnn has no pretrained weights; name another"),
        (NETWORK, "a.csv", RunError, r"--to is 'a.csv'; expected the name of an .npz file"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(
    backbone: str, to: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        embed.run(embed.Task(load(), backbone, tmp_path / to))


def test_commands_that_train_a_network_say_that_there_is_none(tmp_path: Path) -> None:
    study = load(tmp_path / "vectors.npz")
    with pytest.raises(StudyError, match="there is no network to train; notebook 04 trains the head"):
        train.prepare_networks(study, train.Request())
    with pytest.raises(StudyError, match="there is no network to train in a sweep"):
        running.run(Batch(study), 1)


KILLED = """
import sys, time
from pathlib import Path
from scanbook import config, runtime
runtime.configure()
from scanbook.models import features
from scanbook.runner import embed
embed.PIECE = 8
class Slow:
    def __init__(self, engine): self.engine = engine
    def predict(self, images):
        time.sleep(0.5)
        return self.engine.predict(images)
opened = features.open_backbone
features.open_backbone = lambda *about: Slow(opened(*about))
print(embed.run(embed.Task(config.load("synthetic", "smoke"), "mobilenet_v2_0.35", Path(sys.argv[1]))))
"""


@pytest.mark.slow
def test_a_killed_process_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    command, own = [sys.executable, "-c", KILLED, str(path)], environment(tmp_path)
    first = subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 300
        while len(list(tmp_path.glob(".vectors.npz.*.pieces/*.npy"))) < 3:
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.02)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    assert not path.exists()
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob(".vectors.npz.*.pieces/*.npy")}
    again = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"continues after {len(kept)} of 9 pieces" in again.stderr and "70 vectors" in again.stdout
    embed.run(embed.Task(load(), NETWORK, tmp_path / "whole.npz"))
    first, second = (embeddings.read(load(tmp_path / name)) for name in ("vectors.npz", "whole.npz"))
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-5)
    assert not list(tmp_path.glob(".vectors*"))


FIRST = "04_transfer_learning"
RUNS = {"synthetic": (FIRST, "07_export_flask"), "chexpert": ("05_fine_tuning",)}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_reports_of_a_study_of_vectors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of classes and of findings; each says what is not there and why."""
    for folder in ("store", "reports", "data"):
        monkeypatch.setenv(f"SCANBOOK_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "none"))
    path = tmp_path / "vectors.npz"
    study = config.load(name, "smoke", overrides="weights=scanbook")
    embed.run(embed.Task(study, NETWORK, path))
    for notebook in RUNS[name]:
        words = ["run", notebook, "--study", name, "--profile", "smoke", "--set", f"dataset.embeddings={path}"]
        done = subprocess.run(
            [sys.executable, "-m", "scanbook.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    recorded = results(tmp_path, name, "smoke", RUNS[name])
    folder = tmp_path / "reports" / name / "smoke"
    page = BeautifulSoup((folder / RUNS[name][-1] / "report.html").read_text(encoding="utf-8"), "html.parser")
    headings, text = [heading.get_text() for heading in page.find_all("h2")], " ".join(page.get_text().split())
    if name == "synthetic":
        assert recorded[FIRST]["best"] == "embeddings, head"
        assert recorded[FIRST]["learning_curve"]["embeddings, head"]["auroc"]["mean"]
        assert headings == ["Answer", "This run"], "no section is empty"
        assert "No bundle is exported: it needs the network that computes the vectors" in text
    else:
        assert recorded["05_fine_tuning"]["model"] == "embeddings, head"
        for sentence in ("nothing is fine-tuned, since there is no", "Robustness is not measured", "Grad-CAM is not"):
            assert sentence in text
