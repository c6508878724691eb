"""Published figures are shown beside this run's, only on the real images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from scanbook import config, evaluation
from scanbook.config import Study
from scanbook.reporting import notebook, suite

STUDIES = ("chest_xray", "chestmnist", "chestxray14", "chexpert", "dermnet", "melanoma", "retinopathy", "skin11")


@pytest.mark.parametrize("name", STUDIES)
def test_a_notebook_shows_each_published_table(name: str) -> None:
    published = config.load(name).published
    assert published
    for table in published.values():
        sources = [cell["source"] for cell in suite.cells(table.notebook)]
        assert any("session.published(" in source for source in sources), table.notebook


def shown(chosen: Study, name: str, *measured: pd.DataFrame) -> dict[str, pd.DataFrame]:
    session = notebook.Session(name, chosen)
    session.published(*measured)
    return {path.stem: pd.read_csv(path, index_col=0) for path in (session.folder / "tables").glob("*.csv")}


def test_this_run_stands_beside_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    measured = pd.DataFrame({"precision": [0.25, 0.5], "brier": [0.1, 0.2]}, index=["eczema", "acne"])
    real = config.load("skin11", data=str(tmp_path))
    assert "precision in this run" not in shown(real, "05_fine_tuning", measured)["published_by_class"]
    session = notebook.Session("05_fine_tuning", real)
    session.published(measured, backbone="efficientnet_b5")
    table = pd.read_csv(session.folder / "tables" / "published_by_class.csv", index_col=0)
    assert table.loc["eczema", ["precision", "precision in this run"]].tolist() == [0.58, 0.25]
    assert table["precision in this run"].notna().sum() == 1
    assert "brier in this run" not in table and "acne" not in table.index


def test_results_on_synthetic_images_are_not_shown_beside_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "data"))
    synthetic = config.load("skin11")
    assert synthetic.on_stand_in and "synthetic" in synthetic.runs_on
    tables = shown(synthetic, "05_fine_tuning", pd.DataFrame({"precision": [0.25]}, index=["eczema"]))
    assert tables and not any("this run" in column for table in tables.values() for column in table)


def test_what_is_recomputed_stands_beside_what_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    tables = shown(config.load("dermnet", data=str(tmp_path)), "06_hardware_benchmark")
    strong = tables["published_strong_scaling"]
    assert strong.columns.tolist()[-4:] == [
        "speed-up (published)",
        "speed-up (recomputed)",
        "efficiency (published)",
        "efficiency (recomputed)",
    ]
    assert strong.loc["8 threads", ["efficiency (published)", "efficiency (recomputed)"]].tolist() == [0.535, 0.268]
    tables = shown(config.load("retinopathy", data=str(tmp_path)), "06_hardware_benchmark")
    assert tables["published_comparisons"].loc["c7g over m5", "VGG19 cost per prediction (recomputed)"] == "+14.18 %"


def test_the_first_arm_of_a_backbone_stands_for_it() -> None:
    arms = {"a, frozen": 0.8, "a, from scratch": 0.6, "b, from scratch": 0.7}
    tables = {name: pd.DataFrame({"value": [value]}, index=["accuracy"]) for name, value in arms.items()}
    assert evaluation.by_backbone(tables)["accuracy"].to_dict() == {"a": 0.8, "b": 0.7}


def test_a_study_runs_on_its_stand_in_where_it_has_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path))
    stand_in = config.load("melanoma")
    (tmp_path / "melanoma").mkdir()
    real = config.load("melanoma")
    assert stand_in.on_stand_in and not real.on_stand_in
    assert stand_in.resolved() != real.resolved()
    assert not config.load("dermnet", data=str(tmp_path)).on_stand_in
    assert not config.load("dermnet", data=config.KAGGLE).on_stand_in
    assert config.load("dermnet", data=config.KAGGLE).location == tmp_path / "dermnet"


def test_a_files_limit_is_of_the_real_images_and_an_own_one_of_any(tmp_path: Path) -> None:
    assert config.load("melanoma", data=str(tmp_path)).limit == 8000
    assert config.load("melanoma").limit is None
    assert config.load("melanoma", overrides="limit=100").limit == 100


def test_a_study_knows_every_place_that_its_data_lie_in(tmp_path: Path) -> None:
    for name in ("images/train", "masks", "normal"):
        (tmp_path / name).mkdir(parents=True)
    overrides = f"dataset.image_folders=[train] dataset.mask_folder=../masks dataset.extra_classes.n={tmp_path}/normal"
    loaded = config.load("melanoma", data=str(tmp_path / "images"), overrides=overrides)
    assert loaded.sources == [tmp_path / "images", tmp_path / "masks", tmp_path / "normal"]
