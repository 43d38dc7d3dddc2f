"""Asks the browser and the page every few seconds whether they still answer."""

from __future__ import annotations

import trio

from actors.egress.page import protocol as cdp
from actors.egress.page.devtools import CommandFailed, DevTools, DevToolsLost, NoAnswer, Params
from actors.egress.page.verdict import Verdict

EVERY = 3.0
# A browser that says nothing for so long hangs; a page may be busy for longer.
BROWSER_TIMEOUT = 5.0
PAGE_TIMEOUT = 30.0


async def watch_browser(browser: DevTools, verdict: Verdict) -> None:
    """Whatever it says is an answer: that to us may come after much else."""
    while True:
        await trio.sleep(EVERY)
        asked = trio.current_time()
        answered = await _answers(browser, "Browser.getVersion", {}, "", BROWSER_TIMEOUT)
        if not answered and browser.heard < asked:
            verdict.lost(f"the browser hangs: it did not answer for {BROWSER_TIMEOUT:g} s")
            return


async def watch_page(browser: DevTools, session: str, verdict: Verdict) -> None:
    """A page that computes without end shows nothing new any more."""
    expression = {"expression": "1"}
    while True:
        await trio.sleep(EVERY)
        if not await _answers(browser, "Runtime.evaluate", expression, session, PAGE_TIMEOUT):
            verdict.lost(f"the page hangs: it did not answer for {PAGE_TIMEOUT:g} s")
            return


async def _answers(
    browser: DevTools, method: str, params: Params, session: str, timeout: float
) -> bool:
    try:
        await browser.command(method, cdp.Nothing, params, session, timeout)
    except NoAnswer:
        return False
    except (CommandFailed, DevToolsLost):
        # An answer too, as between two documents; and of a connection that is lost, whoever
        # reads it says so.
        return True
    return True
