"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd, in a separate folder, on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.parallel import free_ports

DAEMONS = ("munged", "slurmctld", "slurmd")
HOST = socket.gethostname().split(".")[0]
NODES = (HOST, f"{HOST}-2")
"""The processes of a job meet at its first node, whose name must be one that the system knows."""
CONFIGURATION = """
ClusterName=scanbook
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdTimeout=10
ReturnToService=2
KillWait=3
MailProg=/bin/true
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why a cluster cannot be started here, "" if it can."""
    missing_programs = [name for name in (*DAEMONS, "sbatch", "srun") if not shutil.which(name, path=_path())]
    if missing_programs:
        return f"there is no {', no '.join(missing_programs)}; install slurm-wlm and munge"
    try:
        socket.gethostbyname(HOST)
    except OSError:
        return f"this machine does not know its own name, {HOST}, by which the processes of a job meet"
    return "" if os.geteuid() == 0 else "its daemons are started as root"


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class Cluster:
    """A running Slurm of two nodes.

    Args:
        folder: Folder of its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        (folder / "state").mkdir()
        (folder / "slurm.conf").write_text(
            CONFIGURATION.format(folder=folder, host=HOST, nodes=NODES, ports=free_ports(3))
        )
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
        files |= {"log-file": folder / "munged.log", "seed-file": folder / "munge.seed"}
        # --force: the folder of a test is more open than a key likes
        self.run("munged", "--force", *(f"--{name}={path}" for name, path in files.items()))
        self.run("slurmctld", "-c")
        for node in NODES:
            self.start(node)
        self.wait_until_idle()

    def run(self, *words: str) -> str:
        """Return the output of a command, which must succeed."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return done.stdout

    def start(self, node: str) -> None:
        """Start a node."""
        self.run("slurmd", "-N", node)

    def bring_back(self) -> None:
        """Start the nodes that are down, and wait until both are idle."""
        for node, state in self.states().items():
            if state.startswith("down"):
                self.start(node)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until both nodes are idle."""
        self.until(lambda: set(self.states().values()) == {"idle"}, "both nodes are idle")

    def states(self) -> dict[str, str]:
        """Return the state of each node."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        return dict(line.split() for line in lines)

    def submit(self, *command: str, nodes: str = "2", **variables: str) -> int:
        """Submit a batch job that may be run again, on whole nodes; return its number. It writes `<number>.log`."""
        script = self.folder / "job.sh"
        quoted = " ".join(f"'{word}'" for word in command)
        script.write_text(f"#!/bin/sh\nexec {quoted}\n")
        exported = ",".join(["ALL", *(f"{key}={value}" for key, value in variables.items())])
        # open-mode: the output before it is run again stays
        options = ["--requeue", f"--nodes={nodes}", "--exclusive", "--open-mode=append", f"--export={exported}"]
        options += [f"--output={self.folder}/%j.log"]
        return int(re.findall(r"\d+", self.run("sbatch", *options, str(script)))[0])

    def job(self, number: int) -> dict[str, str]:
        """Return Slurm's facts of a job, such as its JobState."""
        shown = self.run("scontrol", "show", "job", str(number))
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    def output(self, number: int) -> str:
        """Return what a job has written so far."""
        path = self.folder / f"{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ended(self, number: int, limit: float) -> str:
        """Wait until a job has succeeded; return what it wrote."""
        self.until(lambda: self.job(number)["JobState"] not in _GOING, f"job {number} has ended", limit)
        assert self.job(number)["JobState"] == "COMPLETED", (self.job(number), self.output(number), self.log())
        return self.output(number)

    def kill(self, node: str) -> None:
        """Take a node down as a power cut does: its daemon and everything that runs on it, with SIGKILL."""
        for process in self._on(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def running_on(self, node: str) -> bool:
        """Return whether anything of a job runs on a node."""
        return len(self._on(node)) > 1

    def _on(self, node: str) -> list[psutil.Process]:
        processes = []
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline() == ["slurmd", "-N", node]:
                    processes.append(process)
                elif process.environ().get("SLURMD_NODENAME") == node:  # and the daemon of its job step
                    steps = [parent for parent in process.parents() if parent.name() == "slurmstepd"]
                    processes += [process, *steps]
        return processes

    def _processes(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    yield process

    def until(self, reached: Callable[[], bool], what: str, limit: float = 60) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + limit
        while not reached():
            assert time.monotonic() < end, f"not reached in {limit:.0f} s: {what}; {self.states()}\n{self.log()}"
            time.sleep(0.1)

    def log(self) -> str:
        """Return the last lines of all daemons."""
        tails = []
        for path in sorted(self.folder.glob("*.log")):
            tails += [f"== {path.name}", *path.read_text(errors="replace").splitlines()[-20:]]
        return "\n".join(tails)

    def stop(self) -> None:
        """End everything: the daemons, and processes that jobs have left."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


needed = pytest.mark.skipif(bool(missing()), reason=missing())
_GOING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "NODE_FAIL", "SUSPENDED")


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """Run a cluster while the block runs."""
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()


if __name__ == "__main__":
    with started(Path(sys.argv[1])) as running:
        print(f"export SLURM_CONF={running.environment['SLURM_CONF']}")
        signal.pause()
