"""Drives clip-retrieval's own page, the unmodified build from its wheel, against a server of ours.

The page is served from an address of its own, as `clip-retrieval front` does, with our `/config.json` in the place of the one that command makes.

usage: front_drive.py CHROMIUM BUILD_FOLDER URL CHECKS WORDS CAPTION [SCREENSHOT]
  CHECKS are names of functions below, with commas. WORDS are typed; CAPTION must be among the captions that are shown.
"""

import functools
import http.server
import json
import pathlib
import sys
import threading
import urllib.request

from playwright.sync_api import expect

from browser import Watched, open_browser, run_checks

CHROMIUM, BUILD, URL, CHECKS, WORDS, CAPTION = sys.argv[1:7]
SCREENSHOT = pathlib.Path(sys.argv[7]) if len(sys.argv) > 7 else None


class Front(http.server.SimpleHTTPRequestHandler):
    """The build as files, and the settings that the server under test gives."""

    def do_GET(self):
        if self.path.split("?")[0] != "/config.json":
            return super().do_GET()
        body = urllib.request.urlopen(URL + "/config.json").read()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class FrontPage(Watched):
    """The page asks two addresses: its own and the server's."""

    def check(self):
        self.asked = [url for url in self.asked if not url.startswith(URL)]
        super().check()


def open_front(browser, front):
    # The wheel's own page names a script that the wheel lacks, and no icon.
    return FrontPage(browser, front, [r"404.*/vendor/webcomponents-loader\.js", r"404.*/favicon\.ico"])


def results(page):
    # As soon as the first of them is there, all of them are: the page draws an answer at once.
    expect(page.locator("figure").first).to_be_visible()
    return page.locator("figure figcaption").all_inner_texts()


def asked(page, act, path="/knn-service"):
    """The body and the answer of the search that `act` starts."""
    with page.expect_response(lambda answer: answer.url.endswith(path) and answer.request.method == "POST") as waiting:
        act()
    answer = waiting.value
    assert answer.status == 200, f"{answer.status}: {answer.text()}"
    assert "//" + path.strip("/") in answer.url, f"upstream's doubled slash is part of the test: {answer.url}"
    return json.loads(answer.request.post_data), answer


def click_on_first(page, button):
    """A result's buttons show while the pointer is on it."""
    page.locator("figure").first.hover()
    page.locator(button).first.click()


def search_by_words(page):
    page.locator("#searchBar").fill(WORDS)
    return asked(page, lambda: page.locator("#searchBar").press("Enter"))


def words(browser, front):
    with open_front(browser, front) as watched:
        page = watched.goto()
        expect(page.locator("#filter select option").first).to_be_attached()
        body, answer = search_by_words(page)
        assert answer.request.headers["content-type"].startswith("text/plain"), answer.request.headers
        assert (body["num_images"], body["num_result_ids"], body["deduplicate"]) == (40, 3000, True), body
        found = results(page)
        assert any(CAPTION in caption for caption in found), found
        for place in range(3):
            watched.drawn(page.locator("img.pic").nth(place))
        if SCREENSHOT:
            page.screenshot(path=SCREENSHOT)


def picture(browser, front):
    with open_front(browser, front) as watched:
        page = watched.goto()
        search_by_words(page)
        first = results(page)[0]
        body, answer = asked(page, lambda: click_on_first(page, ".subImageSearch"))
        assert body["image"] and not body["text"], {k: str(v)[:40] for k, v in body.items()}
        # The picture that was clicked is found again, as the best.
        assert answer.json()[0]["caption"].startswith(first.removesuffix("...")), (answer.json()[0]["caption"], first)


def caption(browser, front):
    with open_front(browser, front) as watched:
        page = watched.goto()
        search_by_words(page)
        results(page)
        body, _ = asked(page, lambda: click_on_first(page, ".subTextSearch"))
        assert body["text"] and body["text"] != WORDS, body["text"]
        body, _ = asked(page, lambda: page.get_by_label("Search over").select_option("text"))
        assert body["modality"] == "text"
        results(page)


def download(browser, front):
    """The button that asks for ten thousand rows with their metadata."""
    with open_front(browser, front) as watched:
        page = watched.goto()
        search_by_words(page)
        results(page)
        with page.expect_download() as waiting:
            body, answer = asked(page, lambda: page.locator("#download").click())
        assert (body["num_images"], body["num_result_ids"]) == (10_000, 10_000), body
        rows = json.loads(pathlib.Path(waiting.value.path()).read_text())
        assert len(rows) == len(answer.json()) and all("similarity" in row for row in rows)


def pictureless(browser, front):
    """A pool of captions alone: every result is seen, with a picture that says that there is none."""
    with open_front(browser, front) as watched:
        page = watched.goto()
        expect(page.locator("#filter select option").first).to_be_attached()
        body, answer = search_by_words(page)
        assert body["modality"] == "image", "upstream's page asks for pictures first"
        found = results(page)
        assert CAPTION in found[0] and len(found) == len(answer.json()), found
        for place in range(len(found)):
            expect(page.locator("figure").nth(place)).to_be_visible()
            watched.drawn(page.locator("img.pic").nth(place))
        if SCREENSHOT:
            page.screenshot(path=SCREENSHOT)
        _, answer = asked(page, lambda: click_on_first(page, ".subImageSearch"))
        assert answer.json() == [], "no picture is like none"


def main():
    checks = [globals()[name] for name in CHECKS.split(",")]
    handler = functools.partial(Front, directory=BUILD)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open_browser(CHROMIUM) as browser:
        run_checks(checks, browser, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()


if __name__ == "__main__":
    main()
