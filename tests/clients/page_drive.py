"""Drives the page at `/` and `/docs` against servers of the test: a visitor's moves, and what must be seen after each.

usage: page_drive.py CHROMIUM FIXTURES URL KEYED_URL MANY_URL EMPTY_URL
  URL        pools `fruit` (8 pairs) and `words` (no pictures)   KEYED_URL  asks for a key
  MANY_URL   a pool of 60 pairs                                  EMPTY_URL  a pool without pairs
"""

import base64
import json
import pathlib
import sys
import urllib.request

from playwright.sync_api import expect

from browser import PHONE, Watched, open_browser, run_checks

CHROMIUM, FIXTURES = sys.argv[1], pathlib.Path(sys.argv[2])
URL, KEYED, MANY, EMPTY = sys.argv[3:7]
RED = (FIXTURES / "red.jpg").read_bytes()
# What Chromium writes into the console for an answer that this check provokes.
STATUS = r"Failed to load resource: the server responded with a status of {}"
WITHIN = "(f, n) => { const t = new DataTransfer(); t.items.add(new File([Uint8Array.from(atob(f), (c) => c.charCodeAt(0))], n[0], { type: n[1] })); return t; }"


def fruit(browser, expected=(), **settings):
    return Watched(browser, URL, expected, **settings)


def ask_server(body):
    request = urllib.request.Request(URL + "/v1/search", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["results"][0]["hits"]


def captions(page):
    return page.locator(".card .caption").all_inner_texts()


def search_captions(page, words):
    page.select_option("#side", "text")
    page.fill("#text", words)
    page.press("#text", "Enter")
    expect(page.locator(".caption").first).to_have_text(words)


def carry(page, kind, name="red.jpg", content=RED, mime="image/jpeg"):
    """A drop or a paste, as a browser makes them."""
    encoded = base64.b64encode(content).decode()
    page.evaluate(
        """([kind, f, n]) => { const t = (%s)(f, n); const at = { bubbles: true, cancelable: true };
        document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent("paste", { ...at, clipboardData: t })
          : new DragEvent(kind, { ...at, dataTransfer: t })); }""" % WITHIN,
        [kind, encoded, [name, mime]],
    )


def typing(browser):
    with fruit(browser) as watched:
        page = watched.goto()
        expect(page.locator("#text")).to_be_focused()
        expect(page.locator("#status")).to_contain_text("Type words")
        expect(page.locator("#pool-facts")).to_contain_text("8 pairs")
        page.keyboard.type("a red apple")
        page.keyboard.press("Enter")
        expect(page.locator(".card")).to_have_count(7)
        search_captions(page, "a red apple")
        expect(page.locator(".score").first).to_have_text("score 1.000")
        expect(page.locator(".fields").first).to_contain_text("CC0")
        expect(page.locator("#status")).to_contain_text("7 pairs")
        page.reload()
        expect(page.locator(".caption").first).to_have_text("a red apple")
        search_captions(page, "a yellow sun")
        page.go_back()
        expect(page.locator("#text")).to_have_value("a red apple")
        expect(page.locator(".caption").first).to_have_text("a red apple")


def pictures(browser):
    with fruit(browser) as watched:
        page = watched.goto()
        first = page.locator(".caption").first
        carry(page, "dragenter")
        expect(page.locator("#drop")).to_be_visible()
        carry(page, "drop")
        expect(page.locator("#drop")).to_be_hidden()
        expect(page.locator(".part")).to_contain_text("red.jpg")
        expect(first).to_have_text("a red apple")
        expect(page.locator(".score").nth(1)).to_have_text("score 1.000")
        page.get_by_label("Hide near duplicates").check()
        expect(page.locator(".score").nth(1)).not_to_have_text("score 1.000")
        page.get_by_label("Hide near duplicates").uncheck()
        expect(page.locator(".score").nth(1)).to_have_text("score 1.000")
        page.locator("#threshold").fill("0.999")
        page.locator("#threshold").press("Enter")
        expect(page.locator(".card")).to_have_count(2)
        page.locator("#threshold").fill("")
        page.locator("#threshold").press("Enter")
        expect(page.locator(".card")).to_have_count(7)
        page.get_by_role("button", name="Remove red.jpg").click()
        expect(page.locator(".card")).to_have_count(0)
        carry(page, "paste", "blue.jpg", (FIXTURES / "blue.jpg").read_bytes())
        expect(first).to_have_text("a blue boat on the sea")
        page.set_input_files("#file", FIXTURES / "green.jpg")
        expect(page.locator(".part-name")).to_have_text("green.jpg")
        expect(first).to_have_text("a green apple")
        page.fill("#text", "a red apple")
        page.press("#text", "Enter")
        blend = [{"text": "a red apple"}, {"image": base64.b64encode((FIXTURES / "green.jpg").read_bytes()).decode()}]
        expect(page.locator(".score").first).not_to_have_text("score 1.000")
        assert captions(page)[:5] == [h.get("caption") or f"Row {h['id']}" for h in ask_server({"blend": blend, "include": ["caption"]})[:5]]
        carry(page, "drop", "notes.txt", b"words", "text/plain")
        expect(page.locator("#error")).to_contain_text("no picture")


def likes(browser):
    with fruit(browser) as watched:
        page = watched.goto()
        search_captions(page, "a green apple")
        page.get_by_role("button", name="Not like this: one red apple on a table").click()
        expect(page.locator(".part.unlike")).to_contain_text("one red apple on a table")
        expect(page.locator("#text")).to_have_value("a green apple")
        asked = {"blend": [{"text": "a green apple"}, {"id": 3, "weight": -0.25}], "side": "text", "include": ["caption"]}
        answer = [hit["caption"] for hit in ask_server(asked)]
        expect(page.locator(".card")).to_have_count(6)
        assert captions(page) == [caption for caption in answer if caption != "one red apple on a table"], (captions(page), answer)
        page.reload()
        expect(page.locator(".part.unlike")).to_have_count(1)
        expect(page.locator(".card")).to_have_count(6)
        page.get_by_role("button", name="Not like Row 3: turn round").click()
        expect(page.locator(".part.unlike")).to_have_count(0)
        page.get_by_role("button", name="More like this: a yellow star").click()
        expect(page.locator(".part-name")).to_have_text("a yellow star")
        expect(page.locator("#text")).to_have_value("")
        expect(page.locator("#from-label")).to_be_visible()
        page.select_option("#from", "text")
        expect(page.locator(".caption").first).to_have_text("a yellow star")
        expect(page.locator(".score").first).to_have_text("score 1.000")
        assert "like=4" in page.url and "from=text" in page.url, page.url


def filters(browser):
    with fruit(browser, [STATUS.format(422)]) as watched:
        page = watched.goto()
        search_captions(page, "a red apple")
        page.click("#filter-toggle")
        page.fill("#filter", '{"eq": {"field": "licence", "value": "CC0"}}')
        page.get_by_role("button", name="Apply").click()
        wrong = page.locator("#filter-error")
        expect(wrong).to_contain_text("licence")
        expect(wrong).to_contain_text("license, rank", ignore_case=True)
        expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".card")).to_have_count(0)
        expect(page.locator("#error")).to_be_hidden()
        page.fill("#filter", '{"eq": ')
        page.get_by_role("button", name="Apply").click()
        expect(wrong).to_contain_text("not JSON")
        page.get_by_role("button", name="Clear the filter").click()
        expect(wrong).to_be_hidden()
        expect(page.locator(".card")).to_have_count(7)
        page.select_option("#filter-field", "rank")
        page.select_option("#filter-operator", "is at most")
        page.fill("#filter-value", "2")
        page.get_by_role("button", name="Add").click()
        expect(page.locator(".card")).to_have_count(3)
        page.select_option("#filter-field", "caption")
        page.select_option("#filter-operator", "begins with")
        page.fill("#filter-value", "a blue")
        page.press("#filter-value", "Enter")
        expect(page.locator(".card")).to_have_count(1)
        assert json.loads(page.input_value("#filter")) == {
            "and": [{"range": {"field": "rank", "lte": 2}}, {"prefix": {"field": "caption", "value": "a blue"}}]}
        page.reload()
        expect(page.locator(".card")).to_have_count(1)
        expect(page.locator("#filter-toggle")).to_have_text("Filter and columns (filtered)")
        page.get_by_label("license", exact=True).uncheck()
        expect(page.locator(".fields").first).not_to_contain_text("CC0")
        page.fill("#filter", '{"eq": {"field": "rank", "value": 99}}')
        page.press("#filter", "Control+Enter")
        expect(page.locator("#status")).to_contain_text("no pair passes the filter")


def pools(browser):
    with fruit(browser) as watched:
        page = watched.goto("/?q=an apple")
        expect(page.locator(".card")).to_have_count(7)
        page.select_option("#pool", "words")
        expect(page.locator("#side")).to_have_value("text")
        expect(page.locator(".card")).to_have_count(6)
        expect(page.locator(".no-shot").first).to_be_visible()
        page.select_option("#pool", "fruit")
        expect(page.locator("#side")).to_have_value("image")


def details(browser):
    with fruit(browser) as watched:
        page = watched.goto("/?q=a red apple&side=text")
        page.get_by_role("button", name="a red apple. Open").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("fruit.parquet, row 0")
        expect(dialog).to_contain_text("pair-0")
        watched.drawn(page.locator("#details-image"))
        watched.accessible("a pair")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(page.locator(".shot").first).to_be_focused()


def more(browser):
    with Watched(browser, MANY) as watched:
        page = watched.goto("/?q=caption number 7&side=text")
        for shown in (24, 48, 60):
            expect(page.locator(".card")).to_have_count(shown)
            if shown < 60:
                page.get_by_role("button", name="More", exact=True).click()
        expect(page.locator("#more")).to_be_hidden()
        expect(page.locator(".shot").nth(48)).to_be_focused()
        assert len(set(captions(page))) == 60


def keyboard(browser):
    with fruit(browser) as watched:
        page = watched.goto()
        press = page.keyboard.press
        page.keyboard.type("a red apple")
        press("Enter")
        expect(page.locator(".card")).to_have_count(7)
        for _ in range(12):
            press("Tab")
            if page.evaluate("document.activeElement.matches('.shot')"):
                break
        shots = page.locator(".shot")
        expect(shots.nth(0)).to_be_focused()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"focus is shown by {outline}"
        press("ArrowRight")
        expect(shots.nth(1)).to_be_focused()
        press("Space")
        expect(page.locator("#tray-count")).to_have_text("1 pair selected")
        press("End")
        expect(shots.nth(6)).to_be_focused()
        press("Space")
        expect(page.locator("#tray-count")).to_have_text("2 pairs selected")
        press("Home")
        press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        press("Escape")
        expect(shots.nth(0)).to_be_focused()
        press("ArrowUp")
        expect(page.locator("#text")).to_be_focused()
        shots.nth(0).focus()
        press("Escape")
        expect(page.locator("#text")).to_be_focused()
        shots.nth(2).focus()
        press("/")
        expect(page.locator("#text")).to_be_focused()
        name = captions(page)[2]
        shots.nth(2).focus()
        press("m")
        expect(page.locator(".part-name")).to_have_text(name)
        page.locator("#export-json").focus()
        with page.expect_download() as download:
            press("Enter")
        manifest = json.loads(pathlib.Path(download.value.path()).read_text())
        assert manifest["header"]["search"] == "chosen", manifest["header"]
        pairs = manifest["rows"]
        assert len(pairs) == 2 and pairs[0]["query"] == "a red apple", pairs
        assert all(len(pair["content"]) == 64 and pair["key"] for pair in pairs), pairs


def export(browser):
    with fruit(browser, [STATUS.format(404) + ".*/v1/manifest"]) as watched:
        page = watched.goto("/?q=a red apple&side=text")
        expect(page.locator(".card")).to_have_count(7)
        for row in (0, 1):
            page.locator(".choose input").nth(row).check()
        page.reload()
        expect(page.locator(".card.chosen")).to_have_count(2)
        with page.expect_download() as download:
            page.get_by_role("button", name="Manifest").click()
        assert download.value.suggested_filename == "anchors.parquet"
        content = pathlib.Path(download.value.path()).read_bytes()
        assert content[:4] == content[-4:] == b"PAR1" and b"anchorite.manifest" in content
        page.evaluate("sessionStorage.setItem('anchorite.selection', JSON.stringify([['fruit', [[0, { key: 'gone', score: 1 }]]]]))")
        page.reload()
        page.get_by_role("button", name="Manifest").click()
        expect(page.locator("#tray-error")).to_contain_text("no pair")
        page.get_by_role("button", name="Clear", exact=True).click()
        expect(page.locator("#tray")).to_be_hidden()


def keys(browser):
    with Watched(browser, KEYED, [STATUS.format(401)]) as watched:
        page = watched.goto("/?q=a red apple&side=text")
        expect(page.get_by_label("Key", exact=True)).to_be_focused()
        watched.accessible("the key")
        page.keyboard.type("a guess")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_be_visible()
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("reading secret")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(page.locator(".caption").first).to_have_text("a red apple")
        watched.drawn(page.locator(".shot img").first)
        page.reload()
        expect(page.locator(".caption").first).to_have_text("a red apple")
        page.get_by_role("button", name="Forget the key").click()
        expect(page.locator("#key-form")).to_be_visible()
        assert not any("secret" in url for url in watched.asked), "a key stands in no address"


def states(browser):
    with Watched(browser, EMPTY) as watched:
        page = watched.goto("/?q=anything")
        expect(page.locator("#status")).to_contain_text("This pool is empty")
    provoked = [STATUS.format(500), STATUS.format(429), "Failed to load resource: net::ERR_FAILED"]
    with fruit(browser, provoked) as watched:
        page = watched.goto()
        held = []
        page.route("**/v1/search", lambda route: held.append(route))
        page.fill("#text", "an apple")
        page.press("#text", "Enter")
        expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
        expect(page.locator("#status")).to_have_text("Searching…")
        held[0].continue_()
        expect(page.locator(".card")).to_have_count(7)
        expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
        page.unroute("**/v1/search")
        busy = {"error": {"code": "too_busy", "message": "the server works at its limit; ask again in a second", "request_id": "1"}}
        page.route("**/v1/search", lambda route: route.fulfill(status=429, json=busy))
        page.press("#text", "Enter")
        expect(page.locator("#error")).to_have_text("The server works at its limit; ask again in a second.")
        expect(page.locator(".card")).to_have_count(0)
        page.unroute("**/v1/search")
        page.route("**/v1/search", lambda route: route.fulfill(status=500, body="<h1>oh</h1>"))
        page.press("#text", "Enter")
        expect(page.locator("#error")).to_contain_text("status 500")
        page.unroute("**/v1/search")
        page.route("**/v1/search", lambda route: route.abort())
        page.press("#text", "Enter")
        expect(page.locator("#error")).to_contain_text("cannot be reached")


def sizes(browser):
    for viewport in (PHONE, {"width": 320, "height": 640}, {"width": 1920, "height": 1080}):
        with fruit(browser, viewport=viewport) as watched:
            page = watched.goto("/?q=a red apple&side=text&unlike=3&like=2")
            expect(page.locator(".card")).to_have_count(6)
            page.click("#filter-toggle")
            page.locator(".choose input").first.check()
            page.evaluate("document.querySelectorAll('.caption, .part-name').forEach((e) => (e.textContent = 'x'.repeat(300)))")
            watched.fits()
            page.locator(".shot").first.click()
            expect(page.get_by_role("dialog")).to_contain_text("pair-")
            watched.fits()


def accessibility(browser):
    for scheme in ("light", "dark"):
        with fruit(browser, color_scheme=scheme) as watched:
            page = watched.goto()
            watched.accessible(f"the empty page, {scheme}")
            page.goto(URL + "/?q=a red apple&side=text&unlike=3&like=2")
            expect(page.locator(".card")).to_have_count(6)
            page.click("#filter-toggle")
            page.locator(".choose input").first.check()
            watched.accessible(f"the page at work, {scheme}")
            watched.goto("/docs")
            expect(page.locator("#status")).to_contain_text("routes")
            page.locator("summary").first.click()
            watched.accessible(f"the docs, {scheme}")


def docs(browser):
    with Watched(browser, URL) as watched:
        page = watched.goto("/docs")
        paths = json.load(urllib.request.urlopen(URL + "/openapi.json"))["paths"]
        operations = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
        expect(page.locator("summary")).to_have_count(len(operations))
        assert sorted(page.locator("summary code").all_inner_texts()) == sorted(operations)
        page.get_by_text("POST /v1/search").click()
        opened = page.locator("details[open]")
        expect(opened).to_contain_text("How hard to try")
        expect(opened).to_contain_text('"fast" or "normal" or "high" or "exact"')
        opened.get_by_role("link", name="WeightedInput").click()
        expect(page.locator("#WeightedInput")).to_be_in_viewport()
        watched.fits()
    with Watched(browser, URL, viewport=PHONE) as watched:
        page = watched.goto("/docs")
        page.get_by_text("POST /v1/search").click()
        expect(page.locator("details[open]")).to_contain_text("Filter")
        watched.fits()


CHECKS = [typing, pictures, likes, filters, pools, details, more, keyboard, export, keys, states, sizes, accessibility, docs]

if __name__ == "__main__":
    with open_browser(CHROMIUM) as opened:
        run_checks(CHECKS, opened)
