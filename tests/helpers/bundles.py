"""A bundle whose network tells which channel of an image is brightest."""

from pathlib import Path

import numpy as np

from scanbook import bundle

CLASSES = ("red", "green", "blue")


SIZE = (16, 24)


def colour_graph(path: Path, size=SIZE, width=3, map_width=3, kind=np.uint8, layout="NHWC", swap=False) -> Path:
    """Says which channel is brightest: a known answer, and another one where RGB and BGR are swapped."""
    import openvino as ov  # after scanbook, which keeps it from reporting home
    from openvino import opset13 as ops

    shape = [-1, *size, 3] if layout == "NHWC" else [-1, 3, *size]
    source = ops.parameter(shape, kind, name="images")
    shares = ops.divide(ops.convert(source, "f32"), ops.constant(np.float32(255)))
    axes = [1, 2] if layout == "NHWC" else [2, 3]
    mean = ops.reduce_mean(shares, ops.constant(np.array(axes)), False)
    weights = np.eye(3, max(width, 3), dtype=np.float32)[:, :width] * 5
    probabilities = ops.softmax(ops.matmul(mean, ops.constant(weights), False, False), 1)
    outputs = [probabilities]
    if map_width:
        outputs.append(ops.matmul(shares, ops.constant(np.eye(3, map_width, dtype=np.float32)), False, False))
    if swap:
        outputs.reverse()
    ov.save_model(ov.Model(outputs, [source], "colours"), path, compress_to_fp16=False)
    return path


def write(folder: Path, **changes) -> bundle.Bundle:
    graph = changes.pop("graph", {})
    models = changes.pop("models", None) or {"openvino": colour_graph(folder.parent / "model.xml", **graph)}
    values = {
        "name": "colours",
        "classes": CLASSES,
        "image_size": SIZE,
        "temperature": 1.5,
        "abstain_below": 0.6,
        "models": models,
        "metrics": {
            "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
            "images": 40,
            "kappa": {"value": float("nan")},
        },
        "about": {"title": "Which colour?", "data": "plain | images", "licence": "CC0"},
    }
    return bundle.write(folder, **values | changes)


def whole_models(folder: Path, **int8) -> dict[str, Path]:
    """A file or folder for every format; all but OpenVINO's are bytes, which a bundle does not open."""
    saved = folder / "written"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"graph")
    (saved / "variables" / "variables.index").write_bytes(b"index")
    for name in ("a.keras", "a.onnx"):
        (folder / name).write_bytes(name.encode())
    graphs = {
        "openvino": colour_graph(folder / "a.xml"),
        "openvino_int8": colour_graph(folder / "b.xml", **int8),
    }
    return graphs | {"keras": folder / "a.keras", "saved_model": saved, "onnx": folder / "a.onnx"}
