"""The model card: for people as Markdown and HTML, for Hugging Face's hub as the YAML on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanbook.bundle.description import FILES, REQUIREMENTS, Bundle

INTENDED_USE = "Research and teaching, not a diagnosis."

LANGUAGES = {"en": ("English", "English"), "pt": ("Portuguese", "Português"), "ko": ("Korean", "한국어")}
"""What the service speaks, by code: in English, and as the language calls itself."""
FORMAT_NAMES = {
    "keras": "Keras, saved",
    "openvino": "OpenVINO",
    "openvino_int8": "OpenVINO int8",
    "saved_model": "SavedModel",
    "onnx": "ONNX",
}
"""What tables and cards call each format."""
# names of https://huggingface.co/metrics for those of scanbook that have another one there
_METRICS = {"macro_f1": "f1", "auroc": "roc_auc", "brier": "brier_score"}


@dataclass(frozen=True)
class Section:
    """One part of a model card.

    Attributes:
        heading: Its title.
        paragraphs: Sentences.
        rows: A table, its first row the column names; empty for none.
    """

    heading: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def card(bundle: Bundle) -> list[Section]:
    """The model card in parts, for Markdown and HTML alike."""
    height, width = bundle.image_size
    about = dict(bundle.about)
    what = [text for text in (about.pop("title", ""), about.pop("question", "")) if text]
    use, limits = about.pop("intended_use", INTENDED_USE), about.pop("limits", "")
    facts = [(key.replace("_", " "), value) for key, value in about.items()]
    takes = (
        f"It reads one colour image, resized to {height} × {width} pixels (height × width), and gives a probability "
        f"for each of {len(bundle.classes)} classes."
    )
    return [
        Section("What it is", (*what, takes)),
        Section("Intended use", (use,)),
        Section("Data and training", rows=(("Topic", "Description"), *facts) if facts else ()),
        _classes(bundle),
        Section(
            "Test metrics",
            ("Measured once, on test images that neither training nor calibration saw.",),
            (("Metric", "Value", "95 % interval"), *(_metric_row(*item) for item in bundle.metrics.items())),
        ),
        *_operating_points(bundle),
        _formats(bundle),
        Section(
            "Limits",
            (
                *((limits,) if limits else ()),
                f"Probabilities are calibrated for images of one source (temperature {bundle.temperature:.3g}); "
                "for images from other devices, clinics or patients they can be wrong.",
                "It knows these classes alone and gives one of them to every image, whatever the image shows.",
                f"Where the largest probability is below {bundle.abstain_below:.2f} it answers “not sure”.",
                "A heat map shows what moved the model towards a class. It does not outline a finding.",
            ),
        ),
    ]


def card_markdown(bundle: Bundle) -> str:
    """The model card as Markdown, with the YAML that Hugging Face's hub reads on top."""
    import yaml  # here alone: the service shows the sections, and does not need it

    front = yaml.safe_dump(front_matter(bundle), sort_keys=False, allow_unicode=True)
    lines = ["---", front.strip(), "---", "", f"# {bundle.name}", ""]
    for section in card(bundle):
        lines += [f"## {section.heading}", ""]
        for paragraph in section.paragraphs:
            lines += [paragraph, ""]
        if section.rows:
            rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in section.rows]
            lines += [rows[0], "|" + " --- |" * len(section.rows[0]), *rows[1:], ""]
    run = f"pip install -r {REQUIREMENTS}\npython -m scanbook.serving serve"
    lines += ["## Run it", "", "In this folder:", "", "```sh", run, "```", ""]
    lines += ["Or as a container, for amd64 and arm64 alike, by the `Dockerfile` beside this card.", ""]
    return "\n".join(lines)


def front_matter(bundle: Bundle) -> dict[str, Any]:
    """What Hugging Face's hub reads of the card (https://huggingface.co/docs/hub/model-cards).

    Returns:
        `license`, `language` (of the class names), `library_name`, `pipeline_tag`, `tags`, `datasets`, `metrics` and
        `model-index` with every test metric that is defined.
    """
    results = [
        {
            "type": _METRICS.get(name, name),
            "value": round(metric["value"], 4),
            "name": " ".join(filter(None, (name.replace("_", " "), _in_brackets(metric)))),
        }
        for name, metric in bundle.metrics.items()
        if isinstance(metric, Mapping) and metric.get("value") is not None
    ]
    hub = {"license": "unknown", "tags": [], "datasets": [bundle.name]} | bundle.hub
    front: dict[str, Any] = {key: value for key, value in hub.items() if key.startswith("license")}
    front |= {
        "language": ["en", *bundle.names],
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(["image-classification", *hub["tags"], "openvino", "scanbook"])),
        "datasets": hub["datasets"],
    }
    if not results:
        return front
    of = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            "type": hub["datasets"][0],
            "name": bundle.about.get("title", bundle.name),
            "split": "test",
        },
    }
    return front | {
        "metrics": list(dict.fromkeys(each["type"] for each in results)),
        "model-index": [{"name": bundle.name, "results": [of | {"metrics": results}]}],
    }


def _classes(bundle: Bundle) -> Section:
    languages = {code: LANGUAGES.get(code, (code,))[0] for code in bundle.names}
    rows = [("Class", *languages.values())]
    rows += [(name, *(bundle.label(index, code) for code in languages)) for index, name in enumerate(bundle.classes)]
    said = "In the order of the probabilities: " + ", ".join(bundle.classes) + "."
    return Section("Classes", (said,), tuple(rows) if languages else ())


def _operating_points(bundle: Bundle) -> list[Section]:
    if not bundle.operating_points:
        return []
    rows = [("Finding", "Called at or above", "Sensitivity", "Specificity")]
    for finding, point in bundle.operating_points.items():
        threshold = point["threshold"]
        parts = [finding if point["classes"] == [finding] else f"{finding} ({' + '.join(point['classes'])})"]
        parts.append("no threshold" if threshold is None else f"{threshold:.3f}")
        parts += [_with_interval(point[rate]) for rate in ("sensitivity", "specificity")]
        rows.append(tuple(parts))
    said = (
        "Each decision adds the probabilities of its classes. Thresholds were chosen on validation images; sensitivity "
        "and specificity, with 95 % intervals, are of test images. The service does not apply them."
    )
    return [Section("Operating points", (said,), tuple(rows))]


def _formats(bundle: Bundle) -> Section:
    said = [f"{FORMAT_NAMES[style]}: `{bundle.models[style]}`." for style in FILES if style in bundle.models]
    if bundle.int8:
        said.append(int8_sentence(bundle.int8))
    said += [f"{FORMAT_NAMES[style]} is not there: {why.rstrip('.')}." for style, why in bundle.excluded.items()]
    if not bundle.parity:
        return Section("Formats", tuple(said))
    said.append(
        "Each format answered the same images as the trained model; the table gives the largest difference of the "
        "logits as a share of their spread."
    )
    rows = [("Place", "Difference", "Same class", "Agrees")]
    for place, each in bundle.parity.items():
        difference = "not defined" if each["difference"] is None else f"{each['difference']:.1e}"
        rows.append((place, difference, each["same class"], "yes" if each["agrees"] else "no"))
    return Section("Formats", tuple(said), tuple(rows))


def int8_sentence(figures: Mapping[str, Any]) -> str:
    """What int8 loses, in words, from `Bundle.int8`."""
    change, low, high = (100 * figures[key] for key in ("change", "low", "high"))
    return (
        f"int8 is right on {figures['accuracy']:.1%} of {figures['images']} validation images, the trained model on "
        f"{figures['reference']:.1%}: a change of {change:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})."
    )


def _metric_row(name: str, metric: Any) -> tuple[str, str, str]:
    values = metric if isinstance(metric, Mapping) else {"value": metric}
    value = values.get("value")
    shown = "not defined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return name.replace("_", " "), shown, _interval(values)


def _interval(metric: Mapping[str, Any]) -> str:
    low, high = metric.get("low"), metric.get("high")
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _in_brackets(metric: Mapping[str, Any]) -> str:
    return f"(95 % interval {_interval(metric)})" if _interval(metric) else ""


def _with_interval(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return "not defined"
    return f"{metric['value']:.3f} ({_interval(metric)})" if _interval(metric) else f"{metric['value']:.3f}"
