"""The kernel that runs a notebook: this interpreter, reached through socket files, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import Any, ClassVar

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default
from traitlets.config import Config

FOLDER = "JUPYTER_RUNTIME_DIR"
"""Variable with the kernel's own folder, which identifies the kernel and all processes that it starts."""
STEPS = "steps.json"
"""File in that folder in which the kernel writes its steps."""
PREFIX = "scanbook-"
"""First characters of the name of such a folder."""


class OwnKernel(AsyncKernelManager):
    """A kernel of the running interpreter, whatever kernels named `python3` a user has installed.

    Attributes:
        process: Process of the kernel started last; a runner runs one notebook.
    """

    process: ClassVar[subprocess.Popen[bytes] | None] = None

    @default("kernel_spec_manager")
    def _own_interpreter(self) -> KernelSpecManager:
        # no folder to look in leaves ipykernel's own entry, whose command is sys.executable
        return KernelSpecManager(kernel_dirs=[])

    async def start_kernel(self, **options: Any) -> None:
        """Start the kernel, with nothing of its own output on the terminal.

        The output of cells is not lost: it travels in messages. A process that outlives a killed runner keeps none of
        its pipes open, at whose other end another process may wait.
        """
        await super().start_kernel(**{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options})
        OwnKernel.process = self.provisioner.process


def engine_arguments(folder: str) -> dict[str, object]:
    """Return the arguments of papermill's engine for a kernel whose connection file and sockets lie in a folder.

    Parallel kernels race for TCP ports (papermill#511), hence socket files. The system limits the length of their paths
    to about 100 characters, hence a folder with a short name. Output may take long to come (papermill#426).
    """
    manager = {"transport": "ipc", "connection_file": f"{folder}/k.json"}
    return {
        "kernel_manager_class": OwnKernel,
        "config": Config(OwnKernel=manager),
        # a kernel that is stopped after a failed cell prints nothing beside the one line with the reason
        "extra_arguments": ["--IPKernelApp.log_level=50"],
        "iopub_timeout": 600,
        "start_timeout": 180,
        "shutdown_kernel": "immediate",  # an orderly end takes seconds, and `end` follows in any case
    }


def end(folder: str) -> None:
    """Kill the kernel whose own folder this is, and all that it started; store and reports stay consistent.

    Processes are identified by their environment: a kernel whose runner was killed is found too, and a process that has
    got its number since is not.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile, or is another user's
            if process.pid != os.getpid() and process.environ().get(FOLDER) == folder:
                process.kill()


def death(out_of_memory: bool) -> str:
    """Return why the last kernel ended, in a few words.

    Args:
        out_of_memory: Whether the system has killed a process for lack of memory meanwhile.
    """
    status = OwnKernel.process.poll() if OwnKernel.process else None
    if status == -signal.SIGKILL:
        return "out of memory" if out_of_memory else "the kernel was killed, as happens when memory runs out,"
    if status == -signal.SIGBUS:  # a full disk ends a process that writes through a memory map
        return "the disk was full"
    if status is not None and status < 0:
        return f"the kernel crashed in native code ({signal.Signals(-status).name})"
    return f"the kernel ended by itself (exit status {status})"
