"""Programs that the documents call and no test can: each checks its arguments and answers as the real one.

`install` puts them into a folder for PATH. `aws` knows operations and parameters from botocore's service models; what
the command line adds to them, and docker, conda and pip, are written down here from their references.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ACCOUNT = "123456789012"
_PLATFORMS = {"linux/amd64", "linux/arm64"}
_EXPORTS = {"type", "name", "dest", "push", "oci-mediatypes", "compression", "annotation"}
"""Attributes of buildx's `--output type=image`."""


def install(folder: Path) -> Path:
    """Writes the programs into a folder."""
    folder.mkdir()
    for name in PROGRAMS:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        path.chmod(0o755)
    return folder


def parser(*required: str, flags: tuple[str, ...] = (), values: tuple[str, ...] = (), place: str = "") -> Any:
    """A parser that refuses what it does not know, abbreviations included."""
    result = argparse.ArgumentParser(allow_abbrev=False)
    for name in flags:
        result.add_argument(name, action="store_true")
    for name in (*required, *values):
        result.add_argument(name, required=name in required)
    if place:
        result.add_argument(place)
    return result


def check(right: object, sentence: str) -> None:
    if not right:
        sys.exit(sentence)


# --- docker

_DOCKER = {
    ("build",): parser("--tag", place="context"),
    ("run",): parser(flags=("--rm", "--read-only"), values=("--tmpfs", "--publish"), place="image"),
    ("login",): parser("--username", flags=("--password-stdin",), place="server"),
    ("buildx", "create"): parser(flags=("--use",)),
    ("buildx", "build"): parser(
        flags=("--push",), values=("--platform", "--tag", "--provenance", "--output"), place="context"
    ),
}


def docker(words: list[str]) -> None:
    command = tuple(words[: 2 if words[0] == "buildx" else 1])
    check(command in _DOCKER, f"docker has no command {' '.join(command)}")
    options = vars(_DOCKER[command].parse_args(words[len(command) :]))
    if "context" in options:
        check((Path(options["context"]) / "Dockerfile").is_file(), f"no Dockerfile in {options['context']}")
    if options.get("platform"):
        check(set(options["platform"].split(",")) <= _PLATFORMS, f"unknown platform in {options['platform']}")
        check(
            options["push"] or "push=true" in (options["output"] or ""), "the image would stay in the builder's cache"
        )
    if options.get("output"):
        given = dict(setting.split("=", 1) for setting in options["output"].split(","))
        check(given["type"] == "image" and set(given) <= _EXPORTS, f"unknown attribute in {options['output']}")
    if options.get("publish"):
        check(re.fullmatch(r"\d+:\d+", options["publish"]), f"no ports: {options['publish']}")
    if options.get("password_stdin"):
        check(sys.stdin.read().strip() == "a-password", "no password came in")


# --- aws

_GLOBAL = ("--region", "--output", "--query")
_ADDED = {  # what the command line has beyond the operations of the services
    ("cloudformation", "deploy"): {"--stack-name": 1, "--template-file": 1, "--capabilities": "+"}
    | {"--parameter-overrides": "+"},
    ("ecr", "get-login-password"): {},
}


def _templates() -> dict[str, dict[str, Any]]:
    """Templates of the bundle that is the working folder; without the tags of CloudFormation's own language."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    return {str(path): yaml.load(path.read_text(), Loader) for path in Path().glob("cloudformation/*.yaml")}


def aws(words: list[str]) -> None:
    import botocore.session
    import jmespath
    from botocore import xform_name

    service, operation, *rest = words
    if (service, operation) in _ADDED:
        arguments = parser(values=_GLOBAL)
        for name, count in _ADDED[service, operation].items():
            arguments.add_argument(name, required=True, nargs=None if count == 1 else count)
        _added(operation, vars(arguments.parse_args(rest)))
        return
    model = botocore.session.get_session().get_service_model(service)
    names = {xform_name(operation_name, "-"): operation_name for operation_name in model.operation_names}
    check(operation in names, f"{service} has no operation {operation}")
    shape = model.operation_model(names[operation])
    members = {f"--{xform_name(member, '-')}": member for member in shape.input_shape.members}
    required = [option for option, member in members.items() if member in shape.input_shape.required_members]
    streamed = shape.has_streaming_output
    others = tuple(option for option in members if option not in required)
    options = vars(parser(*required, values=(*_GLOBAL, *others), place="file" if streamed else "").parse_args(rest))
    body = options.get("body")
    check(body is None or Path(body.removeprefix("fileb://")).is_file(), f"no file {body}")
    answer = _answer(operation)
    check(set(answer) <= set(shape.output_shape.members), f"{operation} does not answer {set(answer)}")
    if streamed:
        Path(options["file"]).write_text(json.dumps(answer))
        return
    values = jmespath.search(options["query"], answer) if options["query"] else answer
    check(values or not options["query"], f"{options['query']} finds nothing")
    if options["output"] == "text":
        print(" ".join([values] if isinstance(values, str) else values))
    else:
        print(json.dumps(values))


def _added(operation: str, options: dict[str, Any]) -> None:
    if operation == "get-login-password":
        print("a-password")
        return
    templates = _templates()
    check(options["template_file"] in templates, f"no template {options['template_file']}")
    known = templates[options["template_file"]]["Parameters"]
    given = dict(setting.split("=", 1) for setting in options["parameter_overrides"])
    check(set(given) <= set(known), f"unknown parameters among {', '.join(given)}")
    missing = {name for name, parameter in known.items() if "Default" not in parameter} - set(given)
    check(not missing, f"no value for {', '.join(missing)}")
    check(all(given.values()), f"an empty value among {given}")


def _answer(operation: str) -> dict[str, Any]:
    if operation == "get-caller-identity":
        return {"Account": ACCOUNT}
    if operation == "describe-stacks":
        names = {name for template in _templates().values() for name in template["Outputs"]}
        return {"Stacks": [{"Outputs": [{"OutputKey": name, "OutputValue": f"the-{name}"} for name in sorted(names)]}]}
    return {"ContentType": "application/json"} if operation == "invoke-endpoint" else {}


# --- environments


def conda(words: list[str]) -> None:
    check(words[:2] == ["env", "create"], f"conda has no command {words[:2]}")
    options = parser("-f").parse_args(words[2:])
    check({"name", "channels", "dependencies"} <= set(yaml.safe_load(Path(options.f).read_text())), "no environment")


def pip(words: list[str]) -> None:
    from packaging.requirements import Requirement

    check(words[0] == "install", f"pip has no command {words[0]}")
    commands = parser(values=("-r",))
    commands.add_argument("projects", nargs="*")
    options = commands.parse_args(words[1:])
    check(options.r or options.projects, "nothing to install")
    for line in Path(options.r).read_text().splitlines() if options.r else ():
        if line and not line.startswith("#"):
            Requirement(line)
    for requirement in options.projects:
        folder, _, extras = requirement.rstrip("]").partition("[")
        project = tomllib.loads((Path(folder) / "pyproject.toml").read_text())["project"]
        unknown = set(filter(None, extras.split(","))) - set(project["optional-dependencies"])
        check(not unknown, f"no extras {', '.join(unknown)}")


PROGRAMS = {"aws": aws, "conda": conda, "docker": docker, "pip": pip}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2:])
