"""The model card: what Hugging Face's hub and a person read is what was measured."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup
from huggingface_hub import EvalResult, ModelCard

from helpers import planted
from helpers.bundles import write
from scanbook import bundle
from scanbook.bundle.card import front_matter, render
from scanbook.data import cards

METRICS = {
    "accuracy": {"value": 0.91234, "low": 0.85, "high": 0.95},
    "macro_f1": {"value": 0.8, "low": None, "high": None},
    "auroc": {"value": float("nan")},
    "images": 40,
}
POINTS = {
    "warm": {
        "classes": ["red", "green"],
        "threshold": 0.25,
        "sensitivity": {"value": 0.9, "low": 0.8, "high": 1.0},
        "specificity": {"value": float("nan"), "low": None, "high": None},
    },
    "blue": {
        "classes": ["blue"],
        "threshold": float("nan"),
        "sensitivity": {"value": 0.5, "low": 0.4, "high": 0.6},
        "specificity": {"value": 0.75, "low": 0.7, "high": 0.8},
    },
}
INT8 = {"images": 200, "accuracy": 0.905, "reference": 0.91, "change": -0.005, "low": -0.02, "high": 0.01}
PARITY = {
    "OpenVINO": {"difference": 2.4e-6, "same class": "32 of 32", "agrees": True},
    "ONNX": {"difference": float("nan"), "same class": "31 of 32", "agrees": False},
}


def card_of(folder: Path, **changes: Any) -> str:
    return (write(folder / "bundle", **changes).folder / "MODEL_CARD.md").read_text()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return card_of(
        tmp_path_factory.mktemp("card"),
        metrics=METRICS,
        names={"pt": ("vermelho", "verde", "azul"), "ko": ("빨강", "초록", "파랑")},
        operating_points=POINTS,
        parity=PARITY,
        int8=INT8,
        excluded={"onnx": 'ONNX needs onnx: pip install "scanbook[onnx]"'},
        hub={"license": "cc-by-4.0", "tags": ["medical", "dermoscopy"], "datasets": ["colours"]},
    )


def test_the_hub_reads_the_card(text: str) -> None:
    data = ModelCard(text).data
    written = {"license": "cc-by-4.0", "library_name": "keras", "pipeline_tag": "image-classification"}
    assert written.items() <= data.to_dict().items()
    assert data.language == ["en", "pt", "ko"] and data.datasets == ["colours"] and data.model_name == "colours"
    assert {"medical", "dermoscopy", "image-classification", "openvino"} <= set(data.tags)
    assert data.metrics == ["accuracy", "f1"]
    accuracy, f1 = data.eval_results
    assert isinstance(accuracy, EvalResult)
    assert (accuracy.task_type, accuracy.dataset_type, accuracy.dataset_split) == (
        "image-classification",
        "colours",
        "test",
    )
    assert (accuracy.metric_type, accuracy.metric_value, f1.metric_type) == ("accuracy", 0.9123, "f1")
    assert "0.850 to 0.950" in accuracy.metric_name and f1.metric_name == "macro f1"


def test_the_front_matter_is_read_as_it_was_written(text: str) -> None:
    front = yaml.safe_load(re.match(r"---\n(.*?)\n---\n\n# colours\n", text, re.DOTALL)[1])
    assert list(front)[:3] == ["license", "language", "library_name"]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "Which colour?"


def test_a_card_without_results_has_no_index(tmp_path: Path) -> None:
    data = ModelCard(card_of(tmp_path, metrics={"accuracy": {"value": None}})).data
    assert data.eval_results is None and data.license == "unknown" and data.language == ["en"]


def test_a_person_reads_classes_decisions_and_formats(text: str) -> None:
    assert "| Class | Portuguese | Korean |" in text and "| blue | azul | 파랑 |" in text
    assert "| warm (red + green) | 0.250 | 0.900 (0.800 to 1.000) | not defined |" in text
    assert "| blue | no threshold | 0.500 (0.400 to 0.600) | 0.750 (0.700 to 0.800) |" in text
    assert "| OpenVINO | 2.4e-06 | 32 of 32 | yes |" in text and "| ONNX | not defined | 31 of 32 | no |" in text
    assert "int8 classifies 90.5% of 200 validation images correctly" in text and "-0.5 points" in text
    assert "-2.0 to +1.0" in text
    assert 'ONNX is not available: ONNX needs onnx: pip install "scanbook[onnx]".' in text
    assert "python -m scanbook.serving serve" in text


def test_a_class_of_any_name_is_shown_as_it_is(tmp_path: Path) -> None:
    classes = ("$x_1$ *a*|b", "<b>bold\nline", "cost $\\frac$")
    points = {name: POINTS["blue"] | {"classes": [name]} for name in classes}
    card = card_of(tmp_path, classes=classes, operating_points=points)
    html = BeautifulSoup(render(card), "html.parser")
    shown = [cell.get_text() for cell in html.select("section table tbody th")]
    assert {"$x_1$ *a*|b", "<b>bold line", "cost $\\frac$"} <= set(shown)
    assert "In the order of the probabilities: $x_1$ *a*|b, <b>bold line, cost $\\frac$." in html.get_text()


def test_every_table_of_the_card_is_one(text: str) -> None:
    """Each row has as many cells as its head, and nothing is left of a template."""
    blocks = re.findall(r"((?:^\|.*\|\n)+)", text, re.MULTILINE)
    assert len(blocks) == 5
    for block in blocks:
        head, rule, *rows = block.strip().split("\n")
        cells = len(re.findall(r"(?<!\\)\|", head))
        assert rule.count("|") == cells and rows
        assert all(len(re.findall(r"(?<!\\)\|", row)) == cells for row in rows)
    assert "\n\n\n" not in text and "{" not in text


def test_both_cards_name_the_licence_alike() -> None:
    chosen = planted.study(dataset={"adapter": "folder", "source": "https://example.org", "licence": "see the source"})
    expected = {"license": "other", "license_name": "see-the-source", "license_link": "https://example.org"}
    assert cards.licence(chosen) == expected and cards.tags(chosen) == ["medical", "photograph"]
    made = bundle.Bundle(Path(), "a", ("a", "b"), (8, 8), 1.0, 0.5, {}, hub={**expected, "tags": [], "datasets": ["a"]})
    front = front_matter(made).to_dict()
    assert {key: value for key, value in front.items() if key.startswith("license")} == expected


def test_a_card_as_html_has_no_foreign_code_style_or_picture() -> None:
    text = """---
tags: [a]
---

# Title

First <script>alert(1)</script> & **bold**.

## Numbers < 3

| name | count |
| --- | ---: |
| a \\| <b> | [go](javascript:alert(1)) |

- ![shown](https://example.org/a.png)
"""
    assert render(text) == (
        '<section class="card prose" lang="en">\n'
        "<p>First &lt;script&gt;alert(1)&lt;/script&gt; &amp; <strong>bold</strong>.</p>\n"
        "</section>\n"
        '<section class="card prose" lang="en">\n'
        "<h2>Numbers &lt; 3</h2>\n"
        '<div class="wide" role="group" aria-label="Numbers &lt; 3" tabindex="0">\n'
        '<table>\n<thead>\n<tr>\n<th scope="col">name</th>\n<th scope="col">count</th>\n</tr>\n</thead>\n'
        '<tbody>\n<tr>\n<th scope="row">a | &lt;b&gt;</th>\n<td>[go](javascript:alert(1))</td>\n</tr>\n</tbody>\n'
        "</table>\n</div>\n"
        '<ul>\n<li>!<a href="https://example.org/a.png">shown</a></li>\n</ul>\n'
        "</section>\n"
    )
    assert render("# Card\n") == ""


def test_the_card_of_a_bundle_as_html_is_its_markdown(text: str) -> None:
    html = render(text)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert re.findall("<h2>(.+)</h2>", html) == headings and html.count("<section") == len(headings)
    assert html.count("<table>") == 5 and '<th scope="row">warm (red + green)</th>' in html
    assert "license:" not in html and "빨강" in html and "style=" not in html
