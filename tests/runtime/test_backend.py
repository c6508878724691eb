"""How a process imports what it computes with, and on which device it trains."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scanbook import runtime


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_collected_after_an_import_as_it_was_before(enabled: bool) -> None:
    frozen = gc.get_freeze_count()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), runtime.without_garbage_collection():
            assert not gc.isenabled()
            import no_such_package  # noqa: F401
        assert gc.isenabled() == enabled and gc.get_freeze_count() > frozen
    finally:
        gc.enable()


NETWORK_ON_GPU = """
import json
import tensorflow as tf
from tensorflow.python.framework import config

listed = tf.config.list_physical_devices
gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
tf.config.list_physical_devices = lambda kind=None: [gpu] if kind == "GPU" else listed(kind)
tf.config.experimental.get_device_details = lambda device: {"device_name": "Tesla T4"} if device is gpu else {}

from helpers import planted
from scanbook import runtime, training
from scanbook.training import end_to_end

policies = []
train_network = end_to_end.train_network
end_to_end.train_network = lambda plan, model, *rest: (
    policies.append([layer.dtype_policy.name for layer in model.layers if layer.weights])
    or train_network(plan, model, *rest)
)
study = planted.study(scratch={"epochs": 1})
trained = training.train_from_scratch(study, planted.manifest(), planted.pixels(), "baseline_cnn")
print(json.dumps({
    "device": runtime.device(), "trained on": trained.history["device"].tolist(), "policies": policies,
    "saved": trained.load_model().dtype_policy.name, "deterministic": config.is_op_determinism_enabled(),
}))
"""
"""Trains a network where TensorFlow names a GPU; the processor computes, since no GPU is there."""


@pytest.mark.slow
def test_a_gpu_trains_without_settings_in_half_precision_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    command = [sys.executable, "-c", NETWORK_ON_GPU]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (policies,) = (decisions := json.loads(done.stdout.splitlines()[-1])).pop("policies")
    assert len(policies) > 3 and "mixed_float16" in policies and policies[0] == "mixed_float16"
    # some gradients have no deterministic kernel on a GPU, and would stop training there
    expected = {"device": "GPU: Tesla T4", "trained on": ["GPU: Tesla T4"], "saved": "float32", "deterministic": False}
    assert decisions == expected


def test_without_a_gpu_the_processor_trains_in_single_precision() -> None:
    assert (runtime.gpus(), runtime.device(), runtime.training_precision()) == (0, "CPU", "float32")


def test_linear_algebra_has_one_thread_in_the_block_and_the_former_number_after_it() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with runtime.single_threaded():
        assert set(threads()) == {1}
    assert threads() == before
