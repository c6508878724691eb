"""The page: it works without JavaScript, loads nothing from other addresses and is accessible."""

import base64
import re
from html.parser import HTMLParser

import pytest

from helpers.bundles import CLASSES, NAMES, write
from helpers.uploads import BAD, BLUE, BROWSER, GREY, RED, post
from scanbook.data import images
from scanbook.serving.app import create_app
from scanbook.serving.languages import percent
from scanbook.serving.uploads import MAX_BYTES, MAX_IMAGES


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """An application whose class names are translated."""
    return create_app(write(tmp_path_factory.mktemp("translated") / "bundle", names=NAMES).folder)


class Page(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def headings(text: str) -> list[str]:
    """Return the headings of the predictions."""
    titles = re.findall(r'<h2 id="verdict-\d+"[^>]*>(.*?)</h2>', text, re.DOTALL)
    return [re.sub(r"<.*?>", "", title).strip() for title in titles]


def test_form_works_without_javascript(client):
    page = Page(client.get("/").text)
    [form] = page.all("form")
    assert {field["name"] for field in page.all("input")} == {"image"} and "multiple" in page.all("input")[0]
    assert form["method"] == "post" and form["enctype"] == "multipart/form-data" and form["action"] == "/"
    answer = post(client, BLUE, path="/", headers=BROWSER)
    assert answer.status_code == 200 and headings(answer.text) == ["blue"]
    assert "Calibrated probability: 98.7 %" in answer.text
    shown = re.findall(r'<span class="class">(.*?)</span> <span class="share">(.*?)</span>', answer.text)
    assert shown[0] == ("blue", "98.7 %") and {name for name, _ in shown} == set(CLASSES)
    sources = [image["src"] for image in Page(answer.text).all("img") if image.get("src", "").startswith("data:")]
    assert [source.split(";")[0] for source in sources] == ["data:image/jpeg", "data:image/png"]
    assert images.read(base64.b64decode(sources[0].split(",")[1])).shape == (40, 60, 3)


def test_page_says_not_sure(client):
    answer = post(client, GREY, path="/", headers=BROWSER).text
    assert "Not sure" in answer and "60.0 %" in answer and "33.3 %" in answer


@pytest.mark.parametrize(
    ("files", "status", "text"),
    [
        ((), 400, "No image was chosen"),
        ([b""], 400, "The file is empty"),
        ([BAD["text"]], 400, "This is not an image"),
        ([RED] * (MAX_IMAGES + 1), 400, f"You sent {MAX_IMAGES + 1} images"),
        ([bytes(MAX_BYTES)], 413, "Send at most 16 MB"),
    ],
)
def test_page_shows_problems_and_its_form(client, files, status, text):
    answer = post(client, *files, path="/", headers=BROWSER)
    assert answer.status_code == status and answer.mimetype == "text/html" and text in answer.text
    page = Page(answer.text)
    assert any(tag.get("role") == "alert" for tag in page.all("div")) and page.all("form")
    assert f"Request {answer.headers['X-Request-Id']}" in answer.text


def test_one_refused_image_spoils_no_other(client):
    answer = post(client, RED, BAD["text"], BLUE, path="/", headers=BROWSER)
    assert answer.status_code == 200 and headings(answer.text) == ["red", "Not answered", "blue"]
    assert answer.text.count("This is not an image") == 1 and len(Page(answer.text).all("article")) == 3
    none = post(client, BAD["text"], BAD["text"], path="/", headers=BROWSER)
    assert none.status_code == 400 and headings(none.text) == ["Not answered"] * 2


@pytest.mark.parametrize(
    ("language", "label", "share", "notice"),
    [
        ("en", "blue", "98.7 %", "Research use, not a diagnosis"),
        ("pt", "azul", "98,7 %", "Uso em pesquisa, não é um diagnóstico"),
        ("ko", "파랑", "98.7 %", "연구용이며 진단이 아닙니다"),
    ],
)
def test_every_language_is_complete(translated, language, label, share, notice):
    client = translated.test_client()
    answer = post(client, BLUE, path=f"/?lang={language}", headers=BROWSER)
    assert headings(answer.text) == [label] and share in answer.text and notice in answer.text
    page = Page(answer.text)
    assert page.all("html")[0]["lang"] == language
    links = [link for link in page.all("a") if "hreflang" in link]
    assert [(link["href"], link["lang"]) for link in links] == [(f"?lang={code}", code) for code in ("en", "pt", "ko")]
    assert [link["hreflang"] for link in links if link.get("aria-current") == "true"] == [language]
    # the switch lasts, over what the browser asks for
    assert Page(client.get("/x", headers=BROWSER | {"Accept-Language": "fr"}).text).all("html")[0]["lang"] == language
    refused = post(client, BAD["text"], path="/", headers=BROWSER).text
    assert ("This is not an image" in refused) == (language == "en")


def test_what_stays_english_says_so(client):
    """Titles, class names without translation, and cards: a screen reader changes its voice for them."""
    page = Page(post(client, RED, path="/?lang=ko", headers=BROWSER).text)
    assert page.all("h1")[0]["lang"] == "en"
    assert all(tag["lang"] == "en" for tag in page.all("span") if tag.get("class") == "class")
    card = Page(client.get("/model-card?lang=ko").text)
    assert all(section["lang"] == "en" for section in card.all("section")) and card.all("html")[0]["lang"] == "ko"


def test_page_escapes_what_the_bundle_says(tmp_path):
    hostile = write(
        tmp_path / "bundle", about={"title": "<script>alert(1)</script>"}, classes=("<b>red</b>", "green", "blue")
    )
    answer = post(create_app(hostile.folder).test_client(), RED, path="/", headers=BROWSER).text
    assert "&lt;b&gt;red" in answer and "<b>red" not in answer and "<script>alert" not in answer


def test_pages_are_self_contained_and_accessible(client):
    pages = [
        client.get("/"),
        client.get("/model-card"),
        client.get("/x", headers=BROWSER),
        post(client, RED, path="/", headers=BROWSER),
    ]
    linked = set()
    for response in pages:
        text = re.sub(r"data:image/\w+;base64,[\w+/=]+", "data:", response.text)
        assert not re.search(r"https?://|[\"'(]//|@import|<style|\sstyle=|\son\w+=|javascript:", text)
        page = Page(text)
        assert page.all("html")[0]["lang"] == "en" and page.all("main") and len(page.all("h1")) == 1
        assert all("alt" in image for image in page.all("img"))
        assert all("src" in script for script in page.all("script"))
        assert "For research and teaching." in text
        assert "not a diagnosis" in text or response.status_code == 404
        labelled = {label.get("for") for label in page.all("label")}
        assert all(field.get("id") in labelled or field["type"] == "checkbox" for field in page.all("input"))
        assert any(link["href"] == "/model-card" for link in page.all("a"))
        linked |= {tag["href"] for tag in page.all("link")} | {tag["src"] for tag in page.all("script")}
        linked |= {image["src"] for image in page.all("img") if image.get("src", "data:") != "data:"}
    assert len(linked) >= 3
    for path in linked:
        response = client.get(path)
        assert path.startswith("/static/") and response.status_code == 200
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|[\"'(]//|@import", text)


def test_model_card_and_health(client):
    card = client.get("/model-card").text
    assert "0.800 to 0.950" in card and "Which colour?" in card and "95 % interval" in card
    assert client.get("/healthz").get_json() == {"status": "ok", "model": "colours"}


def test_percent_never_rounds_to_certainty():
    assert [percent(share) for share in (0.0004, 0.001, 0.5, 0.9994)] == ["< 0.1 %", "0.1 %", "50.0 %", "> 99.9 %"]
