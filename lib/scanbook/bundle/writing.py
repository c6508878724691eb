"""Writes a bundle as a whole, after the checks that the service makes, or not at all."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scanbook.bundle.card import card_markdown, render
from scanbook.bundle.checking import write_table
from scanbook.bundle.container import DOCKERFILE, IGNORED, dockerfile, dockerignore, requirements
from scanbook.bundle.description import (
    CARD,
    CHECKSUMS,
    DATASET_CARD,
    DESCRIPTION,
    FILES,
    FORMAT,
    HTML,
    REQUIREMENTS,
    UNWANTED,
    Bundle,
    check_models,
    list_files,
    parse,
    read,
)
from scanbook.errors import BundleError
from scanbook.store import PACKAGE, atomic_write, file_digest, write_json

CODE = (
    "__init__.py",
    "errors.py",
    "runtime",
    "store",
    "data/__init__.py",
    *(f"data/{name}.py" for name in ("dicom", "formats", "images", "jpeg", "levels", "tiff")),
    "models/__init__.py",
    "models/engines",
    "bundle",
    "serving",
)
"""Modules that a bundle contains, so that it runs where scanbook is not installed."""

TEMPLATES = "cloudformation"
"""Folder of the serving code that is copied to the top of the bundle, where people look for it."""


def check_target(folder: Path) -> None:
    """Check that a bundle may be written to a folder.

    Raises:
        BundleError: The folder holds something else.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is not a bundle; expected an empty or new folder, name another one")


def write(
    description: Bundle, models: Mapping[str, Path], *, dataset_card: str = "", packages: Sequence[str] = ()
) -> Bundle:
    """Write a bundle, check it as `load` does, and put it in the place of an older one.

    Args:
        description: Attributes of the bundle but `models`. An older bundle in its folder is removed after the new one
            is complete.
        models: Model file or folder by format, copied under the paths of `FILES`: "openvino" (the `.xml` file, with its
            `.bin` file beside it) and others.
        dataset_card: Markdown of `DATASET_CARD.md`; "" for none.
        packages: Packages that the service needs beside `container.PACKAGES`.

    Returns:
        The bundle as it can be read from its folder.

    Raises:
        BundleError: Something is missing or inconsistent, or the folder holds something else; nothing was changed.
    """
    folder = description.folder
    check_target(folder)
    values = {"format": FORMAT} | _as_json(asdict(replace(description, format=FORMAT)))
    del values["folder"]
    values["models"] = {style: FILES.get(style, path.name) for style, path in models.items()}
    bundle = parse(folder, values)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for style, path in models.items():
            _copy_model(path, work / FILES[style])
        _copy_code(work)
        write_json(work / DESCRIPTION, values)
        placed = replace(bundle, folder=work)
        check_models(placed)
        write_table(placed)
        cards = {CARD: card_markdown(bundle)} | ({DATASET_CARD: dataset_card} if dataset_card else {})
        texts = {
            **cards,
            **{HTML[name]: render(text) for name, text in cards.items()},
            REQUIREMENTS: requirements(packages),
            DOCKERFILE: dockerfile(bundle),
            IGNORED: dockerignore(),
        }
        for name, text in texts.items():
            atomic_write(work / name, text)
        write_json(work / CHECKSUMS, {name: file_digest(work / name) for name in list_files(work)})
        read(work)
        _set_permissions(work)
        _replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return bundle


def _copy_model(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target)
        return
    for suffix in (path.suffix, ".bin") if path.suffix == ".xml" else (path.suffix,):
        file = path.with_suffix(suffix)
        if not file.is_file():
            raise BundleError(f"model file {file} is missing; export the model before its bundle")
        shutil.copyfile(file, target.with_suffix(suffix))


def _copy_code(folder: Path) -> None:
    target = folder / PACKAGE.name
    target.mkdir()
    for name in CODE:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (PACKAGE / name).is_dir():
            shutil.copytree(PACKAGE / name, target / name, ignore=shutil.ignore_patterns(*UNWANTED, TEMPLATES))
        else:
            shutil.copyfile(PACKAGE / name, target / name)
    templates = PACKAGE / "serving" / TEMPLATES
    shutil.copytree(templates, folder / TEMPLATES, ignore=shutil.ignore_patterns(*UNWANTED))


def _set_permissions(folder: Path) -> None:
    """Let everybody read: in a container the service runs as another user than the one who exported."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _as_json(value: Any) -> Any:
    """Return values as JSON holds them: NaN becomes null, NumPy's numbers become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace_folder(work: Path, folder: Path) -> None:
    """Put `work` in the place of `folder`, and restore the old folder if that fails."""
    old = work.with_name(f"{work.name}.old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(work, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
