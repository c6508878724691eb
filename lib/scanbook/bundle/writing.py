"""Writes a bundle: whole, checked as it will be when it is served, or not at all."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scanbook.bundle.card import card_markdown
from scanbook.bundle.container import DOCKERFILE, IGNORED, dockerfile, dockerignore, requirements
from scanbook.bundle.description import (
    CARD,
    CHECKSUMS,
    DATASET_CARD,
    DESCRIPTION,
    FILES,
    FORMAT,
    REQUIREMENTS,
    UNWANTED,
    Bundle,
    check_values,
    files,
    load,
)
from scanbook.errors import BundleError
from scanbook.store import PACKAGE, atomic_write, file_digest, write_json

CODE = (
    "__init__.py",
    "errors.py",
    "runtime",
    "store",
    "data/__init__.py",
    "data/dicom.py",
    "data/images.py",
    "models/__init__.py",
    "models/engines",
    "bundle",
    "serving",
)
"""Modules that travel in the bundle, so that it runs where scanbook is not installed."""

TEMPLATES = "cloudformation"
"""Folder of the serving code whose files lie at the top of the bundle, where a person looks for them."""


def check_target(folder: Path) -> None:
    """Sees to it that a bundle may be written to a folder.

    Raises:
        BundleError: It holds something else.
    """
    if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is no bundle; expected an empty or new folder, name another one")


def write(
    folder: Path,
    *,
    name: str,
    classes: tuple[str, ...],
    image_size: tuple[int, int],
    temperature: float,
    abstain_below: float,
    models: Mapping[str, Path],
    metrics: Mapping[str, Any],
    about: Mapping[str, str],
    names: Mapping[str, Sequence[str]] | None = None,
    operating_points: Mapping[str, Mapping[str, Any]] | None = None,
    parity: Mapping[str, Mapping[str, Any]] | None = None,
    int8: Mapping[str, Any] | None = None,
    excluded: Mapping[str, str] | None = None,
    hub: Mapping[str, Any] | None = None,
    dataset_card: str = "",
    packages: Sequence[str] = (),
) -> Bundle:
    """Writes a bundle and checks it as `load` does, then puts it in the place of an older one.

    Args:
        folder: The bundle's folder; an earlier bundle there is removed once the new one is whole.
        name: See `Bundle`, as the others not listed here.
        classes: Class names in the order of the model's outputs.
        image_size: Height and width in pixels.
        temperature: Above 0.
        abstain_below: Between 0 and 1.
        models: Model file or folder by format, copied in under the names of `FILES`: "openvino" (the `.xml`, with its
            `.bin` beside it) and others.
        metrics: Test metrics.
        about: Text for the model card.
        names: Class names by language.
        operating_points: Decisions by finding.
        parity: Agreement of the formats.
        int8: What int8 loses.
        excluded: Why a format is not there.
        hub: Metadata for Hugging Face's hub.
        dataset_card: Markdown of `DATASET_CARD.md`; "" for none.
        packages: What the service needs beside `container.PACKAGES`.

    Raises:
        BundleError: Something is missing or inconsistent, or `folder` holds something else; nothing was changed.
    """
    check_target(folder)
    made = Bundle(
        folder,
        name,
        tuple(classes),
        tuple(image_size),
        float(temperature),
        float(abstain_below),
        {style: FILES.get(style, path.name) for style, path in models.items()},
        _finite(metrics),
        {key: str(value) for key, value in about.items()},
        {language: tuple(each) for language, each in (names or {}).items()},
        _finite(operating_points or {}),
        _finite(parity or {}),
        _finite(int8 or {}),
        dict(excluded or {}),
        _finite(hub or {}),
    )
    check_values(made)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for style, path in models.items():
            _copy_model(path, work / FILES[style])
        _copy_code(work)
        values = asdict(made)
        del values["folder"]
        write_json(work / DESCRIPTION, {"format": FORMAT, **values})
        texts = {
            CARD: card_markdown(made),
            DATASET_CARD: dataset_card,
            REQUIREMENTS: requirements(packages),
            DOCKERFILE: dockerfile(made),
            IGNORED: dockerignore(),
        }
        for file, text in texts.items():
            if text:
                atomic_write(work / file, text)
        write_json(work / CHECKSUMS, {file: file_digest(work / file) for file in files(work)})
        load(work)
        _readable(work)
        _swap(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return made


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
    if (templates := PACKAGE / "serving" / TEMPLATES).is_dir():
        shutil.copytree(templates, folder / TEMPLATES, ignore=shutil.ignore_patterns(*UNWANTED))


def _readable(folder: Path) -> None:
    """Lets everybody read: in a container the service runs as another user than the one who exported."""
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)


def _finite(value: Any) -> Any:
    """Values as plain JSON; NaN, which JSON lacks, becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if hasattr(value, "item"):  # NumPy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _swap(work: Path, folder: Path) -> None:
    """Puts `work` in the place of `folder`, and the old one back if that fails."""
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
