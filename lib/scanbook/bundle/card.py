"""The model card: Markdown for people, below the YAML that Hugging Face's hub reads, and cards as HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from math import isnan
from typing import TYPE_CHECKING, Any

from scanbook.bundle.answering import unsure_range
from scanbook.bundle.description import REQUIREMENTS, Bundle
from scanbook.models.engines import INT8_LOSS
from scanbook.runtime import as_markdown

if TYPE_CHECKING:  # neither is a package of the service, which shows cards as the export rendered them
    from huggingface_hub import ModelCardData
    from markdown_it.token import Token

INTENDED_USE = "Research and teaching, not a diagnosis."

LANGUAGES = {"en": ("English", "English"), "pt": ("Portuguese", "Português"), "ko": ("Korean", "한국어")}
"""Languages of the service by code: the name in English, and in the language itself."""
FORMAT_NAMES = {
    "keras": "Keras, saved",
    "openvino": "OpenVINO",
    "openvino_int8": "OpenVINO int8",
    "saved_model": "SavedModel",
    "onnx": "ONNX",
    "litert": "LiteRT",
    "litert_int8": "LiteRT int8",
}
"""Name of each format in tables and cards."""
# names in https://huggingface.co/metrics of the metrics that scanbook names otherwise
_METRICS = {"macro_f1": "f1", "auroc": "roc_auc", "brier": "brier_score"}
# order of the metadata, in which the results come last
_FRONT = (
    *("license", "license_name", "license_link", "language", "library_name", "pipeline_tag", "tags", "datasets"),
    "metrics",
)


_BARE_PIPE = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Section:
    """A section of a card.

    Attributes:
        heading: Its title.
        paragraphs: Sentences.
        rows: A table whose first row has the column names; empty for none.
    """

    heading: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


_MEANS = (
    "AUROC, AUPRC, Brier score and calibration error (ECE) are means over the findings. With every finding called "
    "present from a probability of 0.5 on, not from its threshold, exact match is the share of images whose labels are "
    "all right, and Hamming loss the share of wrong labels. A missing label has no weight."
)


RATES_OF_FOLDS = "The rates beside the thresholds are those of the folds' networks, each at its own threshold."


def card(bundle: Bundle) -> list[Section]:
    """Return the sections of the model card."""
    height, width = bundle.image_size
    about = dict(bundle.about)
    introduction = [text for text in (about.pop("title", ""), about.pop("question", "")) if text]
    use, limits = about.pop("intended_use", INTENDED_USE), about.pop("limits", "")
    evidence = about.pop(
        "evidence", "Measured once, on test images that were used neither for training nor for calibration."
    )
    facts = [(key.replace("_", " "), value) for key, value in about.items()]
    task = (
        f"The model reads one colour image, resized to {height} × {width} pixels (height × width). It gives a "
        f"probability for each of {_count(bundle)}."
    )
    return [
        Section("Description", (*introduction, task)),
        Section("Intended use", (use,)),
        Section("Data and training", rows=(("Topic", "Description"), *facts) if facts else ()),
        _labels(bundle),
        Section(
            "Test metrics",
            (
                evidence,
                *((_MEANS,) if bundle.findings else ()),
            ),
            (("Metric", "Value", "95 % interval"), *(_metric_row(*item) for item in bundle.metrics.items())),
        ),
        *_points(bundle),
        *_exams(bundle),
        _formats(bundle),
        Section("Limits", (*((limits,) if limits else ()), *_limits(bundle))),
    ]


def _count(bundle: Bundle) -> str:
    if not bundle.findings:
        return f"{len(bundle.classes)} classes"
    return f"{len(bundle.findings)} findings, each of which is present or absent whatever the others are"


def _limits(bundle: Bundle) -> tuple[str, ...]:
    if not bundle.findings:
        return (
            f"Probabilities are calibrated for images of one source (temperature {bundle.temperature:.3g}); "
            "for images from other devices, clinics or patients they can be wrong.",
            "The model knows only these classes and assigns one of them to every image, whatever the image shows.",
            f"Where the largest probability is below {bundle.abstain_below:.2f}, the service answers “not sure”.",
            "A heat map shows which regions of the image speak for a class. It does not outline a lesion.",
        )
    return (
        "Probabilities are calibrated for images of one source, finding by finding; for images from other devices, "
        "clinics or patients they can be wrong.",
        "The model knows only these findings. An image without any of them may show another one.",
        "Near the threshold of a finding the service answers “not sure”; at or above it “present”, else “absent”.",
        "A heat map shows which regions of the image speak for a finding. It does not outline it.",
    )


def card_markdown(bundle: Bundle) -> str:
    """Return the model card as Markdown, below the YAML that Hugging Face's hub reads."""
    lines = ["---", front_matter(bundle).to_yaml(original_order=list(_FRONT)), "---", "", f"# {bundle.name}", ""]
    for section in card(bundle):
        lines += [f"## {section.heading}", ""]
        for paragraph in section.paragraphs:
            lines += [paragraph, ""]
        if section.rows:
            rows = ["| " + " | ".join(_BARE_PIPE.sub(r"\\|", cell) for cell in row) + " |" for row in section.rows]
            lines += [rows[0], "|" + " --- |" * len(section.rows[0]), *rows[1:], ""]
    run = f"pip install -r {REQUIREMENTS}\npython -m scanbook.serving serve"
    lines += ["## Run it", "", "In this folder:", "", "```sh", run, "```", ""]
    lines += ["To run it as a container, for amd64 or arm64, build the `Dockerfile` beside this card.", ""]
    return "\n".join(lines)


def front_matter(bundle: Bundle) -> ModelCardData:
    """Return the metadata that Hugging Face's hub reads (https://huggingface.co/docs/hub/model-cards).

    The language is that of the names of classes or findings. Every defined test metric is an evaluation result.
    """
    from huggingface_hub import EvalResult, ModelCardData

    hub = {"license": "unknown", "tags": [], "datasets": [bundle.name]} | bundle.hub
    several = ["multi-label-image-classification"] if bundle.findings else []
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=hub["datasets"][0],
            dataset_name=bundle.about.get("title", bundle.name),
            dataset_split="test",
            metric_type=_METRICS.get(name, name),
            metric_value=round(metric["value"], 4),
            metric_name=name.replace("_", " ")
            + (f" (95 % interval {interval})" if (interval := _interval(metric)) else ""),
        )
        for name, metric in bundle.metrics.items()
        if isinstance(metric, Mapping) and metric.get("value") is not None
    ]
    return ModelCardData(
        **hub | {"tags": ["image-classification", *several, *hub["tags"], "openvino", "scanbook"]},
        language=["en", *bundle.names],
        library_name="keras",
        pipeline_tag="image-classification",
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=bundle.name if results else None,
        eval_results=results or None,
    )


def render(markdown: str) -> str:
    """Return a card as HTML for a page of the service: sections without the title, which the page has itself.

    HTML in the card becomes text, and a picture, which would be loaded from elsewhere, becomes a link.

    Args:
        markdown: The card, with its metadata.
    """
    from huggingface_hub import RepoCard
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("table_open", _open_table)
    parser.add_render_rule("table_close", lambda *_: "</table>\n</div>\n")
    sections: list[list[Token]] = [[]]
    for token in parser.parse(RepoCard(markdown).text):
        if token.type == "heading_open" and token.tag in ("h1", "h2"):
            sections.append([])
        sections[-1].append(token)
    parts = []
    for tokens in filter(None, sections):
        title = tokens[1].content if tokens[0].type == "heading_open" else ""
        content = tokens[3:] if tokens[0].tag == "h1" else tokens
        _name_headers(content)
        if content:
            text = parser.renderer.render(content, parser.options, {"title": title})
            parts.append(f'<section class="card prose" lang="en">\n{text}</section>\n')
    return "".join(parts)


def _open_table(_renderer: Any, _tokens: Any, _index: int, _options: Any, environment: dict[str, str]) -> str:
    """Return the start of a table that scrolls by itself, by keyboard too, where it is wider than a phone."""
    return f'<div class="wide" role="group" aria-label="{escape(environment["title"])}" tabindex="0">\n<table>\n'


def _name_headers(tokens: list[Token]) -> None:
    """Mark the headers of columns and rows; the policy of the pages allows no style in a tag."""
    for index, token in enumerate(tokens):
        if token.type == "th_open":
            token.attrs = {"scope": "col"}
        elif token.type == "td_open":
            token.attrs = {}
            if tokens[index - 1].type == "tr_open":  # the first cell names its row
                token.tag = tokens[index + 2].tag = "th"
                token.attrs = {"scope": "row"}


def _labels(bundle: Bundle) -> Section:
    languages = {code: LANGUAGES.get(code, (code,))[0] for code in bundle.names}
    title, column = ("Findings", "Finding") if bundle.findings else ("Classes", "Class")
    names = [as_markdown(name) for name in bundle.labels]
    rows = [(column, *languages.values(), *(("Calibration",) if bundle.findings else ()))]
    for index, name in enumerate(names):
        translated = (as_markdown(bundle.label(index, code)) for code in languages)
        calibrated = (_calibration(bundle.calibration[bundle.findings[index]]),) if bundle.findings else ()
        rows.append((name, *translated, *calibrated))
    order = "In the order of the probabilities: " + ", ".join(names) + "."
    return Section(title, (order,), tuple(rows) if len(rows[0]) > 1 else ())


def _calibration(values: Mapping[str, Any]) -> str:
    """Return how the logits of a finding were calibrated, in words."""
    method = values.get("method", "")
    if method == "none":
        return "none: too few labels, or no gain on validation"
    return f"{method}: {values['slope']:.3g} × logit {values['offset']:+.3g}".removeprefix(": ")


def _points(bundle: Bundle) -> list[Section]:
    """Return the operating points; of a cross-validated bundle with a sentence on whose rates they have."""
    named = _finding_points(bundle.operating_points, "Operating points") if bundle.findings else _targets(bundle)
    if "evidence" not in bundle.about:
        return named
    return [replace(section, paragraphs=(*section.paragraphs, RATES_OF_FOLDS)) for section in named]


def _finding_points(points: Mapping[str, Mapping[str, Any]], title: str, unit: str = "images") -> list[Section]:
    rows = [("Finding", "Threshold", "Not sure between", "Sensitivity", "Specificity")]
    for finding, point in points.items():
        threshold, unsure = "no threshold", "always"
        if point["threshold"] is not None:
            threshold, (low, high) = f"{point['threshold']:.3f}", unsure_range(point)
            unsure = f"{low:.3f} and {high:.3f}" if point["margin"] else "never"
        rates = (_with_interval(point.get(rate, {"value": None})) for rate in ("sensitivity", "specificity"))
        rows.append((as_markdown(finding), threshold, unsure, *rates))
    note = (
        "The service answers “present” where the probability of a finding is at or above its threshold, “absent” below "
        "it, and “not sure” between the two probabilities around it. Thresholds were chosen on validation "
        f"{unit}. Sensitivity and specificity, with 95 % intervals, are those of the threshold on all labelled test "
        f"{unit}, also on those that the service answers with “not sure”. A finding without a threshold was too rare "
        "in validation."
    )
    return [Section(title, (note,), tuple(rows))]


def _exams(bundle: Bundle) -> list[Section]:
    """Return how several images of one exam are answered together; nothing where the images have no exams."""
    exam = bundle.exam
    if not exam:
        return []
    what = "finding" if bundle.findings else "class"
    rule = (
        "The service answers several images of one exam together: the logits of its images are combined by their "
        f"{exam['rule']}, {what} by {what}, and calibrated for exams. The rule was chosen on validation exams."
    )
    sentences = [rule]
    if not bundle.findings:
        sentences.append(
            f"Temperature {exam['calibration']:.3g}; where the largest probability is below "
            f"{exam['abstain_below']:.2f}, the answer is “not sure”."
        )
    metrics = [_metric_row(*item) for item in exam.get("metrics", {}).items()]
    rows = (("Metric of exams", "Value", "95 % interval"), *metrics) if metrics else ()
    points = _finding_points(exam["operating_points"], "Operating points of exams", "exams") if bundle.findings else []
    return [Section("Exams", tuple(sentences), rows), *points]


def _targets(bundle: Bundle) -> list[Section]:
    if not bundle.operating_points:
        return []
    rows = [("Target", "Threshold", "Sensitivity", "Specificity")]
    for target, point in bundle.operating_points.items():
        members = " + ".join(map(as_markdown, point["classes"]))
        name = members if point["classes"] == [target] else f"{as_markdown(target)} ({members})"
        threshold = "no threshold" if point["threshold"] is None else f"{point['threshold']:.3f}"
        rows.append((name, threshold, *(_with_interval(point[rate]) for rate in ("sensitivity", "specificity"))))
    note = (
        "The probability of a target is the sum of the probabilities of its classes; the target is predicted at or "
        "above the threshold. Thresholds were chosen on validation images; sensitivity and specificity, with 95 % "
        "intervals, are those on test images. The service does not apply the thresholds."
    )
    return [Section("Operating points", (note,), tuple(rows))]


def _formats(bundle: Bundle) -> Section:
    sentences = [f"{name}: `{bundle.models[style]}`." for style, name in FORMAT_NAMES.items() if style in bundle.models]
    sentences += [int8_sentence(figures, FORMAT_NAMES[style]) for style, figures in bundle.losses.items()]
    sentences += excluded_sentences(bundle)
    same = "same answers" if bundle.findings else "same class"
    rows = [("Format", "Difference", same.capitalize(), "Agrees")]
    for name, row in bundle.parity.items():
        difference = "not defined" if row["difference"] is None else f"{row['difference']:.1e}"
        rows.append((name, difference, row[same], "yes" if row["agrees"] else "no"))
    if bundle.parity:
        sentences.append(
            "Each format predicted the same images as the trained model; the table gives the largest difference of the "
            "logits as a share of their spread."
        )
    return Section("Formats", tuple(sentences), tuple(rows) if bundle.parity else ())


def excluded_sentences(bundle: Bundle) -> list[str]:
    """Return why formats are not available, one sentence for each reason."""
    names: dict[str, list[str]] = {}
    for style, why in bundle.excluded.items():
        names.setdefault(why.rstrip("."), []).append(FORMAT_NAMES[style])
    return [f"{' and '.join(of)} {'is' if len(of) == 1 else 'are'} not available: {why}." for why, of in names.items()]


def int8_sentence(figures: Mapping[str, Any], name: str = FORMAT_NAMES["openvino_int8"]) -> str:
    """Return the loss by a format in int8 as a sentence, from `Bundle.losses`."""
    if "auroc" in figures:
        change, low, high = (figures[key] for key in ("change", "low", "high"))
        defined = None not in (change, low, high) and not any(map(isnan, (change, low, high)))
        area = (
            f"{name} has a macro AUROC of {figures['auroc']:.3f} on {figures['images']} validation images, the trained "
            f"model {figures['reference']:.3f}: a change of {change:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."
            if defined
            else f"The change of the macro AUROC by {name} is not defined on {figures['images']} validation images."
        )
        return (
            f"{area} At the thresholds it is right on {figures['right']:.1%} of the labels, the trained model on "
            f"{figures['right_reference']:.1%}. It may lose {INT8_LOSS:g} of AUROC and {INT8_LOSS:.0%} of the labels."
        )
    change, low, high = (100 * figures[key] for key in ("change", "low", "high"))
    return (
        f"{name} classifies {figures['accuracy']:.1%} of {figures['images']} validation images correctly, the trained "
        f"model {figures['reference']:.1%}: a change of {change:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})."
    )


def _metric_row(name: str, metric: Any) -> tuple[str, str, str]:
    values = metric if isinstance(metric, Mapping) else {"value": metric}
    value = values.get("value")
    text = "not defined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return name.replace("_", " "), text, _interval(values)


def _interval(metric: Mapping[str, Any]) -> str:
    low, high = metric.get("low"), metric.get("high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _with_interval(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "not defined"
    return f"{metric['value']:.3f} ({_interval(metric)})" if _interval(metric) else f"{metric['value']:.3f}"
