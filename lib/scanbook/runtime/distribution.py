"""Processes and devices that train one network together, by Keras's data parallelism on JAX.

Every process holds the whole network and takes its share of each batch; gradients are averaged over all devices.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scanbook import runtime
from scanbook.errors import RunError

TASKS = "SLURM_STEP_NUM_TASKS"
"""Variable in which Slurm's `srun` states how many processes it started."""
_PORTS = 4096  # JAX takes one of the last 4,096 ports by the job's number, which two steps of one job would share
_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Share:
    """The share of every batch that this process takes.

    Attributes:
        process: Number of this process, from 0; process 0 writes files and log lines.
        processes: Number of processes that train together.
        devices: Number of devices of all processes together; each process has equally many.
    """

    process: int
    processes: int
    devices: int


_shares: list[Share] = []


def installed() -> bool:
    """Return whether JAX, an optional dependency, is installed."""
    return find_spec("jax") is not None


def share() -> Share | None:
    """Return the share of every batch that this process takes; None where it trains alone."""
    return _shares[0] if _shares else None


def first_process() -> bool:
    """Return whether this process is the first of those that train together, which writes files and log lines."""
    return not _shares or _shares[0].process == 0


def join(addresses: Sequence[str] = (), process: int | None = None) -> Share:
    """Let this process train with others; call it before Keras is imported.

    The others are the processes of the job step, which JAX knows from Slurm, or those at `addresses`. Otherwise this
    process trains alone, on all GPUs of the machine.

    Args:
        addresses: `host:port` of every process, in the same order in each of them.
        process: Number of this process among them, from 0.

    Raises:
        RunError: JAX is not installed or does not see the GPUs, Keras already has another backend, the others do not
            answer, or the processes have unequal numbers of devices.
    """
    if not installed():
        raise RunError(
            "training by several processes or devices runs on JAX, which is not installed; "
            "pip install 'scanbook[jax]', and for NVIDIA GPUs 'jax[cuda12]'"
        )
    imported = sys.modules.get("keras")
    if imported and imported.backend.backend() != "jax":
        raise RunError(f"Keras runs on {imported.backend.backend()} already; train together in a fresh process")
    runtime.choose_jax()
    keras = runtime.keras()
    if addresses or slurm_tasks() > 1:
        os.environ |= {**_slurm_settings(), **os.environ}
        try:
            keras.distribution.initialize(",".join(addresses) or None, len(addresses) or None, process)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"the processes that train together did not meet: {reason}") from error
    import jax

    if jax.default_backend() == "cpu" and _NVIDIA.exists() and "JAX_PLATFORMS" not in os.environ:
        raise RunError(
            f"this machine has an NVIDIA GPU that JAX does not see; .venv/bin/python -m pip install "
            f"'jax[cuda12]=={jax.__version__}', or set JAX_PLATFORMS=cpu to train on CPUs"
        )
    devices = keras.distribution.list_devices()
    if len(devices) != jax.local_device_count() * jax.process_count():
        raise RunError(
            f"process {jax.process_index()} has {jax.local_device_count()} of {len(devices)} devices, and there are "
            f"{jax.process_count()} processes; expected equally many devices for each"
        )
    # JAX compiles the step of a single device again in the second epoch
    if len(devices) > 1:
        # auto_shard_dataset: a batch is this process's share
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    _shares[:] = [Share(jax.process_index(), jax.process_count(), len(devices))]
    return _shares[0]


def _slurm_settings() -> dict[str, str]:
    """Return JAX's settings for one step of a Slurm job; empty outside of Slurm.

    By default JAX takes the GPU whose number is that of the task on its node. A task that sees one GPU takes that one
    instead, and the only task of a node takes all that it sees. Each step has its own port.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_STEP_ID", "0"))
    settings = {"JAX_COORDINATOR_PORT": str(65536 - _PORTS + (job * 61 + step) % _PORTS)}
    visible = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if number]
    if visible and (len(visible) == 1 or os.environ.get("SLURM_STEP_NUM_NODES") == os.environ.get(TASKS)):
        settings["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(len(visible))))
    return settings


def slurm_tasks() -> int:
    """Return how many processes Slurm's `srun` started with this one; 1 outside of Slurm."""
    return int(os.environ.get(TASKS, "1"))


def gpus() -> int:
    """Return how many GPUs JAX sees on this machine; 0 without JAX.

    Another process counts them: JAX takes most of a GPU's memory when it opens it, which TensorFlow may need.
    """
    if not installed() or find_spec("jax_plugins") is None:  # JAX was installed for CPUs alone
        return 0
    count = "import jax; print(jax.local_device_count('gpu'))"
    counted = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=False)
    return int(counted.stdout) if counted.returncode == 0 else 0


def value_of_first_process(value: bool) -> bool:
    """Return the value that the first of the processes that train together passed, in all of them."""
    if _shares and _shares[0].processes > 1:
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(value))
    return value


def check_same(digest: str, what: str) -> None:
    """Raise an error where the processes do not start from the same files.

    Args:
        digest: Digest of this process's files, in hexadecimal digits.
        what: Name of the files, for the error.

    Raises:
        RunError: In every process, where one has another digest.
    """
    if not (_shares and _shares[0].processes > 1):
        return
    import numpy as np
    from jax.experimental import multihost_utils

    digests = multihost_utils.process_allgather(np.uint32(int(digest[:8], 16)))
    if len(set(digests.tolist())) > 1:
        raise RunError(
            f"the processes have different {what} in {runtime.store_dir()}; "
            "expected one store for all: set SCANBOOK_STORE to a folder on a shared file system"
        )


def leave() -> None:
    """Wait for the other processes that this one has trained with, then end training for this process."""
    if _shares and _shares[0].processes > 1:
        import jax

        jax.distributed.shutdown()
    _shares.clear()
