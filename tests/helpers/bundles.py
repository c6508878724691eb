"""Bundles whose model predicts the brightest channel of an image."""

import json
import shutil
from pathlib import Path

import numpy as np

from scanbook import bundle
from scanbook.store import file_digest, write_json

CLASSES = ("red", "green", "blue")
NAMES = {"pt": ("vermelho", "verde", "azul"), "ko": ("빨강", "초록", "파랑")}
"""Names of the classes in Portuguese and Korean."""
SIZE = (16, 24)


def write(
    folder: Path,
    *,
    graph: dict | None = None,
    models: dict[str, Path] | None = None,
    dataset_card="",
    packages=(),
    **changes,
) -> bundle.Bundle:
    """Write a bundle.

    Args:
        folder: Folder of the bundle.
        graph: Arguments of `colour_graph`.
        models: Model of each format; by default only an OpenVINO model.
        dataset_card: Markdown of the dataset card.
        packages: Further packages of the service.
        changes: Attributes of the bundle that differ from the defaults here.
    """
    values = {
        "name": "colours",
        "classes": CLASSES,
        "image_size": SIZE,
        "temperature": 1.5,
        "abstain_below": 0.6,
        "metrics": {
            "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
            "images": 40,
            "kappa": {"value": float("nan")},
        },
        "about": {"title": "Which colour?", "data": "plain | images", "licence": "CC0"},
    }
    models = models or {"openvino": colour_graph(folder.parent / "model.xml", **(graph or {}))}
    return bundle.write(bundle.Bundle(folder, **values | changes), models, dataset_card=dataset_card, packages=packages)


def colour_graph(path: Path, size=SIZE, width=3, map_width=3, kind=np.uint8, layout="NHWC", swap=False, gain=5) -> Path:
    """Write an OpenVINO graph that predicts the brightest channel; swapping RGB and BGR changes its prediction.

    Args:
        path: Path of the `.xml` file.
        size: Height and width of the input, in pixels.
        width: Number of probabilities.
        map_width: Number of heat maps; 0 for no such output.
        kind: Type of the input.
        layout: "NHWC" or "NCHW".
        swap: Whether the heat maps come first.
        gain: Factor of the logits: with a smaller one the classes are the same and the probabilities are not.
    """
    import openvino as ov  # after scanbook, which turns off its telemetry
    from openvino import opset13 as ops

    shape = [-1, *size, 3] if layout == "NHWC" else [-1, 3, *size]
    source = ops.parameter(shape, kind, name="images")
    shares = ops.divide(ops.convert(source, "f32"), ops.constant(np.float32(255)))
    axes = [1, 2] if layout == "NHWC" else [2, 3]
    mean = ops.reduce_mean(shares, ops.constant(np.array(axes)), False)
    weights = np.eye(3, max(width, 3), dtype=np.float32)[:, :width] * gain
    probabilities = ops.softmax(ops.matmul(mean, ops.constant(weights), False, False), 1)
    outputs = [probabilities]
    if map_width:
        outputs.append(ops.matmul(shares, ops.constant(np.eye(3, map_width, dtype=np.float32)), False, False))
    if swap:
        outputs.reverse()
    ov.save_model(ov.Model(outputs, [source], "colours"), path, compress_to_fp16=False)
    return path


def exchange_model(folder: Path, graph: Path, name: str = "model") -> None:
    """Put another OpenVINO model into a bundle, with its checksums; the test table remains that of the former model."""
    path = folder / "checksums.json"
    sums = json.loads(path.read_text())
    for suffix in (".xml", ".bin"):
        model = folder / f"{name}{suffix}"
        shutil.copyfile(graph.with_suffix(suffix), model)
        sums[model.name] = file_digest(model)
    write_json(path, sums)


def write_all_formats(folder: Path, **int8) -> dict[str, Path]:
    """Write a model in every format. Only the OpenVINO models are real: a bundle does not open the others.

    Args:
        folder: Where to write the models.
        int8: Arguments of `colour_graph` for the int8 model.
    """
    saved_model = folder / "written"
    (saved_model / "variables").mkdir(parents=True)
    (saved_model / "saved_model.pb").write_bytes(b"graph")
    (saved_model / "variables" / "variables.index").write_bytes(b"index")
    for name in ("a.keras", "a.onnx", "a.tflite", "b.tflite"):
        (folder / name).write_bytes(name.encode())
    return {
        "openvino": colour_graph(folder / "a.xml"),
        "openvino_int8": colour_graph(folder / "b.xml", **int8),
        "keras": folder / "a.keras",
        "saved_model": saved_model,
        "onnx": folder / "a.onnx",
        "litert": folder / "a.tflite",
        "litert_int8": folder / "b.tflite",
    }
