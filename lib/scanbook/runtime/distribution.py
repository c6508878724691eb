"""Processes and devices that train one network together, by Keras's data parallelism on JAX.

Every process holds the whole network and takes its part of each batch; gradients are averaged over all devices.
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
"""Variable in which Slurm's `srun` says how many processes it started."""
_PORTS = 4096  # JAX takes a port of the last so many, by the job's number, which two steps of one job would share
_NVIDIA = Path("/proc/driver/nvidia/version")
_COUNT = "import jax; print(jax.local_device_count('gpu'))"


@dataclass(frozen=True)
class Share:
    """What of every batch is for this process.

    Attributes:
        process: Number of this process, from 0; the first one writes.
        processes: How many train together.
        devices: How many devices they have, all together, each process as many.
    """

    process: int
    processes: int
    devices: int


_shares: list[Share] = []


def installed() -> bool:
    """Whether JAX is, an extra."""
    return find_spec("jax") is not None


def share() -> Share | None:
    """What of every batch is for this process; None where it trains alone."""
    return _shares[0] if _shares else None


def first_process() -> bool:
    """Whether this process is the one that writes and speaks for all that train together."""
    return not _shares or _shares[0].process == 0


def join(addresses: Sequence[str] = (), process: int | None = None) -> Share:
    """Lets this process train with others; before Keras is imported.

    They are the processes of the job step, which JAX knows of Slurm; those with `addresses`; or this one alone, with
    all GPUs of the machine.

    Args:
        addresses: `host:port` of every process, the same and in the same order in each of them.
        process: Number of this process among them, from 0.

    Raises:
        RunError: JAX is not installed or does not see the GPUs, Keras has another backend already, the others do not
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
    os.environ["KERAS_BACKEND"] = "jax"
    keras = runtime.keras()
    if addresses or tasks() > 1:
        os.environ.update({key: value for key, value in _of_slurm().items() if key not in os.environ})
        try:
            keras.distribution.initialize(",".join(addresses) or None, len(addresses) or None, process)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"the processes that train together did not meet: {reason}") from error
    import jax

    platform = jax.default_backend()
    if platform == "cpu" and _NVIDIA.exists() and "JAX_PLATFORMS" not in os.environ:
        raise RunError(
            f"this machine has an NVIDIA GPU that JAX does not see; .venv/bin/python -m pip install "
            f"'jax[cuda12]=={jax.__version__}', or set JAX_PLATFORMS=cpu to train on processors"
        )
    devices = keras.distribution.list_devices()
    if len(devices) != jax.local_device_count() * jax.process_count():
        raise RunError(
            f"process {jax.process_index()} has {jax.local_device_count()} of {len(devices)} devices, and there are "
            f"{jax.process_count()} processes; expected as many devices for each"
        )
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)  # a batch is this process's part
    )
    _shares[:] = [Share(jax.process_index(), jax.process_count(), len(devices))]
    return _shares[0]


def _of_slurm() -> dict[str, str]:
    """Settings of JAX for a step of a job of Slurm, in which it would take the GPU of each task's number on its node.

    A task that sees one GPU alone takes that one, and the only task of a node all that it sees. And each step has a
    port of its own.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_STEP_ID", "0"))
    found = {"JAX_COORDINATOR_PORT": str(65536 - _PORTS + (job * 61 + step) % _PORTS)}
    seen = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    if seen and (len(seen) == 1 or os.environ.get("SLURM_STEP_NUM_NODES") == os.environ.get(TASKS)):
        found["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(len(seen))))
    return found


def tasks() -> int:
    """How many processes Slurm's `srun` started with this one; 1 outside of Slurm."""
    return int(os.environ.get(TASKS, "1"))


def gpus() -> int:
    """How many GPUs JAX sees on this machine; 0 without JAX.

    Another process looks: JAX takes most of a GPU's memory when it opens it, which TensorFlow may be about to use.
    """
    if not installed() or find_spec("jax_plugins") is None:  # it was built for processors alone
        return 0
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def agreed(value: bool) -> bool:
    """What the first of the processes that train together says."""
    if _shares and _shares[0].processes > 1:
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(value))
    return value


def check_same(digest: str, what: str) -> None:
    """Makes sure that all processes start from the same.

    Args:
        digest: Of what this process has, in hexadecimal digits.
        what: It is, in words.

    Raises:
        RunError: In every process, where one has another.
    """
    if not (_shares and _shares[0].processes > 1):
        return
    import numpy as np
    from jax.experimental import multihost_utils

    found = multihost_utils.process_allgather(np.uint32(int(digest[:8], 16)))
    if len(set(found.tolist())) > 1:
        raise RunError(
            f"the processes have different {what} in {runtime.store_dir()}; "
            "expected one store for all: set SCANBOOK_STORE to a folder on a shared file system"
        )


def part() -> None:
    """Leaves those that this process has trained with, once all of them are here; training ends for this process."""
    if _shares and _shares[0].processes > 1:
        import jax

        jax.distributed.shutdown()
    _shares.clear()
