"""Notebooks with a network of a user's own."""

import sys

import pandas as pd
import pytest

from helpers import studies
from scanbook import runtime

keras = runtime.keras()


@pytest.mark.slow
def test_notebook_04_takes_a_network_from_a_folder(tmp_path):
    images = keras.Input((None, None, 3))
    path = tmp_path / "networks" / "small.keras"
    path.parent.mkdir()
    keras.Model(images, keras.layers.Conv2D(16, 5, strides=4, activation="relu")(images)).save(path)
    name = f"file:{path}"
    values = f"backbones=['{name}'] \"pretraining={{'{name}': {{scaling: 0..1, corpus: none}}}}\""
    words = ["-m", "scanbook.cli", "run", "04_transfer_learning", "--profile", "smoke", "--set", values]
    done = studies.run(sys.executable, *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    [results] = studies.results(tmp_path, "synthetic", "smoke", ["04_transfer_learning"]).values()
    assert results["best"] == "file:small.keras, frozen"
    table = tmp_path / "reports" / "synthetic" / "smoke" / "04_transfer_learning" / "tables" / "seconds.csv"
    sizes = pd.read_csv(table, index_col=0)
    assert list(sizes.index) == ["file:small.keras, frozen", "file:small.keras, from scratch"]
    assert sizes["parameters"].nunique() == 1 and (sizes["seconds"] > 0).all()
