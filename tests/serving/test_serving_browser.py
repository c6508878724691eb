"""What people do with the page, in headless Chromium and with a running service.

Each test checks at its end that there was no error on the console, no violation of the content security policy, and no
request to another address.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FileChooser, Page, Route, expect

from helpers import finding_bundles, pages
from helpers.bundles import NAMES, write
from helpers.uploads import BAD, BLUE, GREEN, GREY, RED, png
from scanbook.benchmark import client

pytestmark = [pytest.mark.slow, pages.needs_chromium]

Visit = Callable[..., Page]
PURPLE = png((255, 0, 255))
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
HANDED = """([how, files]) => {
  const transfer = new DataTransfer();
  for (const [name, kind, bytes] of files)
    transfer.items.add(new File([Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0))], name, { type: kind }));
  const about = { bubbles: true, cancelable: true };
  document.querySelector("main").dispatchEvent(how === "drop"
    ? new DragEvent("drop", { ...about, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...about, clipboardData: transfer }));
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    about = {"title": "Which colour?", "question": "Which colour does most of the image have?", "data": "plain images"}
    card = "---\nlicense: cc0-1.0\n---\n# Colours\n\nPlain images of three colours.\n\n- red\n- green\n- blue\n"
    bundle = write(tmp_path_factory.mktemp("seen") / "bundle", about=about, names=NAMES, dataset_card=card)
    with client.run_service(bundle.folder) as url:
        yield url


@pytest.fixture(scope="module")
def findings_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of 14 findings, whose images have exams."""
    names = finding_bundles.names(14)
    translated = {language: (*three, *names[3:]) for language, three in finding_bundles.NAMES.items()}
    exam = finding_bundles.exam(names)
    bundle = finding_bundles.write(tmp_path_factory.mktemp("findings") / "bundle", 14, names=translated, exam=exam)
    with client.run_service(bundle.folder) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with pages.browser() as started:
        yield started


@pytest.fixture
def visit(chromium: Browser, address: str) -> Iterator[Visit]:
    """A function that opens a page of the service, by default for a reader of English at a desk."""
    opened, messages, requests, addresses = [], [], [], {address}

    def open_page(path: str = "/", at: str = address, **options: object) -> Page:
        addresses.add(at)
        context = chromium.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(10_000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("console", lambda message: messages.append((message.type, message.text)))
        page.on("pageerror", lambda error: messages.append(("error", str(error))))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(at + path)
        opened.append((page, options.get("java_script_enabled", True)))
        return page

    yield open_page
    for page, scripted in opened:
        if scripted:
            assert page.evaluate("window.violations") == []
        page.context.close()
    # Chromium writes a refused upload's status to the console, and what a test has cut off
    problems = [text for kind, text in messages if kind in ("error", "warning")]
    assert [text for text in problems if not text.startswith("Failed to load resource")] == []
    assert requests
    allowed = ("data:", *addresses, *(f"blob:{known}" for known in addresses))
    assert [url for url in requests if not url.startswith(allowed)] == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.png"
    path.write_bytes(RED + bytes(17 * 2**20))
    return path


def file(name: str, data: bytes, kind: str = "image/png") -> dict:
    return {"name": name, "mimeType": kind, "buffer": data}


def choose(page: Page, *files: dict, selector: str = "#image") -> None:
    page.set_input_files(selector, list(files))


def hand(page: Page, how: str, *files: dict) -> None:
    """Drop or paste files."""
    page.evaluate(
        HANDED,
        [how, [[upload["name"], upload["mimeType"], base64.b64encode(upload["buffer"]).decode()] for upload in files]],
    )


def verdicts(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("article h2").all_inner_texts()]


def classify(page: Page, *files: dict) -> None:
    """Send images and wait for the page with the predictions."""
    choose(page, *files)
    page.locator("form").evaluate("(form) => form.setAttribute('data-before', '')")
    page.click("#send")
    expect(page.locator("form[data-before]")).to_have_count(0)
    expect(page.locator("#answer")).to_be_focused()


# one image


def test_answers_have_the_names_of_what_was_sent_whatever_is_chosen_meanwhile(visit: Visit) -> None:
    page, held = visit(), []
    page.route("**/", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    choose(page, file("a.png", RED), file("b.png", BLUE))
    page.click("#send")
    expect(page.locator("main")).to_have_attribute("aria-busy", "true")
    page.locator("#chosen button").first.click()
    choose(page, file("c.png", GREEN))
    expect(page.locator("#send")).to_be_disabled()
    [route] = held
    route.continue_()
    expect(page.locator("#answer")).to_be_focused()
    assert [page.locator(f'[data-image="{number}"]').first.inner_text() for number in (1, 2)] == ["a.png", "b.png"]
    expect(page.locator("#chosen .file")).to_have_text(["c.png"])
    expect(page.locator("#send")).to_be_enabled()


def test_a_chosen_image_is_shown_then_answered(visit: Visit) -> None:
    page = visit()
    choose(page, file("mole.png", RED))
    preview = page.locator("#chosen img")
    expect(preview).to_be_visible()
    page.wait_for_function("document.querySelector('#chosen img').naturalWidth === 60")
    assert page.locator("#chosen .file").inner_text() == "mole.png"
    expect(page.locator("#status")).to_have_text("Images chosen: 1")
    page.click("#send")
    expect(page.locator("article h2")).to_have_text("red")
    expect(page.locator("#answer")).to_be_focused()
    assert page.title().startswith("Result") and page.locator("#chosen li").count() == 0
    assert page.locator(".bars .share").all_inner_texts()[0] == "98.7 %"
    fill, track = (page.locator(f".top .{part}").bounding_box()["width"] for part in ("fill", "track"))
    assert fill / track == pytest.approx(0.987, abs=0.01)
    heat = page.locator(".heat")
    assert heat.bounding_box() == page.locator(".stack img").first.bounding_box()
    assert heat.bounding_box()["width"] > 200, "a heat map on an image of 60 pixels is seen"
    expect(heat).to_be_visible()
    page.get_by_role("switch").click()
    expect(heat).to_be_hidden()


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_images_are_taken_as_they_are_handed_over(visit: Visit, how: str) -> None:
    page = visit()
    hand(page, how, file("a.png", BLUE))
    expect(page.locator("#send")).to_be_focused()
    hand(page, how, file("b.png", RED))
    expect(page.locator("#chosen li")).to_have_count(2)
    page.click("#send")
    expect(page.locator("article")).to_have_count(2)
    assert verdicts(page) == ["blue", "red"]


def test_text_that_is_dropped_is_no_image(visit: Visit) -> None:
    page = visit()
    hand(page, "drop")
    expect(page.locator("#status")).to_contain_text("This is not a file")
    page.click("#send")
    expect(page.locator("#status")).to_have_text("Choose an image first.")
    expect(page.locator("#image")).to_be_focused()


def test_a_phone_can_take_a_photo_and_a_desk_is_not_asked_twice(visit: Visit) -> None:
    desk = visit()
    expect(desk.locator(".camera")).to_be_hidden()
    phone = visit(**PHONE)
    expect(phone.locator(".camera")).to_be_visible()
    assert phone.locator("#camera").get_attribute("capture") == "environment"
    choose(phone, file("photo.jpg", RED), selector="#camera")
    choose(phone, file("photo.jpg", BLUE), selector="#camera")
    expect(phone.locator("#chosen li")).to_have_count(2)
    phone.tap("#send")
    expect(phone.locator("article")).to_have_count(2)
    assert verdicts(phone) == ["red", "blue"]


def test_unsure_model_says_so(visit: Visit) -> None:
    page = visit()
    classify(page, file("grey.png", GREY))
    assert verdicts(page) == ["Not sure"]
    expect(page.locator(".reading")).to_contain_text("33.3 %")


# several, and what goes wrong


def test_one_bad_image_among_several_spoils_no_other(visit: Visit) -> None:
    page = visit()
    classify(page, file("a.png", RED), file("notes.png", BAD["text"]), file("c.png", BLUE))
    assert verdicts(page) == ["red", "Not answered", "blue"]
    refused = page.locator("article").nth(1)
    expect(refused).to_contain_text("notes.png")
    assert len(refused.locator(".why").inner_text()) > 20
    page.click(".overview li:nth-child(3) a")
    expect(page.locator("article").nth(2)).to_be_in_viewport()
    assert page.locator("article .file").all_inner_texts() == ["a.png", "notes.png", "c.png"]


def test_bad_image_is_refused_and_can_be_replaced(visit: Visit) -> None:
    page = visit()
    classify(page, file("notes.png", BAD["text"]))
    expect(page.get_by_role("alert")).to_be_focused()
    assert page.locator("article").count() == 0
    page.get_by_role("button", name="Remove notes.png").click()
    classify(page, file("a.png", BLUE))
    expect(page.locator("article h2")).to_have_text("blue")


def test_too_much_is_said_before_it_is_sent(visit: Visit, large: Path) -> None:
    page = visit()
    limits = page.locator("form").evaluate("(form) => ({ ...form.dataset })")
    assert large.stat().st_size > int(limits["maxBytes"])
    page.set_input_files("#image", large)
    expect(page.locator("#status")).to_contain_text("at most 16 MB")
    expect(page.locator("#send")).to_be_disabled()
    page.get_by_role("button", name="Remove large.png").click()
    expect(page.locator("#send")).to_be_enabled()
    expect(page.locator("#image")).to_be_focused()
    many = int(limits["maxImages"]) + 1
    choose(page, *(file(f"{number}.png", RED) for number in range(many)))
    expect(page.locator("#status")).to_contain_text(f"You chose {many} images")
    expect(page.locator("#send")).to_be_disabled()


def test_lost_service_is_said_and_nothing_chosen_is_lost(visit: Visit) -> None:
    page = visit()
    page.route("**/*", lambda route: route.abort())
    choose(page, file("a.png", RED))
    page.click("#send")
    expect(page.locator("#status")).to_contain_text("cannot be reached")
    page.unroute_all()
    page.click("#send")
    expect(page.locator("article h2")).to_have_text("red")


# without JavaScript


def submit(page: Page) -> None:
    with page.expect_navigation():
        page.click("#send")


def test_form_works_without_javascript(visit: Visit, large: Path) -> None:
    page = visit(java_script_enabled=False)
    expect(page.get_by_text("drop them here")).to_be_hidden()
    choose(page, file("a.png", RED))
    submit(page)
    assert verdicts(page) == ["red"]
    page.get_by_role("switch").click()
    expect(page.locator(".heat")).to_be_hidden()
    choose(page, file("a.png", BLUE), file("b.png", BAD["text"]))
    submit(page)
    assert verdicts(page) == ["blue", "Not answered"]
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("No image")
    page.set_input_files("#image", large)
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("16 MB")
    expect(page.locator("form")).to_be_visible()


def test_phone_without_javascript_can_send_a_photo(visit: Visit) -> None:
    page = visit(java_script_enabled=False, **PHONE)
    choose(page, file("photo.jpg", BLUE), selector="#camera")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    submit(page)
    assert verdicts(page) == ["blue"]


# languages


@pytest.mark.parametrize(
    ("locale", "language", "call"),
    [("ko-KR", "ko", "이미지 선택"), ("pt-BR", "pt", "Escolha imagens"), ("de-DE", "en", "Choose images")],
)
def test_page_speaks_the_readers_language(visit: Visit, locale: str, language: str, call: str) -> None:
    page = visit(locale=locale)
    assert page.locator("html").get_attribute("lang") == language
    expect(page.locator(".call")).to_have_text(call)
    current = page.locator(".languages [aria-current]")
    assert current.get_attribute("hreflang") == language and current.count() == 1


def test_language_switch_lasts_and_keeps_the_answer(visit: Visit) -> None:
    page = visit()
    classify(page, file("a.png", RED), file("b.png", BAD["text"]))
    page.get_by_role("link", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    assert verdicts(page) == ["빨강", "답하지 않음"]
    assert page.locator("article .file").all_inner_texts() == ["a.png", "b.png"]
    page.goto(page.url.split("?")[0])
    assert page.locator("html").get_attribute("lang") == "ko"
    page.get_by_role("link", name="Português").click()
    expect(page.locator("html")).to_have_attribute("lang", "pt")
    choose(page, file("a.png", BLUE))
    page.click("#send")
    expect(page.locator("article h2")).to_have_text("azul")
    assert page.locator(".bars .share").first.inner_text() == "98,7 %"
    page.locator("header").get_by_role("link", name="Ficha do modelo").click()
    assert page.locator("html").get_attribute("lang") == "pt"
    assert page.locator("main section").first.get_attribute("lang") == "en"


def test_files_that_are_chosen_before_the_script_is_there_count(visit: Visit) -> None:
    page, held = visit(), list[Route]()
    page.route("**/page.js*", lambda route: held.append(route))  # noqa: PLW0108  it takes no built-in function
    page.reload(wait_until="commit")
    page.wait_for_selector("#image", state="attached")
    choose(page, file("a.png", RED))
    page.wait_for_timeout(100)
    assert len(held) == 1 and page.locator("#chosen li").count() == 0
    held[0].continue_()
    expect(page.locator("#chosen li")).to_have_count(1)
    page.click("#send")
    expect(page.locator("article h2")).to_have_text("red")


def test_language_can_be_changed_before_anything_is_sent(visit: Visit) -> None:
    page = visit()
    choose(page, file("a.png", RED))
    page.get_by_role("link", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    expect(page.locator("#chosen li")).to_have_count(1)
    page.click("#send")
    expect(page.locator("article h2")).to_have_text("빨강")


# findings


def shown_maps(page: Page) -> list[str]:
    return [heat.get_attribute("alt").rpartition(" ")[2] for heat in page.locator(".heat").all() if heat.is_visible()]


@pytest.mark.parametrize("scripted", [True, False])
def test_findings_are_read_with_their_heat_maps_and_as_an_exam(
    visit: Visit, findings_address: str, scripted: bool
) -> None:
    page = visit(at=findings_address, java_script_enabled=scripted)
    send = classify if scripted else lambda page, *files: (choose(page, *files), submit(page))
    page.select_option("#finding", "Hernia")
    send(page, file("a.png", PURPLE))
    assert verdicts(page) == ["Atelectasis, Effusion, Infiltration and 6 more"]
    assert page.locator(".bars li").count() == 14 and page.locator(".bars li.present").count() == 9
    assert page.locator(".bars li .state").first.inner_text() == "present"
    assert shown_maps(page) == ["Atelectasis"] and page.locator(".choice label").count() == 7
    page.get_by_role("radio", name="Hernia").check()
    assert shown_maps(page) == ["Hernia"]
    page.get_by_role("switch").click()
    assert shown_maps(page) == []
    page.get_by_role("checkbox", name="These images are one exam").check()
    send(page, file("a.png", RED), file("notes.png", BAD["text"]), file("c.png", BLUE))
    assert page.locator("article").first.get_attribute("id") == "exam" and len(verdicts(page)) == 4
    expect(page.locator("#exam")).to_contain_text("Answered from 2 of 3 images")
    assert page.locator("[name=exam]").is_checked() and page.locator("#finding").input_value() == "Hernia"
    if scripted:
        page.get_by_role("link", name="한국어").click()
        expect(page.locator("html")).to_have_attribute("lang", "ko")
        assert page.locator("article").first.get_attribute("id") == "exam" and verdicts(page)[2] == "답하지 않음"
        assert page.locator("[name=exam]").is_checked()


@pytest.mark.parametrize(("locale", "scheme"), [("en-GB", "light"), ("pt-BR", "light"), ("ko-KR", "dark")])
def test_pages_of_findings_are_accessible_and_fit_their_width(
    visit: Visit, findings_address: str, locale: str, scheme: str
) -> None:
    page = visit(at=findings_address, locale=locale, color_scheme=scheme, **(PHONE if scheme == "dark" else {}))
    page.locator("[name=exam]").check()
    classify(page, file("a.png", PURPLE), file("b.png", GREY), file("c.png", BAD["text"]))
    page.locator("details").first.evaluate("(details) => { details.open = true; }")
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        result = Axe().run(page, options=pages.OPTIONS).response
        assert [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in result["violations"]] == [], width


# keyboard, widths, accessibility


def test_keyboard_is_enough(visit: Visit) -> None:
    page = visit()
    press, choosers = page.keyboard.press, list[FileChooser]()
    # from the start: Chromium takes a moment to hand choosers over, and until then opens a window of its own
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # noqa: PLW0108  it takes no built-in function
    press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    press("Enter")
    press("Tab")
    expect(page.locator("#image")).to_be_focused()
    assert page.locator(".drop").evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
    press("Enter")
    until = time.monotonic() + 30
    while not choosers and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert choosers, "no file chooser opened"
    choosers[0].set_files([file("a.png", RED), file("b.png", BLUE)])
    expect(page.locator("#chosen li")).to_have_count(2)
    press("Tab")
    expect(page.get_by_role("button", name="Remove a.png")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("button", name="Remove b.png")).to_be_focused()
    press("Tab")
    press("Enter")
    expect(page.locator("#answer")).to_be_focused()
    assert verdicts(page) == ["blue"]
    press("Tab")
    expect(page.get_by_role("switch")).to_be_focused()
    press("Space")
    expect(page.locator(".heat")).to_be_hidden()


def states(page: Page, address: str) -> Iterator[str]:
    """Lead a page through everything that the service shows, and yield a name for each state."""
    yield "empty"
    classify(page, file("a.png", GREY))
    yield "answer"
    classify(page, file("a.png", RED), file("b-with-a-rather-long-name-from-a-camera.png", BAD["text"]))
    choose(page, file("c.png", BLUE))
    yield "several"
    page.goto(f"{address}/")
    classify(page, file("a.png", BAD["text"]))
    yield "problem"
    for path in ("/model-card", "/dataset-card", "/nothing-here"):
        page.goto(address + path)
        yield path


@pytest.mark.parametrize(("locale", "scheme"), [("en-GB", "light"), ("pt-BR", "dark"), ("ko-KR", "dark")])
def test_pages_are_accessible_and_fit_their_width(visit: Visit, address: str, locale: str, scheme: str) -> None:
    """The dark scheme is shown on a phone, which can take a photo, the light one at a desk."""
    page, axe = visit(locale=locale, color_scheme=scheme, **(PHONE if scheme == "dark" else {})), Axe()
    for state in states(page, address):
        result = axe.run(page, options=pages.OPTIONS).response
        assert len(result["passes"]) > 10, state
        violations = [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in result["violations"]]
        assert violations == [], state
        size = page.viewport_size
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (state, width)
        page.set_viewport_size(size)
