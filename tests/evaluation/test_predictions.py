"""The table of predictions: round trip, refusals, and single images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.models import ranked, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), names=st.lists(st.text("ab0NA1e ,\"';é-", min_size=1), min_size=2, max_size=6))
def test_round_trip_is_exact(tmp_path_factory, seed, names):
    random = np.random.default_rng(seed)
    n = len(names)
    classes = ("NA", "a,b", "007")
    ids = [f"{name}{i}" for i, name in enumerate(names)]
    original = ev.Predictions(ids, names, random.integers(0, 3, n), random.dirichlet(np.ones(3), n), classes)
    path = tmp_path_factory.mktemp("predictions") / "test.csv"
    original.save(path)
    again = ev.Predictions.load(path)
    assert again.classes == classes
    for field in ("image_id", "group", "y_true", "probabilities"):
        np.testing.assert_array_equal(getattr(again, field), getattr(original, field))
    assert again.to_frame()["predicted"].tolist() == [classes[c] for c in original.y_pred]


BROKEN = {
    "negative": ({"probabilities": [[1.2, -0.2], [0.5, 0.5]]}, "between 0 and 1"),
    "not a number": ({"probabilities": [[np.nan, 1.0], [0.5, 0.5]]}, "between 0 and 1"),
    "logits": ({"probabilities": [[0.2, 0.2], [0.5, 0.5]]}, "sum to 0.4"),
    "columns": ({"probabilities": [[0.2, 0.2, 0.6], [0.5, 0.5, 0.0]]}, r"expected \(2, 2\)"),
    "label": ({"y_true": [0, 2]}, "y_true holds 2"),
    "float label": ({"y_true": [0.0, 1.0]}, "expected integers"),
    "length": ({"y_true": [0]}, r"y_true has shape \(1,\)"),
    "group": ({"group": ["p", None]}, "group of row 1 is empty"),
    "blank group": ({"group": ["p", ""]}, "group of row 1 is empty"),
    "twice": ({"image_id": ["i", "i"]}, "'i' occurs twice"),
    "one class": ({"classes": ("a",)}, "two or more different names"),
    "same class": ({"classes": ("a", "a")}, "two or more different names"),
    "empty": ({"image_id": [], "group": [], "y_true": [], "probabilities": np.zeros((0, 2))}, "hold no image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_predictions_are_refused_in_one_line(case):
    good = {
        "image_id": ["i", "j"],
        "group": ["p", "q"],
        "y_true": [0, 1],
        "probabilities": [[0.3, 0.7], [0.5, 0.5]],
        "classes": ("a", "b"),
    }
    assert ev.Predictions(**good).y_pred.tolist() == [1, 0]
    changes, words = BROKEN[case]
    with pytest.raises(DataError, match=words) as caught:
        ev.Predictions(**(good | changes))
    assert "\n" not in str(caught.value)


def test_unreadable_tables_are_refused_in_one_line(tmp_path):
    predictions = simulated(n=5)
    frame = predictions.to_frame()
    with pytest.raises(DataError, match="lack the column 'group'"):
        ev.Predictions.from_frame(frame.drop(columns="group"))
    with pytest.raises(DataError, match="has no column p_class"):
        ev.Predictions.from_frame(frame.drop(columns=f"p_{frame['true'].iloc[0]}"))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "words.csv").write_text("image_id,group,true,p_a,p_b\ni,g,a,much,little\n")
    for name in ("missing.csv", "empty.csv", "words.csv"):
        with pytest.raises(DataError, match="cannot read predictions") as caught:
            ev.Predictions.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_single_image_in_words():
    classes = ("1", "5", "10")
    p = np.array([[0.03, 0.874, 0.096], [0.5, 0.25, 0.25]])
    model = ev.Predictions(["a.png", "b.png"], ["p", "q"], [1, 2], p, classes)
    assert model.single("a.png") == "True: 5, Predicted: 5, 0.87"
    assert model.single("b.png") == "True: 10, Predicted: 1, 0.50"
    with pytest.raises(DataError, match=r"'c\.png' is not among the 2 images, such as a\.png"):
        model.single("c.png")


def test_failures_and_successes_are_the_surest():
    model = ranked([0.6, 0.9, 0.7, 0.9, 0.8, 0.95], [0, 0, 1, 0, 1, 1])
    assert ev.failures(model, 2).tolist() == [1, 3]
    assert ev.failures(model).tolist() == [1, 3, 0]
    assert ev.successes(model, 2).tolist() == [5, 4]
    perfect = ranked([0.9, 0.8], [1, 1])
    assert len(ev.failures(perfect)) == 0
    assert not model.correct[ev.failures(model)].any()


def test_captions_say_truth_answer_and_probability():
    predictions = ev.Predictions(
        ["x", "y"], ["x", "y"], np.array([0, 1]), np.array([[0.3, 0.7], [0.2, 0.8]]), ("a", "b")
    )
    assert predictions.captions([1, 0]) == ["true b\npredicted b 0.80", "true a\npredicted b 0.70"]


def test_a_model_without_errors_has_no_captions_of_errors():
    perfect = ranked([0.9, 0.8], [1, 1])
    assert perfect.captions(ev.failures(perfect)) == [] and len(perfect.captions(ev.successes(perfect))) == 2
