"""The kernel that runs a notebook: this interpreter, reached through socket files, its memory watched."""

from __future__ import annotations

import subprocess
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default
from traitlets.config import Config


class OwnKernel(AsyncKernelManager):
    """A kernel of the running interpreter, whatever kernels named `python3` a user has installed."""

    @default("kernel_spec_manager")
    def _own_interpreter(self) -> KernelSpecManager:
        # no folder to look in leaves ipykernel's own entry, whose command is sys.executable
        return KernelSpecManager(kernel_dirs=[])

    async def start_kernel(self, **options: Any) -> None:
        """Starts the kernel; what its own machinery complains of while it stops is kept off the terminal.

        What the cells write is not lost: it travels in messages.
        """
        await super().start_kernel(**{"stderr": subprocess.DEVNULL, **options})


def engine_arguments(folder: str) -> dict[str, object]:
    """Arguments of papermill's engine for a kernel whose connection file and sockets lie in a folder.

    Parallel kernels race for TCP ports (papermill#511), hence socket files. The system limits the length of their paths
    to about 100 characters, hence a folder with a short name. Output may take long to come (papermill#426).
    """
    manager = {"transport": "ipc", "connection_file": f"{folder}/k.json"}
    return {
        "kernel_manager_class": OwnKernel,
        "config": Config(OwnKernel=manager),
        # a kernel that is stopped after a failed cell may say so on the terminal, beside the one line that tells why
        "extra_arguments": ["--IPKernelApp.log_level=50"],
        "iopub_timeout": 600,
        "start_timeout": 180,
    }


def memory_below() -> float:
    """Memory of all processes below this one, in GiB. Pages that processes share count once for each."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it ended between the two calls
            continue
    return total / 2**30
