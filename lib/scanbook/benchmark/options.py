"""Options of the commands that measure: `scanbook latency`, `bench` and `projection`."""

from __future__ import annotations

import argparse


def latency(command: argparse.ArgumentParser) -> None:
    """Those of `scanbook latency`."""
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


def bench(command: argparse.ArgumentParser) -> None:
    """Those of `scanbook bench`."""
    command.add_argument("--rows", default="", metavar="NAME,…", help="rows of the table to measure (default: all)")
    command.add_argument("--pairs", type=int, default=0, help="measurements of each side (default: 3)")
    command.add_argument("--quick", action="store_true", help="tiny sizes, whose figures mean nothing")
    command.add_argument("--data", default="", help="folder with JPEG files to decode (default: drawn ones)")


def projection(command: argparse.ArgumentParser) -> None:
    """Those of `scanbook projection`."""
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
