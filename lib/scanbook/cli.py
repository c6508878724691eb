"""The `scanbook` command, which the Makefile runs.

Only what a subcommand needs is imported, so that `scanbook status` answers at once. Each option is written once, below,
and `_COMMANDS` lists the options of each subcommand.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import scanbook
from scanbook import config, runtime
from scanbook.config import KAGGLE, Study
from scanbook.errors import NotebookError, RunError, ScanbookError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS
from scanbook.runner import freshness, planning
from scanbook.runner.checking import check_images
from scanbook.runner.freshness import Batch, check_data, data_available
from scanbook.runner.options import BUNDLE, DATA, EMBED, JOBS, LAUNCH, ONE, PROFILE, SET, SEVERAL, STUDY, flag, option
from scanbook.runtime import environment
from scanbook.runtime.processes import restart_with_malloc
from scanbook.serving import settings


def _load(options: argparse.Namespace) -> Study:
    return config.load(options.study, options.profile, options.data, options.set)


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _batches(options: argparse.Namespace) -> list[Batch]:
    """Return the studies that a command names; print those that "all" excludes."""
    batches, excluded = planning.load_batches(options.study, options.profile, options.data, options.set)
    for name, reason in excluded.items():
        print(f"excluded: {name} ({reason})", file=sys.stderr)
    return batches


def _planned(options: argparse.Namespace) -> list[Batch]:
    """Return the studies that a command names, their images checked; print which notebooks will run."""
    from scanbook.runner import schedule

    batches = _batches(options)
    for batch in batches:
        freshness.check_sources(batch.study)
    if options.data == KAGGLE:  # the data that were just downloaded count
        batches = _batches(options)
    for batch in batches:
        if batch.stale():
            check_images(batch.study, batch.label)
    schedule.announce(batches)
    return batches


def _reports(options: argparse.Namespace) -> int:
    from scanbook.runner import schedule

    return 0 if schedule.run_stale(_planned(options), options.jobs, options.launch) else 1


def _status(options: argparse.Namespace) -> None:
    for batch in _batches(options):
        print("\n".join(freshness.status(batch)))


def _run(options: argparse.Namespace) -> None:
    suite.path(options.notebook)
    study = _load(options)
    check_data(study)
    from scanbook.runner import execute

    execute.run(Batch(study, options.set), options.notebook, options.if_stale)


def _validate(options: argparse.Namespace) -> None:
    from scanbook.runner import validating

    validating.run(_load(options), options.set, options.bundle)


def _cache(options: argparse.Namespace) -> None:
    from scanbook.runner import cache

    if options.all or options.prune or options.to:
        print(cache.prune(0 if options.all else cache.size(options.to) if options.to else runtime.store_limit()))
    print("\n".join(cache.lines()))


def _index(options: argparse.Namespace) -> None:
    from scanbook.runner import index

    print(index.write())


def _studies(options: argparse.Namespace) -> None:
    for name in config.studies():
        study = config.load(name)
        ready = "ready" if data_available(study) else f"no data at {study.location}"
        state = "on synthetic stand-ins" if study.on_stand_in else ready
        print(f"{name:16} {study.title} ({state})")


def _reference(options: argparse.Namespace) -> None:
    from scanbook.config import reference

    print(reference.markdown(), end="")


def _lint(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import contract

    places = [Path(path) for path in options.paths] or [runtime.project_root() / "notebooks"]
    notebooks = [path for place in places for path in (sorted(place.glob("*.ipynb")) if place.is_dir() else [place])]
    lines = contract.lint([Path(os.path.relpath(path)) for path in notebooks])
    print("".join(f"{line}\n" for line in lines), end="")
    if lines:
        raise NotebookError(
            f"{len(lines)} violations in {len(notebooks)} notebooks; correct them as the lines above say"
        )


def _new_notebook(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import notebooks

    print(f"{notebooks.create(options.name)}: a notebook that runs; open it with make lab, check it with make lint")


def _new_study(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import studies

    created = studies.create(options.name, options.data)
    images = created.manifest.labels.present.sum(axis=0)
    counts = ", ".join(f"{name}: {count}" for name, count in zip(created.manifest.names, images, strict=True))
    data = f" DATA={shlex.quote(options.data)}" if options.data else ""
    print(f"{created.path}: {len(created.manifest.frame)} images ({counts})")
    print("".join(f"  {runtime.legible(line)}\n" for line in (created.reads, *created.notes)), end="")
    print(f"run it with make reports STUDY={options.name}{data}")


def _export(options: argparse.Namespace) -> None:
    study = _load(options)
    from scanbook import bundle, export
    from scanbook.runner import locks

    default = bundle.study_folder(study.study, study.profile)
    folder = _path(options.to) if options.to else default
    with locks.hold(folder.parent / ".lock") if folder == default else nullcontext():
        exported = export.export_study(study, folder)
        if folder == default:  # the notebook's report there is of another export
            (folder.parent / METRICS).unlink(missing_ok=True)
    print(f"{study.study}/{study.profile}: exported to {folder}. {export.summarise_formats(exported.bundle)}")


def _train(options: argparse.Namespace) -> None:
    from scanbook.runner import train

    study = _load(options)
    request = train.Request(options.backbone, options.from_scratch, options.policy, options.seed)
    check_data(study)
    addresses = [address for address in options.addresses.split(",") if address]
    if addresses and not 0 <= options.process < len(addresses):
        raise RunError(f"--process is {options.process}, expected 0 to {len(addresses) - 1}, its place in --addresses")
    if train.choose_distribution(options.distribute, addresses) == "none":
        if options.prepare:
            train.prepare_networks(study, request)
        else:
            train.train_networks(study, request, _path(options.record) if options.record else None)
        return
    command = [sys.executable, "-m", "scanbook.cli", "train", options.study, "--distribute", "none"]
    for key in ("profile", "data", "set", "backbone", "policy", "seed", "record"):
        value = getattr(options, key)
        command += [] if value in ("", None) else [f"--{key}={value}"]
    command += ["--from-scratch"] if options.from_scratch else []
    train.train_together(study, command, request, addresses=addresses, process=options.process if addresses else None)


def _embed(options: argparse.Namespace) -> None:
    from scanbook.runner import embed

    print(embed.run(embed.Task(_load(options), options.backbone, _path(options.to), options.dtype)))


def _sweep(options: argparse.Namespace) -> int:
    from scanbook.runner import sweeps

    study = _load(options)
    check_data(study)
    check_images(study, f"{study.study}/{study.profile}")
    return 0 if sweeps.run(Batch(study, options.set), options.jobs, options.launch) else 1


def _compare(options: argparse.Namespace) -> None:
    from scanbook.runner.comparing import page

    print(page.compare(options.runs, options.name))


def _bundle_folder(options: argparse.Namespace, command: str) -> Path:
    """Return the folder of the bundle that a command names, or of that of its study."""
    from scanbook import bundle

    if options.bundle:
        folder = _path(options.bundle)
    else:
        study = config.load(options.study, options.profile)
        folder = bundle.study_folder(study.study, study.profile)
    if not folder.is_dir():
        raise RunError(
            f"no bundle at {folder}; export one with make reports STUDY={options.study}, "
            f"or name another folder with {command}"
        )
    return folder


def _serve(options: argparse.Namespace) -> None:
    from scanbook.serving.server import serve

    serve(_bundle_folder(options, "make serve BUNDLE=path"), settings.from_options(options))


def _check(options: argparse.Namespace) -> None:
    from scanbook.bundle import checking

    print(checking.check(_bundle_folder(options, "scanbook check path")))


def _latency(options: argparse.Namespace) -> None:
    from scanbook.benchmark import http_client, latency

    files = [Path(name).expanduser() for name in options.image]
    target = http_client.make_target(options.url, files, options.field, options.header)
    plan = latency.Plan(
        requests=options.requests,
        interval=options.interval,
        warm_up=options.warm_up,
        concurrency=latency.parse_counts(options.concurrency),
        seconds=options.seconds,
        price=options.price,
    )
    latency.run(target, plan, Path(options.output) if options.output else None)


_COMPUTE = (_reports, _run, _validate, _export, _train, _embed, _sweep)
"""Subcommands that need Keras."""
_COMMANDS = {
    "reports": (_reports, "run every notebook whose report is stale", *SEVERAL, LAUNCH, JOBS),
    "status": (_status, "say which reports are fresh, stale, failed or missing", *SEVERAL),
    "run": (
        *(_run, "run one notebook into its report", *ONE),
        option("notebook", f"one of {', '.join(suite.NOTEBOOKS)}, or one of your own"),
        flag("--if-stale", "leave a fresh report alone"),
    ),
    "validate": (
        *(_validate, "validate a bundle, or a study's model, on images of another source", *ONE),
        option("--bundle", "its folder; the study's images are then the other source"),
    ),
    "cache": (
        *(_cache, "list what the store holds, and make it smaller"),
        flag("--prune", "remove what was used longest ago, down to the limit"),
        option("--to", "the same, down to a size", metavar="2GiB"),
        flag("--all", "remove everything that no process uses"),
    ),
    "index": (_index, "write reports/index.html again"),
    "studies": (_studies, "list the studies"),
    "reference": (_reference, "print every key of a study, as Markdown"),
    "lint": (
        *(_lint, "check notebooks against their contract"),
        option("paths", "notebooks (default: all)", nargs="*", metavar="FILE.ipynb"),
    ),
    "new-notebook": (
        *(_new_notebook, "write a notebook to start from"),
        option("name", "a number and words, such as 10_my_question"),
    ),
    "new-study": (
        *(_new_study, "write a study of a folder of images"),
        option("name", "name of the study, such as my_images"),
        option("--data", "the folder (default: that of the study's name in data/)"),
    ),
    "export": (
        *(_export, "write a study's model as a bundle, which runs alone", *ONE),
        option("--to", "folder of the bundle (default: that of notebook 07_export_flask)"),
    ),
    "train": (
        *(_train, "train a study's networks, also by several processes or GPUs", PROFILE, DATA, SET),
        option("study", "a file of notebooks/studies, without .yaml"),
        option("--backbone", "network to train (default: the one that validation selects)"),
        flag("--from-scratch", "start from random weights, without pretrained ones"),
        option("--policy", "augmentation of the training images (default: the study's)"),
        option("--seed", "seed of the one network to train (default: each of the study's seeds)", None, type=int),
        option("--record", "file for the result; predictions go beside it, as CSV", metavar="FILE.json"),
        option(
            "--distribute",
            "none: one process, on TensorFlow; data-parallel: all GPUs, or all processes of the job, on JAX; "
            "auto: the second where there are several (default)",
            "auto",
            choices=("auto", "none", "data-parallel"),
        ),
        option("--addresses", "addresses of all processes (default: those of Slurm)", metavar="HOST:PORT,…"),
        option("--process", "number of this process among them, from 0", -1, type=int),
        flag("--prepare", "stop before training starts: no GPU is needed so far"),
    ),
    "embed": (_embed, "write vectors of a study's images by a network, which models can take", *EMBED),
    "sweep": (_sweep, "train a study's grid of networks, each in its own run", *ONE, LAUNCH, JOBS),
    "compare": (
        *(_compare, "compare runs on one page: settings, figures, differences and curves"),
        option("runs", "study/profile, a report's folder, a sweep or a trial of it", nargs="*", metavar="RUN"),
        option("--name", "folder of the page in reports/compare (default: made of the runs' names)"),
    ),
    "serve": (*(_serve, "serve an exported model over HTTP", PROFILE, STUDY), BUNDLE),
    "check": (
        *(_check, "check the files of an exported model, and its answers to test pictures", PROFILE, STUDY),
        BUNDLE,
    ),
    "latency": (
        *(_latency, "measure how fast a service answers, and what that costs"),
        option("url", "address for predictions, such as http://127.0.0.1:8080/predict"),
        option("--requests", "sequential requests; 0 for none (default: 25)", 25, type=int),
        option("--interval", "seconds between them (default: 5)", 5, type=float),
        option("--price", "price of the service's machine per hour, in USD", None, type=float),
        option("--concurrency", "load test: numbers of clients (default: no load test)", metavar="1,2,4,8"),
        option("--seconds", "length of a window of the load test (default: 10)", 10, type=float),
        option("--image", "posted in turn (default: a synthetic image)", [], nargs="+", metavar="FILE"),
        option("--field", "form field that takes the file (default: the file is the body)"),
        option("--header", "another header; can be repeated", [], action="append", metavar="'NAME: VALUE'"),
        option("--warm-up", "requests before the first one that counts (default: 3)", 3, type=int),
        option("--output", "file for the results", metavar="FILE.json"),
    ),
}
"""The subcommands: function, help and options of each."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scanbook", description="Notebook research suite for medical image classification."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (function, text, *options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("--traceback", action="store_true", help="show where an error came from")
        for name_of_option, values in options:
            command.add_argument(name_of_option, **values)
        if name == "serve":
            settings.add_options(command)
        command.set_defaults(do=function)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after `scanbook`; None for those of the process.

    Returns:
        Exit status: 0 for success, 1 after a line on stderr that says what went wrong, 130 when interrupted.
    """
    runtime.print_every_character()
    options = _parser().parse_args(arguments)
    if arguments is None and options.do is _train:
        restart_with_malloc()
    if arguments is None:
        environment.restart_if(scanbook.STARTED_OTHERWISE)
    try:
        if options.do in _COMPUTE:
            runtime.check_backend()
        return options.do(options) or 0
    except KeyboardInterrupt:
        print("scanbook: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest is discarded, without an error
        return 1
    except (ScanbookError, OSError) as error:  # an OSError is the machine's: disk full, port taken, folder read-only
        if options.traceback or os.environ.get("SCANBOOK_TRACEBACK"):
            traceback.print_exc()
        print(f"scanbook: {runtime.legible(str(error))}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
