"""What a notebook records of its run."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats

from helpers import planted
from scanbook import evaluation, runtime, store
from scanbook.errors import NotebookError
from scanbook.reporting import notebook
from scanbook.reporting.plots import style


def test_evaluations_on_test_images_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    session = notebook.Session("05_fine_tuning", planted.study())
    logits = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    trained = SimpleNamespace(label="a network", logits={"test": logits}.__getitem__)
    predictions = session.on_test(trained, planted.manifest())
    cooler = session.on_test(trained, planted.manifest(), calibration=2.0)
    session.on_test(trained, planted.manifest(), arm="on cut-outs")
    np.testing.assert_allclose(cooler.probabilities, predictions.with_temperature(2.0).probabilities)
    session.finish()
    results = json.loads((session.folder / "results.json").read_text())
    assert results == {"test_evaluations": {"a network": 2, "on cut-outs": 1}}


def test_kept_predictions_and_histories_name_no_patient(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    session = notebook.Session("05_fine_tuning", planted.study())
    columns = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds")
    history = pd.DataFrame({name: [1.0, 2.0] for name in columns} | {"device": "CPU"})
    test = planted.manifest().predictions("test", np.random.default_rng(0).normal(size=(12, 3)))
    session.keep(test, {"seed 0": history, "seed 1": history})
    kept = evaluation.load_predictions(session.folder / "predictions.csv")
    assert not {*kept.image_id, *kept.group} & {*test.image_id, *test.group}
    for name, metric in evaluation.METRICS.items():
        if name in evaluation.OF_CLASSES:
            points = [metric.point(one) for one in (test, kept)]
            assert points[0] == pytest.approx(points[1]), name
    table = pd.read_csv(session.folder / "history.csv")
    assert list(table) == ["training", *columns] and list(table["training"]) == ["seed 0"] * 2 + ["seed 1"] * 2
    session.finish()
    assert json.loads((session.folder / "results.json").read_text()) == {}, "results stay as they are"


def test_a_notebook_names_the_devices_that_trained_its_networks(tmp_path, monkeypatch, capsys):
    """Now, or in an earlier run, whose network the store holds."""
    for variable in ("SCANBOOK_REPORTS", "SCANBOOK_STORE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(store.stages, "_visited", {})
    devices = {"seed 0": ["CPU", "GPU: Tesla T4"], "seed 1": ["GPU: Tesla T4"]}  # the first was resumed elsewhere
    for name, device in devices.items():
        rows = pd.DataFrame({"epoch": range(1, len(device) + 1), "device": device})
        store.stage(
            "scratch", {"name": name}, lambda work, rows=rows: rows.to_csv(work / "history.csv"), "scanbook.errors"
        )
    session = notebook.Session("05_fine_tuning", planted.study())
    session.finish()
    assert "The networks were trained on: CPU; GPU: Tesla T4." in capsys.readouterr().out
    measured = json.loads((session.folder / "measurements.json").read_text())
    assert measured == {"networks were trained on": ["CPU", "GPU: Tesla T4"]}
    assert json.loads((session.folder / "results.json").read_text()) == {}, "they may differ between two equal runs"


def test_a_copy_of_a_notebook_does_not_overwrite_its_reports(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    whole = notebook.start("01_eda", "synthetic").folder / "metrics.json"
    whole.parent.mkdir(parents=True)
    whole.write_text("{}")
    monkeypatch.setenv(runtime.NOTEBOOK, "01_eda_copy")
    with pytest.raises(
        NotebookError, match=r"01_eda_copy starts the session of 01_eda; write notebook\.start\('01_eda_copy'"
    ):
        notebook.start("01_eda", "synthetic")
    assert whole.is_file()
    notebook.start("01_eda_copy", "synthetic")


def test_a_name_from_the_data_is_not_html(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    outputs = []
    monkeypatch.setattr(notebook, "_display", outputs.append)
    notebook.Session("01_eda", planted.study()).say("nevus <img src=x onerror=alert(1)>: **3** in `a<b`")
    assert outputs[0]["text/markdown"] == "nevus &lt;img src=x onerror=alert(1)>: **3** in `a<b`"


def test_a_users_settings_of_pandas_change_no_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    shown = []
    monkeypatch.setattr(notebook, "_display", shown.append)
    session = notebook.Session("05_fine_tuning", planted.study())
    frame = pd.DataFrame({"share": [0.1234], "text": ["a long sentence " * 10]}, index=["a"])
    session.table("shares", frame, "Shares")
    theirs = ("display.float_format", "{:.1f}".format, "display.precision", 1, "display.max_colwidth", 8)
    with pd.option_context(*theirs):
        session.table("shares", frame, "Shares")
        assert pd.get_option("display.precision") == 1
    assert shown[0] == shown[1] and "0.1234" in shown[0]["text/html"]


def test_a_figure_that_is_a_cells_value_is_shown_as_an_image(tmp_path, monkeypatch):
    """Without pyplot, which would choose the user's backend; a way that the user chose stays."""
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    shell = InteractiveShell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    notebook.start("05_fine_tuning", "synthetic", "smoke")
    forms, _ = shell.display_formatter.format(style.note("1 line"))
    assert {"text/plain", "image/png"} == forms.keys()
    select_figure_formats(shell, {"svg"})
    notebook.start("05_fine_tuning", "synthetic", "smoke")
    assert "image/svg+xml" in shell.display_formatter.format(style.note("1 line"))[0]
