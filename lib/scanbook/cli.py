"""The `scanbook` command behind the Makefile.

Only what a subcommand needs is imported, so that `scanbook plan` answers at once.
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

from scanbook import config, runtime
from scanbook.config import KAGGLE
from scanbook.errors import NotebookError, RunError, ScanbookError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS
from scanbook.runner import planning
from scanbook.runner.freshness import Batch, at_hand, check_data
from scanbook.serving import settings


def _batches(options: argparse.Namespace) -> list[Batch]:
    """The studies that a command names; says which of all are left out."""
    found, excluded = planning.batches(options.study, options.profile, options.data, options.set)
    for name, reason in excluded.items():
        print(f"left out: {name} ({reason})", file=sys.stderr)
    return found


def _planned(options: argparse.Namespace) -> list[Batch]:
    """The same, their data checked; says what is to be run."""
    from scanbook.runner import schedule

    found = _batches(options)
    for batch in found:
        check_data(batch.study)
    if options.data == KAGGLE:  # what was downloaded just now counts
        found = _batches(options)
    schedule.announce(found)
    return found


def _plan(options: argparse.Namespace) -> None:
    """Rules for Make on stdout, what they will do on stderr."""
    print(planning.makefile(_planned(options), options.launch), end="")


def _reports(options: argparse.Namespace) -> int:
    from scanbook.runner import schedule

    return 0 if schedule.make(_planned(options), options.jobs, options.launch) else 1


def _status(options: argparse.Namespace) -> None:
    from scanbook.runner import status

    for batch in _batches(options):
        print("\n".join(status.lines(batch)))


def _run(options: argparse.Namespace) -> None:
    suite.path(options.notebook)
    chosen = config.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    from scanbook.runner import execute

    execute.run(Batch(chosen, options.set), options.notebook, options.if_stale)


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
        each = config.load(name)
        ready = "ready" if at_hand(each) else f"no data at {each.location}"
        state = "on synthetic stand-ins" if each.on_stand_in else ready
        print(f"{name:16} {each.title} ({state})")


def _reference(options: argparse.Namespace) -> None:
    from scanbook.config import reference

    print(reference.markdown(), end="")


def _lint(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import contract

    given = [Path(each) for each in options.paths] or [runtime.project_root() / "notebooks"]
    found = [path for each in given for path in (sorted(each.glob("*.ipynb")) if each.is_dir() else [each])]
    lines = contract.lint([Path(os.path.relpath(path)) for path in found])
    print("".join(f"{line}\n" for line in lines), end="")
    if lines:
        raise NotebookError(f"{len(lines)} findings in {len(found)} notebooks; mend them as the lines above say")


def _new_notebook(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import notebooks

    print(f"{notebooks.create(options.name)}: a notebook that runs; open it with make lab, check it with make lint")


def _new_study(options: argparse.Namespace) -> None:
    from scanbook.runner.authoring import studies

    made = studies.create(options.name, options.data)
    found = made.manifest.frame["label"].value_counts()
    counts = ", ".join(f"{label}: {found[label]}" for label in made.manifest.classes)
    aside = f", none from {', '.join(made.unread)}" if made.unread else ""
    place = f" DATA={shlex.quote(options.data)}" if options.data else ""
    print(
        f"{made.path}: {len(made.manifest.frame)} images ({counts}){aside}; "
        f"run it with make reports STUDY={options.name}{place}"
    )


def _export(options: argparse.Namespace) -> None:
    chosen = config.load(options.study, options.profile, options.data, options.set)
    from scanbook import bundle, export

    usual = bundle.of_study(chosen.study, chosen.profile)
    folder = Path(options.to).expanduser().resolve() if options.to else usual
    from scanbook.runner import locks

    with locks.hold(folder.parent / ".lock") if folder == usual else nullcontext():
        made = export.make(chosen, folder)
        if folder == usual:  # what the notebook reported there was another export
            (folder.parent / METRICS).unlink(missing_ok=True)
    print(f"{chosen.study}/{chosen.profile}: exported to {folder}. {export.said(made.bundle)}")


def _train(options: argparse.Namespace) -> None:
    from scanbook.runner import train

    chosen = config.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    addresses = [each for each in options.addresses.split(",") if each]
    if addresses and not 0 <= options.process < len(addresses):
        raise RunError(f"--process is {options.process}, expected 0 to {len(addresses) - 1}, its place in --addresses")
    wanted = train.Wanted(options.backbone, options.from_scratch, options.policy, options.seed)
    record = Path(options.record).expanduser().resolve() if options.record else None
    if train.choose_distribution(options.distribute, addresses) == "none":
        if options.prepare:
            train.networks(chosen, wanted)
        else:
            train.train(chosen, wanted, record)
        return
    command = [sys.executable, "-m", "scanbook.cli", "train", options.study, "--distribute", "none"]
    for key in ("profile", "data", "set", "backbone", "policy", "seed", "record"):
        value = getattr(options, key)
        command += [] if value in ("", None) else [f"--{key}={value}"]
    command += ["--from-scratch"] if options.from_scratch else []
    train.train_together(chosen, command, wanted, addresses=addresses, process=options.process if addresses else None)


def _sweep(options: argparse.Namespace) -> int:
    from scanbook.runner import sweeps

    chosen = config.load(options.study, options.profile, options.data, options.set)
    check_data(chosen)
    return 0 if sweeps.run(Batch(chosen, options.set), options.jobs, options.launch) else 1


def _serve(options: argparse.Namespace) -> None:
    from scanbook import bundle, serving

    if options.bundle:
        folder = Path(options.bundle).expanduser().resolve()
    else:
        chosen = config.load(options.study, options.profile)
        folder = bundle.of_study(chosen.study, chosen.profile)
    if not folder.is_dir():
        raise RunError(
            f"no bundle at {folder}; export one with make reports STUDY={options.study}, "
            "or name another folder with make serve BUNDLE=path"
        )
    serving.serve(folder, settings.chosen(options))


def _latency(options: argparse.Namespace) -> None:
    from scanbook.benchmark import client, latency

    files = [Path(name).expanduser() for name in options.image]
    asked = client.target(options.url, files, options.field, options.header)
    plan = latency.Plan(
        requests=options.requests,
        interval=options.interval,
        warm_up=options.warm_up,
        concurrency=latency.counts(options.concurrency),
        seconds=options.seconds,
        price=options.price,
    )
    latency.run(asked, plan, Path(options.output) if options.output else None)


def _add_latency_options(command: argparse.ArgumentParser) -> None:
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


def _add_run_options(command: argparse.ArgumentParser) -> None:
    """A notebook."""
    command.add_argument("notebook", help=f"one of {', '.join(suite.NOTEBOOKS)}, or one of your own")
    command.add_argument("--if-stale", action="store_true", help="leave a report alone that is fresh")


def _add_launch_options(command: argparse.ArgumentParser) -> None:
    """What starts each run."""
    command.add_argument(
        "--launch",
        default=os.environ.get("SCANBOOK_LAUNCH", ""),
        metavar="COMMAND",
        help="what starts each run, such as 'srun -n1' (default: SCANBOOK_LAUNCH, else nothing)",
    )


def _add_reports_options(command: argparse.ArgumentParser) -> None:
    """How many runs go on at a time, and what starts each."""
    _add_launch_options(command)
    command.add_argument(
        "--jobs", type=int, default=runtime.cores(), help="runs side by side (default: one a processor)"
    )


def _add_cache_options(command: argparse.ArgumentParser) -> None:
    """What of the store goes."""
    command.add_argument("--prune", action="store_true", help="remove what was used longest ago, down to the limit")
    command.add_argument("--to", default="", metavar="2GiB", help="the same, down to a size")
    command.add_argument("--all", action="store_true", help="remove everything that no process uses")


def _add_lint_options(command: argparse.ArgumentParser) -> None:
    """Notebooks."""
    command.add_argument("paths", nargs="*", metavar="FILE.ipynb", help="notebooks (default: all)")


def _add_new_notebook_options(command: argparse.ArgumentParser) -> None:
    """Its name."""
    command.add_argument("name", help="a number and words, such as 08_my_question")


def _add_new_study_options(command: argparse.ArgumentParser) -> None:
    """Its name, and the folder."""
    command.add_argument("name", help="of the study, such as my_images")
    command.add_argument("--data", default="", help="the folder (default: that of the study's name in data/)")


def _add_export_options(command: argparse.ArgumentParser) -> None:
    """Where the bundle goes."""
    command.add_argument("--to", default="", help="folder of the bundle (default: that of notebook 07_export_flask)")


def _add_train_options(command: argparse.ArgumentParser) -> None:
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


def _add_serve_options(command: argparse.ArgumentParser) -> None:
    """A bundle, and how it is served."""
    command.add_argument(
        "bundle", nargs="?", default="", help="folder of the bundle (default: that of the study and profile)"
    )
    settings.add_options(command)


def _parser() -> argparse.ArgumentParser:
    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument(
        "--profile", default="", help=f"{', '.join(config.PROFILES)} (default: SCANBOOK_PROFILE, else quick)"
    )
    which = argparse.ArgumentParser(add_help=False, parents=[profile])
    which.add_argument(
        "--study", default="synthetic", help="a file of notebooks/studies, without .yaml (default: synthetic)"
    )
    several = argparse.ArgumentParser(add_help=False, parents=[profile])
    several.add_argument("--study", default="synthetic", help="such files, as in a,b,c, or all (default: synthetic)")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", default="", help="folder or file of the dataset (default: its folder in data/)")
    data.add_argument("--set", default="", metavar="'KEY=VALUE …'", help="overrides, such as fine_tuning.epochs=3")

    parser = argparse.ArgumentParser(
        prog="scanbook", description="Notebook research suite for medical image classification."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, do, shared, options, about in (
        ("reports", _reports, (several, data), _add_reports_options, "run every notebook whose report is stale"),
        ("status", _status, (several, data), None, "say which reports are fresh, stale, failed or missing"),
        (
            "plan",
            _plan,
            (several, data),
            _add_launch_options,
            "rules of Make for the notebooks that are stale",
        ),
        ("run", _run, (which, data), _add_run_options, "run one notebook into its report"),
        ("cache", _cache, (), _add_cache_options, "list what the store holds, and make it smaller"),
        ("index", _index, (), None, "write reports/index.html anew"),
        ("studies", _studies, (), None, "list the studies"),
        ("reference", _reference, (), None, "print every key of a study, as Markdown"),
        ("lint", _lint, (), _add_lint_options, "check notebooks against their contract"),
        ("new-notebook", _new_notebook, (), _add_new_notebook_options, "write a notebook to go on from"),
        ("new-study", _new_study, (), _add_new_study_options, "write a study of a folder of images"),
        ("export", _export, (which, data), _add_export_options, "write a study's model as a bundle, which runs alone"),
        (
            "train",
            _train,
            (profile, data),
            _add_train_options,
            "train a study's networks, by several processes or GPUs, too",
        ),
        (
            "sweep",
            _sweep,
            (which, data),
            _add_reports_options,
            "train a study's grid of networks, each as a run of its own",
        ),
        ("serve", _serve, (which,), _add_serve_options, "serve an exported model over HTTP"),
        (
            "latency",
            _latency,
            (),
            _add_latency_options,
            "measure how fast a service answers, and what that costs",
        ),
    ):
        command = commands.add_parser(name, parents=list(shared), help=about)
        command.add_argument("--traceback", action="store_true", help="show where an error came from")
        if options:
            options(command)
        command.set_defaults(do=do)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Words after `scanbook`; None for those of the process.

    Returns:
        Exit status: 0 when all went well, 1 after a line on stderr that says what did not, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.do(options) or 0
    except KeyboardInterrupt:
        print("scanbook: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads our output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere, without a word
        return 1
    except (ScanbookError, OSError) as error:  # an OSError is the machine's: disk full, port taken, folder read-only
        if options.traceback or os.environ.get("SCANBOOK_TRACEBACK"):
            traceback.print_exc()
        print(f"scanbook: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
