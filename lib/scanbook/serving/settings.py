"""Settings of a service, from the options of a command or from environment variables."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

MODEL_FOLDER = Path("/opt/ml/model")
"""Folder in which SageMaker places a model."""
_RATE = re.compile(r"[1-9]\d*/(second|minute|hour|day)")


def _variable(name: str) -> str:
    return f"SCANBOOK_{name.upper()}"


@dataclass(frozen=True)
class Settings:
    """Settings of a service.

    Attributes:
        host: Address to listen on; the default accepts connections from this machine only.
        port: Port to listen on.
        workers: Processes, each with its own copy of the model and its share of the processors.
        threads: Requests that a process handles at the same time; 0 for the number that `queue` needs.
        queue: Images that may wait or run in a process; the service refuses further images with status 503.
        precision: Precision of the model.
        rate_limit: Requests of one client in each process, such as "60/minute"; "" for no limit.
        trusted_proxies: Number of load balancers in front whose header fields give the client's address.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 0
    queue: int = 64
    precision: Literal["fp32", "int8"] = "fp32"
    rate_limit: str = ""
    trusted_proxies: int = 0


VARIABLES = frozenset({"SCANBOOK_BUNDLE", *(_variable(field.name) for field in fields(Settings))})
"""Environment variables of a service."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each of `Settings` to a parser; the default is the variable `SCANBOOK_…` where it is set."""

    def add(name: str, kind: Callable[[str], Any], text: str) -> None:
        default = getattr(Settings, name)
        # a variable is text, which the parser converts and checks like an option
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=os.environ.get(_variable(name)) or default,
            help=f"{text} (default: {default})" if default else text,
        )

    add("host", str, "address to listen on; 0.0.0.0 accepts connections from other machines")
    add("port", _whole(0, 65535), "port to listen on; 0 for any free port")
    add("workers", _whole(1, 256), "processes, which share the processors; each holds the model in memory")
    add("threads", _whole(0, 1024), "requests handled at the same time in each process (default: as the queue needs)")
    add("queue", _whole(1, 1000), "images that may wait or run in each process; further ones are refused with 503")
    add("precision", _precision, "which of the bundle's models: fp32, or int8 where it has one")
    add("rate_limit", _rate, "requests of one client in each process, such as 60/minute (default: no limit)")
    add("trusted_proxies", _whole(0, 10), "load balancers in front that forward the client's address (default: none)")


def from_options(options: argparse.Namespace) -> Settings:
    """Return the settings that a command line gives."""
    return Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})


def find_bundle(folder: Path | str = "") -> Path:
    """Return the folder of the bundle to serve.

    Args:
        folder: The folder; "" for that in `SCANBOOK_BUNDLE`, else SageMaker's, that of this code, or the working one.
    """
    if path := str(folder) or os.environ.get("SCANBOOK_BUNDLE", ""):
        return Path(path)
    for default in (MODEL_FOLDER, Path(__file__).resolve().parents[2]):
        if (default / "bundle.json").is_file():
            return default
    return Path()


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return convert


def _precision(text: str) -> str:
    if text not in ("fp32", "int8"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a precision; expected fp32 or int8")
    return text


def _rate(text: str) -> str:
    if text and not _RATE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate; expected one such as 60/minute or 5/second")
    return text
