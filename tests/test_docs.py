"""The documentation as it is built: strictly, from the code as it stands, and with nothing loaded from another host."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from helpers import documents, pages
from helpers.documents import ROOT
from scanbook import cli, config
from scanbook.config import reference
from scanbook.config.loading import NOT_KEYS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
URLS = PROJECT["urls"]
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
ADDRESS = SETTINGS["site_url"]
LOADED = (
    "[src], [srcset], [poster], object[data], "
    "link[rel~=stylesheet], link[rel~=icon], link[rel*=pre], link[rel=manifest]"
)
"""What a browser loads by itself; of `link`, `canonical` and the like are only names."""


def docs_command() -> str:
    """The command of `make docs`."""
    shown = subprocess.run(["make", "-n", "-C", str(ROOT), "docs"], capture_output=True, text=True, check=True).stdout
    [command] = [line for line in shown.splitlines() if "mkdocs build" in line]
    return command


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = docs_command()
    words = f"{command} --site-dir {shlex.quote(str(folder))}"
    done = subprocess.run(words, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds = {line.split()[0] for line in (done.stdout + done.stderr).splitlines()}
    assert kinds == {"INFO"}, done.stdout + done.stderr
    return folder


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_bytes(), "html.parser")


@cache
def ids(path: Path) -> set[str]:
    """The names on a page to which a link can lead."""
    return {tag["id"] for tag in parsed(path).select("[id]")}


def built(site: Path) -> list[Path]:
    """The pages; the one for an unknown address has the address of the site in its links."""
    found = sorted(set(site.rglob("*.html")) - {site / "404.html"})
    assert len(found) >= 40
    return found


def rows(page: Path) -> set[str]:
    """The first cells of all tables of a page."""
    return {row.td.get_text(strip=True) for row in parsed(page).select("tbody tr")}


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in [*built(site), site / "404.html"]:
        soup = parsed(page)
        loaded = [
            tag.get(name, "") for tag in soup.select(LOADED) for name in ("src", "srcset", "href", "data", "poster")
        ]
        assert [address for address in loaded if urlsplit(address).netloc] == [], page
        assert "url(http" not in str(soup), page
        # the theme's script fetches the one's program from a CDN, and the other's stars from GitHub
        assert soup.select(".mermaid, [data-md-component=source]") == [], page
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//|@import", sheet.read_text()) == [], sheet


def links(site: Path) -> Iterator[tuple[Path, str]]:
    """The links of all pages, with the page of each."""
    for page in built(site):
        for link in parsed(page).select("a[href]"):
            yield page, link["href"]


def test_every_link_inside_leads_somewhere(site: Path) -> None:
    checked = 0
    for page, link in links(site):
        place = urlsplit(link)
        if not place.scheme:
            target = (page.parent / unquote(place.path)).resolve() if place.path else page
            assert target.is_file(), f"{page} links to {link}"
            assert not place.fragment or place.fragment in ids(target), f"{page} links to {link}"
            checked += 1
    assert checked > 3000


def test_links_to_the_site_and_to_the_repository_lead_somewhere(site: Path) -> None:
    texts = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    outside = [(name, link) for name in texts for link in re.findall(r"https://[^\s)>]+", (ROOT / name).read_text())]
    assert len([link for _, link in outside if link.startswith(ADDRESS)]) > 15
    for source, link in [*outside, *links(site)]:
        place = urlsplit(link)
        if link.startswith(ADDRESS):
            target = site / (urljoin("/", place.path).removeprefix(urlsplit(ADDRESS).path) or "index.html")
            assert target.is_file(), f"{source}: {link}"
            assert not place.fragment or place.fragment in ids(target), f"{source}: {link}"
        elif match := re.fullmatch(rf"{URLS['Repository']}/(?:blob|tree)/main/(.+)", link):
            assert (ROOT / match[1]).exists(), f"{source}: {link}"


def test_the_site_has_one_address() -> None:
    assert URLS["Documentation"] == ADDRESS
    assert {item["link"] for item in SETTINGS["extra"]["social"]} == {URLS["Repository"]}


# --- the pages that are written from the code


def test_the_page_of_keys_is_the_one_of_the_models(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reference"]) == 0
    assert capsys.readouterr().out == reference.markdown() == documents.generated()["docs/reference/study-keys.md"]
    assert rows(site / "reference" / "study-keys.html") >= config.Study.model_fields.keys() - NOT_KEYS


def test_the_page_of_commands_has_what_help_shows(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = site / "reference" / "commands.html"
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    targets, _, variables = shown.partition("Variables:")
    listed = rows(page)
    assert {f"make {name}" for name in re.findall(r"^  ([a-z-]+) ", targets, re.MULTILINE)} <= listed
    assert set(re.findall(r"^  ([A-Z]+) ", variables, re.MULTILINE)) <= listed
    headings = {heading.get_text().rstrip("¶") for heading in parsed(page).select("h3")}
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    names = re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert len(names) > 10 and headings == {f"scanbook {name}" for name in names}
    for name in names:
        with pytest.raises(SystemExit, match="0"):
            cli.main([name, "--help"])
        options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
        assert options - {"--traceback"} <= {word.split()[0] for word in listed}


def test_the_nav_has_the_parts_of_the_library_in_their_order() -> None:
    [reference_pages] = [section["Reference"] for section in SETTINGS["nav"] if "Reference" in section]
    [api] = [entry["API"] for entry in reference_pages if "API" in entry]
    code_map = re.findall(r"^\| `(\w+)` \|", documents.text("CONTRIBUTING.md"), re.MULTILINE)
    assert [name for entry in api for name in entry] == code_map


EXPORTING = ("runtime", "store", "config", "evaluation", "training", "segmentation", "bundle", "export")


@pytest.mark.parametrize("name", EXPORTING)
def test_the_api_has_what_a_package_exports(site: Path, name: str) -> None:
    module = importlib.import_module(f"scanbook.{name}")
    exported = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(f"{module.__name__}.")
        and inspect.getdoc(value)
    }
    soup = parsed(site / "reference" / "api" / f"{name}.html")
    headings = {
        heading.get_text().strip("¶ \n").split()[0].rpartition(".")[2] for heading in soup.select(".doc-heading")
    }
    assert exported and exported <= headings


def test_docstrings_have_no_html(site: Path) -> None:
    """What stands between angle brackets outside of code would be taken for a tag, and would not be shown."""
    known = "a abbr article b br button code dd details div dl dt em h1 h2 h3 h4 h5 h6 hr i img input label li nav ol p"
    known += " path pre small span strong sub summary sup svg table tbody td th thead title tr ul"
    for page in (site / "reference").rglob("*.html"):
        used = {tag.name for tag in parsed(page).select("article *")}
        assert used <= set(re.findall(r"\w+", known)), page


# --- in a browser


@pytest.mark.slow
@pages.needs_chromium
def test_the_site_works_from_a_folder_without_a_network(site: Path) -> None:
    messages: list[str] = []
    with pages.browser() as chromium, chromium.new_context(offline=True) as context:
        page = context.new_page()
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(f"error: {error}"))
        page.on("request", lambda request: messages.append(request.url) if request.url.startswith("http") else None)
        page.on("requestfailed", lambda request: messages.append(f"failed: {request.url[:80]}"))
        for path in built(site):
            page.goto(path.as_uri())
            broken = page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length")
            assert broken == 0, path
            for width in (pages.WIDTHS[0], pages.WIDTHS[-1]):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls at {width} px"
        page.goto((site / "index.html").as_uri())
        page.get_by_placeholder("Search").fill("prevalence")
        result = page.locator(".md-search-result__link", has_text="Rules of evaluation").first
        result.wait_for()
        result.click()
        page.wait_for_url("**/explanation/evaluation.html*")
    assert messages == []


@pytest.mark.parametrize(
    ("name", "content", "warning"),
    [("index.md", "[x](gone.md)", "gone.md"), ("index.md", "[x](#gone)", "#gone"), ("other.md", "# Other", "other.md")],
    ids=["link", "anchor", "not in the contents"],
)
def test_a_fault_stops_the_build(tmp_path: Path, name: str, content: str, warning: str) -> None:
    place = tmp_path / "docs"
    place.mkdir()
    (tmp_path / "mkdocs.yml").write_text(
        yaml.safe_dump({"site_name": "x", "validation": SETTINGS["validation"], "nav": [{"Home": "index.md"}]})
    )
    (place / "index.md").write_text("# Home")
    (place / name).write_text(content)
    words = [sys.executable, *docs_command().split("python ")[1].split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and warning in done.stderr, done.stderr
