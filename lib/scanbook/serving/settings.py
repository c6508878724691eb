"""What can be chosen when a service is started: by an option, else by a variable of the environment."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

MODEL_FOLDER = Path("/opt/ml/model")
"""Where SageMaker puts a model."""
_RATE = re.compile(r"[1-9]\d*/(second|minute|hour|day)")


def _variable(name: str) -> str:
    return f"SCANBOOK_{name.upper()}"


@dataclass(frozen=True)
class Settings:
    """How a service runs.

    Attributes:
        host: Address to listen on; the default is reached from this machine alone.
        port: Port to listen on.
        workers: Processes, each with its own model in memory and its share of the processors.
        threads: Requests that a process works on at a time; 0 for as many as `queue` asks for.
        queue: Images waiting or running in a process; what comes on top is refused with 503.
        precision: Of the model.
        rate_limit: Requests of one client in each process, such as "60/minute"; "" for any number.
        trusted_proxies: Load balancers in front, whose word on the client's address is taken.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int = 0
    queue: int = 64
    precision: Literal["fp32", "int8"] = "fp32"
    rate_limit: str = ""
    trusted_proxies: int = 0


VARIABLES = frozenset({"SCANBOOK_BUNDLE", *(_variable(each.name) for each in fields(Settings))})
"""What an environment can say of a service."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Gives a command an option for each of `Settings`; its default is `SCANBOOK_…` where that is set."""

    def option(name: str, kind: Any, text: str) -> None:
        shown = f"{text} (default: {getattr(Settings, name)})" if getattr(Settings, name) else text
        given = os.environ.get(_variable(name)) or getattr(Settings, name)
        # a variable is text, which the parser converts and checks as it does an option's
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=given, help=shown)

    option("host", str, "address to listen on; 0.0.0.0 for every machine that can reach this one")
    option("port", _whole(0, 65535), "port to listen on; 0 for any that is free")
    option("workers", _whole(1, 256), "processes, which share the processors; each holds the model in memory")
    option("threads", _whole(0, 1024), "requests in work at a time in each process (default: what the queue needs)")
    option("queue", _whole(1, 1000), "images waiting or running in each process; more are refused with 503")
    option("precision", _precision, "which of the bundle's models: fp32, or int8 where it has one")
    option("rate_limit", _rate, "requests of one client in each process, such as 60/minute (default: any number)")
    option("trusted_proxies", _whole(0, 10), "load balancers in front, which tell the client's address (default: none)")


def chosen(options: argparse.Namespace) -> Settings:
    """The settings that a command line gives."""
    return Settings(**{each.name: getattr(options, each.name) for each in fields(Settings)})


def find_bundle(named: Path | str = "") -> Path:
    """The bundle's folder: as named, else by `SCANBOOK_BUNDLE`, SageMaker's, this code's own, or the working one."""
    if given := str(named) or os.environ.get("SCANBOOK_BUNDLE", ""):
        return Path(given)
    for folder in (MODEL_FOLDER, Path(__file__).resolve().parents[2]):
        if (folder / "bundle.json").is_file():
            return folder
    return Path()


def _whole(least: int, most: int) -> Any:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return value

    return number


def _precision(text: str) -> str:
    if text not in ("fp32", "int8"):
        raise argparse.ArgumentTypeError(f"{text!r} is no precision; expected fp32 or int8")
    return text


def _rate(text: str) -> str:
    if text and not _RATE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; expected one such as 60/minute or 5/second")
    return text
