"""The page to try the model with, in a browser."""

import json
import shutil

import pytest

from tests.serving.endpoint import HTTP


@pytest.fixture(scope="module")
def address(served):
    """Of the development server."""
    _, server = served
    return server.announced[1]


def test_a_picture_finds_its_neighbours(address, pictures):
    """Its own file first, with its class, its thumbnail, the version and the time."""
    file = pictures / "class 3" / "2.png"
    response = HTTP.request("POST", f"{address}/try", body=file.read_bytes())
    answer = json.loads(response.data)
    assert response.status == 200, answer
    assert answer["version"] >= 1
    assert answer["milliseconds"] > 0
    first, *others = answer["neighbours"]
    assert len(others) == 3
    assert (first["class"], first["path"]) == ("class 3", str(file))
    assert first["distance"] < 1e-3
    assert first["thumbnail"].startswith("data:image/jpeg;base64,")


def test_what_is_no_picture_is_rejected_in_words(address):
    """Without the graph's own names."""
    response = HTTP.request("POST", f"{address}/try", body=b"no picture")
    assert response.status == 400
    wanted = (
        "a picture must be a whole JPEG, PNG, GIF, BMP or still WebP file; got 10 bytes that begin with 6e"
    )
    assert json.loads(response.data)["error"].startswith(wanted)


def test_the_health_path_names_the_version(address):
    """Beside the page."""
    response = HTTP.request("GET", f"{address}/healthz")
    assert (response.status, list(json.loads(response.data))) == (200, ["version"])
    page = HTTP.request("GET", f"{address}/")
    assert page.headers["Content-Type"].startswith("text/html")


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
        except sync_api.Error as error:
            pytest.skip(f"there is no Chromium: {error}")
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1100, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, address, pictures, tmp_path, scheme, width):
    """Choose a picture, see its neighbours; then one that is none. Nothing is wider than the window."""
    file = pictures / "class 3" / "2.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/")
    page.set_input_files("input[type=file]", file)
    page.wait_for_selector("li")
    assert page.locator("li").count() == 4
    assert page.locator("li b").first.inner_text() == "class 3"
    assert float(page.locator("li .distance").first.inner_text()) < 1e-3
    note = page.locator("#note").inner_text()
    assert "version" in note
    assert " ms" in note
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.set_input_files("input[type=file]", bad)
    page.wait_for_selector("#note.wrong")
    assert "must be a whole JPEG" in page.locator("#note").inner_text()
    assert page.locator("li").count() == 0
    assert errors == []
    page.close()
