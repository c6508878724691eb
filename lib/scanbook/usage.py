"""What each `scanbook` command takes beside its name."""

from __future__ import annotations

import argparse
import os

from scanbook import runtime
from scanbook.runner import order
from scanbook.serving import settings


def latency(command: argparse.ArgumentParser) -> None:
    """A service, and how it is asked."""
    command.add_argument("url", help="where a prediction is asked for, such as http://127.0.0.1:8080/predict")
    command.add_argument("--requests", type=int, default=25, help="sequential requests; 0 for none (default: 25)")
    command.add_argument("--interval", type=float, default=5, help="seconds between them (default: 5)")
    command.add_argument("--price", type=float, help="what an hour of the service's machine costs, in USD")
    command.add_argument(
        "--concurrency", default="", metavar="1,2,4,8", help="load test: clients at a time (default: no load test)"
    )
    command.add_argument("--seconds", type=float, default=10, help="of a window of the load test (default: 10)")
    command.add_argument(
        "--image", nargs="+", default=[], metavar="FILE", help="posted in turn (default: one that scanbook draws)"
    )
    command.add_argument("--field", default="", help="form field that takes the file (default: the file is the body)")
    command.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header more; can be repeated"
    )
    command.add_argument("--warm-up", type=int, default=3, help="requests before, which do not count (default: 3)")
    command.add_argument("--output", default="", metavar="FILE.json", help="file for the figures")


def run(command: argparse.ArgumentParser) -> None:
    """A notebook."""
    command.add_argument("notebook", help=f"one of {', '.join(order.NOTEBOOKS)}, or one of your own")
    command.add_argument("--if-stale", action="store_true", help="leave a report alone that is fresh")


def launch(command: argparse.ArgumentParser) -> None:
    """What starts each run."""
    command.add_argument(
        "--launch",
        default=os.environ.get("SCANBOOK_LAUNCH", ""),
        metavar="COMMAND",
        help="what starts each run, such as 'srun -n1' (default: SCANBOOK_LAUNCH, else nothing)",
    )


def reports(command: argparse.ArgumentParser) -> None:
    """How many runs go on at a time, and what starts each."""
    launch(command)
    command.add_argument(
        "--jobs", type=int, default=runtime.cores(), help="runs side by side (default: one a processor)"
    )


def cache(command: argparse.ArgumentParser) -> None:
    """What of the store goes."""
    command.add_argument("--prune", action="store_true", help="remove what was used longest ago, down to the limit")
    command.add_argument("--to", default="", metavar="2GiB", help="the same, down to a size")
    command.add_argument("--all", action="store_true", help="remove everything that no process uses")


def lint(command: argparse.ArgumentParser) -> None:
    """Notebooks."""
    command.add_argument("paths", nargs="*", metavar="FILE.ipynb", help="notebooks (default: all)")


def new_notebook(command: argparse.ArgumentParser) -> None:
    """Its name."""
    command.add_argument("name", help="a number and words, such as 08_my_question")


def new_study(command: argparse.ArgumentParser) -> None:
    """Its name, and the folder."""
    command.add_argument("name", help="of the study, such as my_images")
    command.add_argument("--data", default="", help="the folder (default: that of the study's name in data/)")


def export(command: argparse.ArgumentParser) -> None:
    """Where the bundle goes."""
    command.add_argument("--to", default="", help="folder of the bundle (default: that of notebook 07_export_flask)")


def train(command: argparse.ArgumentParser) -> None:
    """Which networks, and who trains them."""
    command.add_argument("study", help="a file of notebooks/studies, without .yaml")
    command.add_argument("--backbone", default="", help="what to train (default: what validation chooses)")
    command.add_argument("--from-scratch", action="store_true", help="from random weights, without pretrained ones")
    command.add_argument("--policy", default="", help="augmentation of the training images (default: the study's)")
    command.add_argument("--seed", type=int, help="of the one network to train (default: each of the study's seeds)")
    command.add_argument(
        "--record", default="", metavar="FILE.json", help="file for what became of it; predictions go beside it, as CSV"
    )
    command.add_argument(
        "--distribute",
        default="auto",
        choices=("auto", "none", "data-parallel"),
        help="none: one process, on TensorFlow; data-parallel: all GPUs, or all processes of the job, on JAX; "
        "auto: the second where there are several (default)",
    )
    command.add_argument(
        "--addresses", default="", metavar="HOST:PORT,…", help="of all processes (default: Slurm knows them)"
    )
    command.add_argument("--process", type=int, default=-1, help="which of them this one is, from 0")
    command.add_argument("--prepare", action="store_true", help="stop where training starts: no GPU is needed so far")


def serve(command: argparse.ArgumentParser) -> None:
    """A bundle, and how it is served."""
    command.add_argument(
        "bundle", nargs="?", default="", help="folder of the bundle (default: that of the study and profile)"
    )
    settings.add_options(command)


def bench(command: argparse.ArgumentParser) -> None:
    """Which rows, and how much of each."""
    command.add_argument("--rows", default="", metavar="NAME,…", help="what to measure (default: all but streaming)")
    command.add_argument("--pairs", type=int, default=0, help="measurements of each side (default: 3)")
    command.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    command.add_argument("--data", default="", help="folder with JPEG files to decode (default: drawn ones)")


def projection(command: argparse.ArgumentParser) -> None:
    """Studies, machines and a cluster."""
    command.add_argument(
        "studies",
        nargs="*",
        default=["melanoma", "dermnet"],
        metavar="STUDY",
        help="whose full profile (default: melanoma dermnet)",
    )
    command.add_argument(
        "--machines",
        default="g4dn.xlarge,p4d.24xlarge",
        metavar="NAME,…",
        help="with GPUs, of notebooks/prices.yaml (default: g4dn.xlarge,p4d.24xlarge)",
    )
    command.add_argument(
        "--nodes", type=int, default=8, help="of a Slurm cluster of machines like this one (default: 8)"
    )
    command.add_argument(
        "--network", type=float, default=10, metavar="GBIT", help="between its nodes, in Gbit/s (default: 10)"
    )
    command.add_argument("--price", type=float, help="what an hour of this machine, and of a node, costs, in USD")
    command.add_argument("--quick", action="store_true", help="measure next to nothing; the figures mean nothing")


def none(command: argparse.ArgumentParser) -> None:
    """Nothing."""
