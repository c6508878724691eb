"""Checks of a page: it needs no network, fits every width, and axe finds no violation."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

from scanbook.reporting.suite import NOTEBOOKS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is on the path; install the system's chromium package"
)
LARGEST = 3_000_000
"""Most bytes of a page."""
WIDTHS = (360, 800, 1440)
OPTIONS = {"rules": {"target-size": {"enabled": True}}, "resultTypes": ["violations"]}
"""Options of axe: one more rule, and details of violations only."""
EVERY_VIEW = tuple((scheme, width) for scheme in ("light", "dark") for width in WIDTHS)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start headless Chromium."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=[*root, "--no-proxy-server"])
        yield started
        started.close()


def check_reports(reports: Path, count: int = len(NOTEBOOKS), *, axe: bool = False) -> None:
    """Check every page of a reports folder, as a file and in Chromium where there is one.

    Args:
        reports: The folder.
        count: Least number of reports, beside the pages above them.
        axe: Whether axe checks each page too, in one view; it takes some seconds per page.
    """
    paths = [reports / "index.html", *sorted(reports.glob("*/*/*.html")), *sorted(reports.glob("*/*/*/report.html"))]
    assert len(paths) >= 1 + 2 + count
    for path in paths:
        check_file(path)
    if not CHROMIUM:
        warnings.warn("no Chromium is on the path: the pages were checked as files, and not shown", stacklevel=2)
        return
    with browser() as chromium:
        for number, path in enumerate(paths):
            check_shown(chromium, path, [EVERY_VIEW[number % len(EVERY_VIEW)]] if axe else [])


def check_file(path: Path) -> None:
    """Check the size of a page, the texts of its images and headings, and the targets of its links."""
    assert path.stat().st_size <= LARGEST, path
    soup = BeautifulSoup(path.read_bytes(), "html.parser")
    assert soup.title.get_text(strip=True), path
    assert [image for image in soup.select("img") if not image.get("alt", "").strip()] == [], path
    assert [cell for cell in soup.select("th") if not cell.get_text(strip=True)] == [], path
    for shown in soup.select("[src]"):
        assert shown["src"].startswith("data:"), f"{path} loads {shown['src'][:80]}"
    for link in soup.select("a[href]"):
        place = urlsplit(link["href"])
        if not place.scheme:
            target = path.parent / unquote(place.path) if place.path else path
            assert target.exists(), f"{path} links to {link['href']}"
            assert not place.fragment or place.fragment in ids(target), f"{path} links to {link['href']}"


@cache
def ids(path: Path) -> set[str]:
    """Return the ids of a page, to which a link can lead."""
    return {tag["id"] for tag in BeautifulSoup(path.read_bytes(), "html.parser").select("[id]")}


def check_shown(chromium: Browser, path: Path, views: Sequence[tuple[str, int]] = EVERY_VIEW) -> None:
    """Check a page in Chromium without a network: no request, no error, no sideways scrolling, no violation by axe.

    Args:
        chromium: The browser.
        path: The page.
        views: Colour scheme and width of each check by axe; the page must not scroll sideways at any width.
    """
    messages: list[str] = []
    with chromium.new_context(offline=True) as context:
        page = context.new_page()
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(f"error: {error}"))
        page.on("request", lambda request: messages.append(request.url) if _is_elsewhere(request.url, path) else None)
        page.on("requestfailed", lambda request: messages.append(f"failed: {request.url[:80]}"))
        page.goto(path.as_uri())
        broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt)")
        assert broken == [], path
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls at {width} px"
        for scheme, width in views:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            _check_by_axe(page, f"{path}, {scheme}, {width} px")
    assert messages == [], path


def _is_elsewhere(url: str, path: Path) -> bool:
    return url.split("#", maxsplit=1)[0] != path.as_uri() and not url.startswith(("data:", "blob:"))


def _check_by_axe(page: Page, view: str) -> None:
    result = Axe().run(page, options=OPTIONS).response
    assert len(result["passes"]) > 10, view
    violations = [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in result["violations"]]
    assert violations == [], view
