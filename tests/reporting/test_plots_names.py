"""Figures of many classes, and of classes with any name: bounded in size, whole in a table, drawn without boxes."""

import io
import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from PIL import Image

from helpers import planted
from scanbook import evaluation
from scanbook.reporting import notebook, plots, sections
from scanbook.reporting.plots import names, writing

MANY = 165
ODD = (
    *("$x_1$ lesion $", "cost $\\frac$", "dose 5$ to 10$", "a\\b_c^d%&#", "<b>bold</b>", '"quoted"', "{braces}"),
    *("with\nnewline", "tab\there", "  spaces  ", "long" * 50, "a|b*c*", "nan", "None", "1e3", "all", "groups"),
    *("ورم", "שומה", "e\u0301", "меланома", "日本", "日本 病変", "한국어", "मेलेनोमा", "caf\udce9", "_under", "😀 ❤️"),
)


def frame_of(classes):
    """Return a manifest's rows: the images become more, and their values larger, from class to class."""
    rows = [(name, row) for row, name in enumerate(classes) for _ in range(4 + row)]
    labels, ranks = zip(*rows, strict=True)
    random = np.random.default_rng(0)
    values = {name: np.array(ranks) + random.random(len(rows)) for name in ("brightness", "sharpness", "age_years")}
    first = random.random(len(rows)) < np.array(ranks) / len(classes)
    frame = pd.DataFrame({"label": labels, "split": "train", "group": range(len(rows)), **values})
    return frame.assign(sex=np.where(first, "male", "female"), width_px=100 + frame.index % 2, height_px=100)


def predicted(classes, each=2):
    random = np.random.default_rng(1)
    y = np.repeat(np.arange(len(classes)), each)
    scores = random.random((len(y), len(classes)))
    scores[np.arange(len(y)), y] += random.random(len(y))
    ids = list(map(str, range(len(y))))
    return evaluation.Predictions(ids, ids, y, scores / scores.sum(axis=1, keepdims=True), tuple(classes))


def subgroups_of(classes):
    rows = {(name, "accuracy"): (30, 30, row, row - 1, row + 1) for row, name in enumerate(classes)}
    index = pd.MultiIndex.from_tuples(rows, names=["subgroup", "metric"])
    return pd.DataFrame(list(rows.values()), index, ["images", "groups", "value", "low", "high"])


def drawn(classes) -> dict[str, Figure]:
    frame, test = frame_of(classes), predicted(classes)
    images = [np.full((8, 8, 3), 99, np.uint8)] * len(classes)
    return {
        "counts": plots.class_counts(frame, classes),
        "statistics": plots.image_statistics(frame, ["brightness", "sharpness"], classes),
        "age": plots.numeric_by_class(frame, "age_years", classes),
        "sex": plots.category_by_class(frame, "sex", classes),
        "sizes": plots.image_sizes(frame, classes),
        "confusion": plots.confusion_matrix(evaluation.confusion(test)),
        "roc": plots.roc_curves(test, rounds=5),
        "subgroups": plots.subgroup_bars(subgroups_of(classes), f"By hospital ({len(test)} images)"),
        "montage": plots.montage(images, test.captions(np.arange(len(classes)))),
        "mixed": plots.mixed_batch(np.stack(images[:2]), np.eye(len(classes))[:2], classes),
    }


def labels(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_figures_of_many_classes_stay_small_and_show_the_extremes() -> None:
    classes = [f"species {number}" for number in range(MANY)]
    figures = drawn(classes)
    for name, figure in figures.items():
        assert max(figure.get_size_inches()) < 28, name
    largest, smallest = [f"species {164 - row}" for row in range(10)], [f"species {9 - row}" for row in range(10)]
    assert labels(figures["counts"]) == [*largest, *smallest]
    assert "the 10 largest and the 10 smallest of 165 classes" in writing.title(figures["counts"])
    assert labels(figures["statistics"])[:8] == largest[:8] and labels(figures["statistics"])[-1] == "species 0"
    assert labels(figures["age"])[0] == "species 164 (n = 168)" and len(labels(figures["age"])) == 20
    assert "with the most “male”" in writing.title(figures["sex"])
    assert labels(figures["subgroups"])[0] == "species 164 (n = 30)"
    legend = [text.get_text() for text in figures["roc"].axes[0].get_legend().get_texts()]
    assert len(legend) == 12 and legend[-2].startswith("mean of 165 classes")
    assert "the first 72 of 165 images" in writing.title(figures["montage"])
    assert len(figures["montage"].axes) == 72


def test_where_nothing_is_known_of_many_rows_the_first_are_shown() -> None:
    table = subgroups_of([f"site {number}" for number in range(50)])
    figure = plots.subgroup_bars(table.assign(value=np.nan, images=3), "By site (150 images)")
    assert labels(figure)[0] == "site 0 (n = 3)" and len(labels(figure)) == 20
    assert "the first 20 of 50 subgroups" in writing.title(figure)


def test_very_many_classes_take_no_more_room() -> None:
    classes = [f"species {number}" for number in range(1000)]
    figure = plots.confusion_matrix(evaluation.confusion(predicted(classes, 1)))
    assert max(figure.get_size_inches()) < 12
    frame = pd.DataFrame({"label": classes, "split": "train", "group": classes})
    assert max(plots.class_counts(frame, classes).get_size_inches()) < 28


def test_confusions_are_the_largest_cells_beside_the_diagonal() -> None:
    table = pd.DataFrame([[5, 3, 0], [1, 0, 1], [0, 0, 9]], index=list("abc"), columns=list("abc"))
    pairs = plots.confusions(table)
    assert pairs.to_numpy().tolist() == [["a", "b", 3, 3 / 8], ["b", "a", 1, 0.5], ["b", "c", 1, 0.5]]
    right = plots.confusion_matrix(pd.DataFrame(np.eye(41, dtype=int), columns=map(str, range(41))))
    assert right.axes[0].texts[0].get_text() == "Confusions of 41 classes: none in 41 images"


@pytest.mark.parametrize("size", [(1, 9), (3, 3)])
def test_a_figure_of_any_size_can_be_written(size, monkeypatch) -> None:
    for limit, value in {"LARGEST_SVG": 100, "LARGEST_SIDE": 600, "LARGEST_AREA": 90_000}.items():
        monkeypatch.setattr(writing, limit, value)
    figure = Figure(figsize=size)
    figure.add_subplot().plot([1, 2])
    with Image.open(io.BytesIO(writing.write(figure).image)) as image:
        assert max(image.size) <= 600 and 80_000 < 10 * image.width * image.height <= 910_000


def test_any_name_is_drawn_as_it_is_or_has_a_number_in_the_key() -> None:
    numbers: dict[str, int] = {}
    counts = plots.class_counts(frame_of(ODD), ODD)
    shown = labels(counts)
    assert {"$x 1$ lesion $", "cost $\\frac$", "dose 5$ to 10$", "with newline", "caf\\xe9", "under"} <= set(shown)
    assert max(map(len, shown)) == names.LONGEST
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that is missing
        key = writing.write(counts, numbers).key
        for name, figure in drawn(("cost $\\frac$", "with\nnewline", "日本", "long" * 50, "ورم")).items():
            assert set(writing.write(figure, numbers).key.items()) <= set(key.items()), name
    assert key == {f"[{numbers[''.join(text.split())]}]": text for text in key.values()}, "one number for one text"


@pytest.fixture
def only_the_font_of_matplotlib(monkeypatch):
    monkeypatch.setattr(names, "_MORE_FONTS", ())
    names._families.cache_clear()
    names._font_of.cache_clear()
    yield
    names._families.cache_clear()
    names._font_of.cache_clear()


def test_what_no_font_draws_is_numbered_in_ticks_legend_and_captions(only_the_font_of_matplotlib) -> None:
    figure, axes = plots.style.panels(1, 1, 4, 3)[::2]
    axes[0].bar(["日本 病変", "plain"], [1, 2], label="良性 (n = 3)")
    axes[0].set_title("true 日本\n病変 predicted 良性 0.93")
    axes[0].legend()
    plt.close(figure)
    numbers = {"良性": 4}
    written = writing.write(figure, numbers)
    assert written.key == {"[2]": "日本 病変", "[4]": "良性"} and numbers == {"良性": 4, "日本病変": 2}
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["[2]", "plain"]
    assert axes[0].get_legend().get_texts()[0].get_text() == "[4] (n = 3)"
    assert axes[0].get_title() == "true [2] predicted [4] 0.93"


def test_a_fallback_font_is_used_where_it_has_the_characters(monkeypatch) -> None:
    families = {"Pretended": "日本病", names.FONT: "abc 0123456789[]“”"}
    monkeypatch.setattr(names, "_families", lambda: (names.FONT, "Pretended"))
    monkeypatch.setattr(names, "_characters", lambda family: set(map(ord, families[family])))
    names._font_of.cache_clear()
    figure = Figure()
    text = figure.text(0, 0, "a 日本")
    partly = figure.text(0, 1, "abc 日本語 “病変”")
    assert names.fit(figure, {}) == {"[1]": "日本語", "[2]": "病変"}
    assert text.get_fontfamily() == [names.FONT, "Pretended"] and partly.get_text() == "abc [1] “[2]”"
    names._font_of.cache_clear()


def test_letters_that_would_not_be_joined_have_a_number(monkeypatch) -> None:
    """Matplotlib before 3.11 draws Arabic from the left, letter by letter."""
    monkeypatch.setattr(names, "_SHAPES", False)
    names._font_of.cache_clear()
    figure = Figure()
    text = figure.text(0, 0, "ورم خبيث (n = 3)")
    assert names.fit(figure, {}) == {"[1]": "ورم خبيث"} and text.get_text() == "[1] (n = 3)"
    names._font_of.cache_clear()


def test_titles_do_not_leave_the_figure() -> None:
    long = "class with a long name " * 4
    figure = plots.class_counts(frame_of([long]), [long])
    figure.axes[0].set_title("Images per class and split, of which the title is as long as this one is", loc="left")
    writing.write(figure)
    assert "\n" in figure.axes[0].get_title("left")


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path))
    shown = []
    monkeypatch.setattr(notebook, "_display", shown.append)
    session = notebook.Session("05_fine_tuning", planted.study())
    session.shown = shown
    return session


def test_a_table_of_many_classes_is_whole_and_folded(session) -> None:
    classes = [f"species {number}" for number in range(1000)]
    table = pd.DataFrame({"images": range(1000)}, pd.Index(classes, name="class"))
    session.table("splits", table, "Images by class")
    page = BeautifulSoup(session.shown[0]["text/html"], "html.parser")
    assert len(page.select("details.rows tbody tr")) == 1000
    assert page.summary.get_text() == "Images by class: all 1,000 rows"


def test_confusions_of_many_classes_are_a_table(session) -> None:
    many = predicted([f"species {number}" for number in range(50)])
    sections.show_confusion(session, many, many)
    pairs = pd.read_csv(session.folder / "tables" / "confusions.csv")
    assert pairs.columns.tolist() == ["true class", "predicted", "images", "share"] and len(pairs) > 24
    few = session.shown.copy()
    sections.show_confusion(session, *2 * [predicted(["a", "b"])])
    assert len(session.shown) == len(few) + 1, "a matrix needs no table"


def test_a_page_shows_any_name_as_text(session) -> None:
    table = pd.DataFrame({"images": range(len(ODD))}, pd.Index(ODD, name="class"))
    session.table('a/b"<x>', table, "Images by class <b>")
    session.figure("../up", plots.class_counts(frame_of(ODD), ODD), "Images by class")
    session.say("The largest class, $x_1$ [a](javascript:b) <b>, has \\frac and caf\udce9 in `a<b`.")
    table_page, figure_page = (BeautifulSoup(output["text/html"], "html.parser") for output in session.shown[:2])
    cells = [cell.get_text() for cell in table_page.select("tbody th")]
    assert cells == [name.translate({0xDCE9: "\\xe9", 10: "\\n", 9: "\\t"}).strip() for name in ODD]
    assert {"tex2jax_ignore", "mathjax_ignore"} <= set(table_page.table["class"])
    files = [tag["data-file"] for tag in (table_page.table, figure_page.figure)]
    assert all((session.folder / file).is_file() and ".." not in file.split("/") for file in files), files
    assert "caf\\xe9" in (session.folder / files[0]).read_text("utf-8")
    shown = session.shown[2]["text/markdown"]
    assert shown == (
        "The largest class, &#36;x&#95;1&#36; &#91;a](javascript:b) &lt;b>, has &#92;frac and caf&#92;xe9 in `a<b`."
    )


def test_results_hold_a_class_that_is_called_as_a_total(session) -> None:
    table = pd.DataFrame({"all": [3, 4, 7, 2]}, ["all", "b", "all", "groups"])
    session.result("splits", table)
    session.finish()
    results = json.loads((session.folder / "results.json").read_text("utf-8"))
    assert results["splits"] == {"all (1)": {"all": 3}, "b": {"all": 4}, "all": {"all": 7}, "groups": {"all": 2}}
