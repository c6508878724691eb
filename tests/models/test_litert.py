"""LiteRT: int8 with its head in float32, and one line for what is missing, damaged or not supported.

`test_engines` compares its float32 engine with the others.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import documents, planted
from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.evaluation import Calibration
from scanbook.inspection import grad_cam
from scanbook.models import engines
from scanbook.models.engines import KerasEngine, LiteRtEngine
from scanbook.models.engines.litert import _names_of_head

PHOTOS = planted.pixels()


@pytest.fixture(scope="module")
def exported() -> Any:
    return grad_cam.add_heat_maps(planted.network(), 1.7)


@pytest.fixture(scope="module")
def quantised(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model_int8.tflite"
    engines.to_litert_int8(exported, path, PHOTOS[::2])
    return path


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_int8_is_another_arithmetic_with_the_same_answers(exported: Any, quantised: Path, mode: engines.Mode) -> None:
    engine = engines.open_saved(quantised, mode)
    assert (engine.name, engine.precision) == ("LiteRT", "int8")
    probabilities, maps = engine.predict(PHOTOS, 7)
    expected, expected_maps = KerasEngine(exported).predict(PHOTOS)
    assert probabilities.dtype == np.float32 and maps.shape == expected_maps.shape
    difference = engines.parity(*map(engines.centred_log, (expected, probabilities)))
    assert 10 * engines.PARITY < difference < 0.5 and engines.parity(expected_maps, maps) < 0.5
    assert engines.rejection_reason("int8", expected, probabilities, planted.manifest().y) == ""


def test_probabilities_of_int8_are_no_multiples_of_a_256th(quantised: Path) -> None:
    """Those of a head in integers are, and the rarest of them are 0."""
    probabilities = LiteRtEngine(quantised).predict(PHOTOS)[0]
    steps = 256 * probabilities
    assert np.abs(steps - np.round(steps)).max() > 0.05 and probabilities.min() > 0
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_int8_is_written_small_and_in_silence_and_the_same_again(
    exported: Any, quantised: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    engines.to_litert(exported, tmp_path / "model.tflite")
    capfd.readouterr()
    engines.to_litert_int8(exported, tmp_path / "again.tflite", PHOTOS[::2])
    assert capfd.readouterr() == ("", "")
    again, first = (LiteRtEngine(path).predict(PHOTOS)[0] for path in (tmp_path / "again.tflite", quantised))
    np.testing.assert_array_equal(again, first)
    assert quantised.stat().st_size < 0.4 * (tmp_path / "model.tflite").stat().st_size


def test_the_head_goes_from_pooled_features_to_probabilities(quantised: Path) -> None:
    findings = Calibration(np.array([1.4, 0.8, 1.0]), np.array([0.3, 0.0, 0.0]), ("Platt",) * 3)
    *later, mean = _names_of_head(quantised.read_bytes())
    assert len(later) == 2 and "features" in mean  # before softmax and the linear layer
    network = grad_cam.add_heat_maps(planted.network("small_cnn"), findings)
    path = quantised.with_name("findings.tflite")
    engines.to_litert_int8(network, path, PHOTOS[::2])
    outputs = LiteRtEngine(path).predict(PHOTOS)[0]
    assert np.abs(256 * outputs - np.round(256 * outputs)).max() > 0.05
    assert np.abs(outputs - KerasEngine(network).predict(PHOTOS)[0]).max() < 0.1


def test_threads_with_batches_of_other_sizes_get_their_own_answers(quantised: Path) -> None:
    engine = LiteRtEngine(quantised, "throughput", threads=2)
    shares = [PHOTOS[start : start + 1 + start % 5] for start in range(0, 50, 3)]
    alone = [engine.predict(share)[0] for share in shares]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda share: engine.predict(share)[0], shares * 4))
    for result, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_the_example_of_the_documentation_runs(exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines.to_litert(exported, tmp_path / "model.tflite")
    [block] = documents.blocks("docs/how-to/deploy.md", "python")
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {"pictures": PHOTOS[:5]}
    exec(block, made)
    for name, expected in zip(("probabilities", "heat_maps"), KerasEngine(exported).predict(PHOTOS[:5]), strict=True):
        np.testing.assert_allclose(made[name], expected, atol=1e-4 * np.abs(expected).max())


def test_images_of_another_size_or_type_are_not_computed(quantised: Path) -> None:
    engine = LiteRtEngine(quantised)
    for wrong in (PHOTOS[:2, :32, :32], PHOTOS[:2].astype(np.float32)):
        with pytest.raises((ValueError, RuntimeError)):
            engine.predict(wrong)
    assert len(engine.predict(PHOTOS[:2])[0]) == 2


def test_a_damaged_file_is_refused_in_a_line(quantised: Path, tmp_path: Path) -> None:
    whole = quantised.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "zeros": b"\0" * len(whole)}.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name}\.tflite cannot be opened as a LiteRT model") as refused:
            engines.open_saved(path)
        assert "\n" not in str(refused.value)


def test_values_that_overflow_in_calibration_are_named_in_a_line(tmp_path: Path) -> None:
    """TensorFlow's quantiser ends the process for them."""
    keras = runtime.keras()
    entry = keras.Input((8, 8, 3), dtype="uint8")
    values = keras.ops.exp(keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(entry)))
    network = keras.Model(entry, keras.layers.Dense(2)(values))
    with pytest.raises(ModelError, match=r"calibration images give values that are not finite in \S*Exp") as refused:
        engines.to_litert_int8(network, tmp_path / "model.tflite", np.full((2, 8, 8, 3), 200, np.uint8))
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_without_its_package_it_says_what_to_install(
    exported: Any, quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    missing = pytest.raises(ModelError, match=r'^LiteRT needs ai-edge-litert: pip install "scanbook\[litert\]"$')
    with missing:
        engines.open_saved(quantised)
    with missing:
        engines.to_litert(exported, tmp_path / "model.tflite")
    with missing:
        engines.to_litert_int8(exported, tmp_path / "model.tflite", PHOTOS)
    assert not list(tmp_path.iterdir())


def test_operations_that_litert_lacks_are_named_in_a_line(tmp_path: Path) -> None:
    keras = runtime.keras()
    entry = keras.Input((8, 8, 3), dtype="uint8")
    values = keras.ops.det(keras.ops.cast(entry, "float32")[:, :3, :3, 0])
    network = keras.Model(entry, keras.layers.Dense(2)(values[:, None]))
    for write in (engines.to_litert, lambda *given: engines.to_litert_int8(*given, PHOTOS[:2, :8, :8])):
        with pytest.raises(ModelError, match=r"LiteRT lacks the operations MatrixDeterminant") as refused:
            write(network, tmp_path / "model.tflite")
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
