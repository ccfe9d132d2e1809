"""People in front of a real Chromium: windows that record errors, and logins by Airflow's own form."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, StorageState, expect, sync_playwright

from tests import missing
from tests.airflow.conftest import Airflow

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES = "/backups/"
HURRY = """
if (location.pathname.startsWith("/backups/")) {
    const wait = window.setTimeout;
    window.setTimeout = (what, ms, ...more) => wait(what, ms / 4, ...more);
}
"""
PATIENCE_MS = 30_000
"""How long a page may take on a machine where other tests run."""
RUN_LIMIT_MS = 90_000
"""How long a run of Airflow may take until the page shows that it is over."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's Chromium. While it runs, no other code of this thread may run an event loop: Playwright's does."""
    program = shutil.which("chromium")
    if program is None:
        missing.lacks("Chromium", "apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class People:
    """Opens windows for people of the demo; who has logged in once stays logged in, as in a browser."""

    def __init__(self, browser: Browser, airflow: Airflow) -> None:
        self._browser, self._airflow = browser, airflow
        self._logins: dict[str, StorageState] = {}

    @contextmanager
    def window(
        self, user: str = "", *, locale: str = "es-BO", expected: str = "", hurry: bool = True, **options: Any
    ) -> Iterator[Page]:
        """A window in which somebody is logged in, or nobody yet.

        At the end nothing may have gone wrong on a page of ours: no error in the console, which is where a browser
        reports what the Content-Security-Policy forbids, no exception of a script, no dialog.

        :param expected: a pattern of console errors that belong to the test.
        :param hurry: let our pages look for news four times as often as they do, so that the tests take less time.
        """
        if user and user not in self._logins:
            with self.window(locale="en-US") as page:
                page.goto(PAGES + "ui/")
                self.log_in(page, user)
                page.wait_for_url("**/backups/ui/")
        context = self._browser.new_context(
            base_url=self._airflow.stack.url, locale=locale, storage_state=self._logins.get(user), **options
        )
        if hurry:
            context.add_init_script(HURRY)
        problems: list[str] = []

        def console(message: ConsoleMessage) -> None:
            url = str(message.location.get("url"))
            if message.type == "error" and PAGES in url and not (expected and re.search(expected, message.text)):
                problems.append(f"{url}: {message.text}")

        def dialog(opened: Any) -> None:
            problems.append(f"a dialog opened: {opened.message}")
            opened.dismiss()

        context.on("console", console)
        context.on("weberror", lambda error: problems.append(str(error.error)) if PAGES in error.page.url else None)
        context.on("dialog", dialog)
        context.set_default_timeout(PATIENCE_MS)
        try:
            yield context.new_page()
            if problems:
                pytest.fail("\n".join(problems))
        finally:
            context.close()

    def log_in(self, page: Page, user: str) -> None:
        """Fill in the form that Airflow shows to whoever is not logged in."""
        expect(page.get_by_text("Sign into Airflow")).to_be_visible()
        page.locator("[name=username]").fill(user)
        page.locator("[name=password]").fill(self._airflow.stack.secrets.web_password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/auth/" not in url)
        self._logins[user] = page.context.storage_state()


AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]


def axe(page: Page) -> list[str]:
    """What axe-core finds wrong with a page: rule, and the first elements that break it."""
    if not AXE.exists():
        missing.lacks("axe-core", missing.NPM)
    # Playwright's own channel: the page's Content-Security-Policy stays in force.
    page.evaluate(AXE.read_text())
    found = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", RULES)
    assert found["passes"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:150] for node in one['nodes'][:3]]}"
        for one in found["violations"]
    ]
