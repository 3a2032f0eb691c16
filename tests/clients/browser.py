"""One headless Chromium for a driver, and what every page must keep: nothing from elsewhere, no error in the console, no serious finding of axe.

    open_browser(path) -> Watched pages -> checks, one function each, run in order -> "checked NAME" on standard output

Needs playwright and axe-playwright-python (`chromium.rs` installs them).
"""

import contextlib
import re
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
# How long anything may take, in milliseconds: far above what it does take.
PATIENCE = 20_000


@contextlib.contextmanager
def open_browser(path):
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Containers and root have no user namespaces; all that is opened here is the test's own server.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Watched:
    """A page in a context of its own. `expected` are patterns of console lines that this check provokes."""

    def __init__(self, browser, url, expected=(), viewport=WIDE, **settings):
        self.url, self.expected, self.said, self.asked = url, list(expected), [], []
        self.context = browser.new_context(viewport=viewport, **settings)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _console(self, message):
        if message.type == "error":
            self.said.append(f"{message.text} ({message.location.get('url', '')})")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.check()
        self.context.close()

    def goto(self, path="/"):
        self.page.goto(self.url + path)
        return self.page

    def check(self):
        unexpected = [line for line in self.said if not any(re.search(pattern, line) for pattern in self.expected)]
        assert not unexpected, f"the console says {unexpected}"
        here = (urlsplit(self.url).netloc, "")
        elsewhere = [url for url in self.asked if urlsplit(url).netloc not in here]
        assert not elsewhere, f"asked elsewhere: {elsewhere}"

    def accessible(self, where):
        """axe's findings of the two upper grades are failures, each with its place."""
        # Colours that are still fading have no contrast to speak of.
        self.page.evaluate("Promise.all(document.getAnimations().map((animation) => animation.finished))")
        before = len(self.said)
        found = Axe().run(self.page).response["violations"]
        # axe tries styles of its own, which the page's policy refuses.
        self.said[before:] = [line for line in self.said[before:] if "Applying inline style violates" not in line]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        told = "; ".join(f"{v['id']}: {v['help']} at {[n['target'] for n in v['nodes']][:5]}" for v in serious)
        assert not serious, f"{where}: {told}"

    def drawn(self, picture):
        """The picture of this locator has come, and is one."""
        picture.evaluate("(i) => i.naturalWidth > 0 || new Promise((done) => i.addEventListener('load', done, { once: true }))")

    def fits(self):
        """Nothing is wider than the window."""
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= window, f"{wide} px of page in {window} px of window"


def run_checks(checks, *args):
    for check in checks:
        check(*args)
        print("checked", check.__name__, flush=True)
