"""Drives the page over the bundled pictures: a search refined by likes and dislikes, three pairs selected, the manifest saved.

usage: demo_drive.py CHROMIUM URL MANIFEST SCREENSHOTS
"""

import json
import pathlib
import sys

from playwright.sync_api import expect

from browser import PHONE, Watched, open_browser, run_checks

CHROMIUM, URL, MANIFEST, SCREENSHOTS = sys.argv[1], sys.argv[2], sys.argv[3], pathlib.Path(sys.argv[4])


def shown(watched):
    """The pictures of the first rows are drawn."""
    for place in range(10):
        watched.drawn(watched.page.locator(".shot img").nth(place))


def search(watched):
    page = watched.goto()
    page.fill("#text", "a slice of pizza")
    page.press("#text", "Enter")
    expect(page.locator(".card")).to_have_count(24)
    assert "pizza" in page.locator(".caption").first.inner_text()
    return page


def selection(browser):
    with Watched(browser, URL) as watched:
        page = search(watched)
        disliked = page.locator(".caption").first.inner_text()
        page.get_by_role("button", name=f"Not like this: {disliked}").first.click()
        expect(page.locator(".part.unlike")).to_contain_text(disliked)
        expect(page.locator(".card")).to_have_count(23)
        assert disliked not in page.locator(".caption").all_inner_texts()
        assert "pizza" in page.locator(".caption").first.inner_text(), "the dislike leaves the question what it was"
        page.get_by_role("button", name="Filter and columns").click()
        for column, wanted in (("creator", False), ("id", False), ("license", True), ("style", True)):
            page.get_by_label(column, exact=True).set_checked(wanted)
        page.select_option("#filter-field", "license")
        page.fill("#filter-value", "public-domain")
        page.get_by_role("button", name="Add").click()
        expect(page.locator(".fields").first).to_contain_text("public-domain")
        page.get_by_role("button", name="Filter and columns").click()
        for place in range(3):
            page.locator(".choose input").nth(place).check()
        with page.expect_download() as download:
            page.get_by_role("button", name="Manifest").click()
        download.value.save_as(MANIFEST)
        with page.expect_download() as download:
            page.get_by_role("button", name="JSON").click()
        rows = json.loads(pathlib.Path(download.value.path()).read_text())["rows"]
        assert len(rows) == 3 and all(row["query"] == f"a slice of pizza, not like {disliked}" for row in rows), rows
        shown(watched)
        watched.accessible("the demo")
        page.mouse.move(0, 0)
        page.screenshot(path=SCREENSHOTS / "page.png")


def phone(browser):
    with Watched(browser, URL, viewport=PHONE, device_scale_factor=2, has_touch=True, is_mobile=True) as watched:
        page = search(watched)
        page.locator(".choose input").first.tap()
        expect(page.locator("#tray-count")).to_have_text("1 pair selected")
        shown(watched)
        watched.fits()
        page.screenshot(path=SCREENSHOTS / "page-phone.png")
        page.get_by_role("button", name="More", exact=True).tap()
        expect(page.locator(".card")).to_have_count(48)


if __name__ == "__main__":
    with open_browser(CHROMIUM) as opened:
        run_checks([selection, phone], opened)
