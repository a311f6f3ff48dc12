"""A view in a real browser: it is there, it shows what it should, and nothing in it fails."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from release_tasks.checks import browser
from release_tasks.checks.verdict import ROWS, Seen, Unknown, Wrong
from release_tasks.checks.watch import Watch, address, first_of
from release_tasks.checks.web import is_own, leads_to, send_headers, short

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Response

    from release_tasks.checks.place import Asked, Place
    from release_tasks.kinds import Page as Check

GRACE = 4.0  # seconds beyond its limit in which a page may still be pictured and closed
ITSELF = "expected the page itself."
POLL = 0.03  # seconds between two looks at what a page has come to
SOON = 1.0  # seconds in which what is to be visible may still come, once something has failed
LATE = 2.0  # seconds in which what scripts ask for may still come, once all else is there
QUIET = 0.1  # seconds without a request, after which a page has settled
UNREACHABLE = re.compile(r"ERR_(UNSAFE_PORT|CONNECTION_(REFUSED|TIMED_OUT)|NAME_|ADDRESS_|INTERNET_|CERT_|SSL_)\w*")
# What people see of a page, and which of its pictures a browser cannot draw (HTML Standard, img.decode).
TEXT = "document.body ? `${document.title}\\n${document.body.innerText}` : ''"
BROKEN = """Promise.all([...document.images].filter(image => image.complete && image.currentSrc).map(
  image => image.decode().then(() => '', () => image.currentSrc))).then(found => found.filter(Boolean))"""


def look_at_page(check: Check, place: Place, seen: Seen, asked: Asked) -> list[str]:
    """Look at all views of a check at once, and return what is wrong with them; screenshots are kept.

    Raises `Unknown` when there is no browser, or nobody answers at ORIGIN.
    """
    views = [
        View(check, place, asked.name, number, path, size, dark)
        for number, path in enumerate(check.path, 1)
        for size in check.viewports
        for dark in ((False, True) if check.dark else (False,))
    ]
    seen.update(request=[view.url for view in views], threshold=f"{check.status}, and {check.selector} is visible")
    began = time.monotonic()

    async def look_at_all(one: Browser, slots: asyncio.Semaphore) -> list[BaseException | None]:
        return await asyncio.gather(*(view.look(one, slots) for view in views), return_exceptions=True)

    ended = browser.run(look_at_all)
    wrong = [sentence for view in views for sentence in dict.fromkeys(view.wrong)]
    seen.update(views=[view.seen for view in views], rows=wrong[:ROWS])
    seen["in_words"] = f"{len(views)} view{'s' * (len(views) > 1)} in {time.monotonic() - began:.1f} s"
    for error in filter(None, ended):
        if not wrong or not isinstance(error, Unknown):
            raise error
        wrong += [sentence for sentence in error.said if sentence not in wrong]
    if any(", a login page" in sentence for sentence in wrong):
        raise Wrong(wrong, "In invoke.yaml, give this check a session: cookies: {session: '${SESSION}'}")
    return wrong


@dataclass
class View:
    """One path in one viewport: `look` fills `wrong` with a sentence for each thing that is wrong."""

    check: Check
    place: Place
    name: str
    number: int
    path: str
    size: tuple[int, int]
    dark: bool
    wrong: list[str] = field(default_factory=list)
    seen: Seen = field(default_factory=dict)
    until: float = 0.0  # by the monotonic clock

    @property
    def url(self) -> str:
        return self.place.origin.rstrip("/") + self.path

    @property
    def called(self) -> str:
        """What people call it: its path, and what sets it apart from others of the check."""
        size = f" at {self.size[0]}x{self.size[1]}" if len(self.check.viewports) > 1 else ""
        return self.path + size + (" in dark mode" if self.dark else "")

    async def look(self, one: Browser, slots: asyncio.Semaphore) -> None:
        """Look at it in a context of its own; its time begins once it has one of the `slots`. Raises `Unknown`."""
        async with slots:
            await self._look(one)

    async def _look(self, one: Browser) -> None:
        from playwright.async_api import Error

        self.until, context = time.monotonic() + self.check.timeout, None
        try:
            async with asyncio.timeout(self.check.timeout + GRACE / 2):
                width, height = self.size
                scheme: Any = "dark" if self.dark else "light"
                context = await one.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                await self._look_in(context)
        except TimeoutError:
            self.wrong.append(f"{self.called} keeps its page so busy that it could not be looked at to its end.")
        except Error as error:
            if not one.is_connected():
                raise Unknown(f"The browser ended while it looked at {self.called}.") from None
            self.wrong.append(f"{self.called} could not be looked at to its end: {short(error.message)}")
        finally:
            if context is not None:
                with suppress(Error, TimeoutError):
                    await asyncio.wait_for(context.close(), GRACE / 2)

    async def _look_in(self, context: BrowserContext) -> None:
        own = self.place.origin.rstrip("/")
        for name, value in self.check.cookies.items():
            await context.add_cookies([{"name": name, "value": value, "url": own}])
        page = await context.new_page()
        if self.check.headers:
            await send_headers(page, own, self.check.headers)
        watch = Watch(page, own, self.called, self.wrong.append, itself=False)
        began = time.monotonic()
        answer = await self._go(page, watch)
        if answer:
            await self._judge(page, watch, answer)
        self.seen.update(path=self.path, url=short(page.url), seconds=round(time.monotonic() - began, 3))
        if answer:
            self.seen["screenshot"] = await self._keep(page)

    async def _go(self, page: Page, watch: Watch) -> Response | None:
        """Return what the page is answered with; None where that is nothing, which is wrong. Raises `Unknown`."""
        from playwright.async_api import Error, TimeoutError

        going = asyncio.ensure_future(page.goto(self.url, wait_until="commit", timeout=self._left() * 1000))
        going.add_done_callback(lambda gone: gone.cancelled() or gone.exception())  # also where nobody awaits it
        try:
            while not going.done() and first_of(watch.asked) == watch.asked:
                await asyncio.wait([going], timeout=POLL)
            await asyncio.wait([going], timeout=SOON)  # where a redirect leads may be slow
            if not going.done():
                self.wrong.append(f"{self.called} is redirected to {leads_to(watch.asked.url)}; {ITSELF}")
                return None
            answer = await going
        except Error as error:
            if first_of(watch.asked) != watch.asked:
                self.wrong.append(f"{self.called} is redirected to {leads_to(watch.asked.url)}; {ITSELF}")
            elif refused := UNREACHABLE.search(error.message):
                raise Unknown(f"{self.url} could not be reached: {refused[0]}.", f"curl --head {self.url}") from None
            elif isinstance(error, TimeoutError):
                self.wrong.append(f"{self.called} did not answer within {self.check.timeout:g} s.")
            else:
                self.wrong.append(f"{self.called} gives no page: {short(error.message.splitlines()[0])}")
            return None
        if answer is None:
            raise Unknown(f"{self.called} gave no answer that could be judged.")
        return answer

    async def _judge(self, page: Page, watch: Watch, answer: Response) -> None:
        """Judge what answers; if it is the page: wait for what is to be visible, and read the text."""
        self.seen["status"], first = answer.status, first_of(answer.request)
        if first != answer.request:
            self.wrong.append(f"{self.called} is redirected to {leads_to(answer.url)}; {ITSELF}")
            return
        if answer.status != self.check.status:
            self.wrong.append(f"{self.called} answered with status {answer.status}, expected {self.check.status}.")
            return
        if await self._visible(page, watch, first.url):
            await self._settled(watch)
        if address(page.url) != address(first.url):
            self.wrong.append(f"{self.called} goes on to {leads_to(page.url)}; expected that it stays.")
        for picture in filter(lambda url: is_own(url, self.place.origin), await page.evaluate(BROKEN)):
            self.wrong.append(f"{self.called} has a picture that cannot be drawn: {short(picture)}")
        frames = [frame for frame in page.frames if frame == page.main_frame or is_own(frame.url, self.place.origin)]
        text = "\n".join([await frame.evaluate(TEXT) for frame in frames])
        for pattern in filter(None, (*self.check.must_not_show, self.check.error_words)):
            if found := re.search(pattern, text):
                self.wrong.append(f"{self.called} shows what it must not, {pattern!r}: {short(found[0])}")

    async def _visible(self, page: Page, watch: Watch, url: str) -> bool:
        """Wait until the selector is visible; not for long once something has failed, or the page has moved on."""
        from playwright.async_api import Error

        selector, end = self.check.selector, self.until
        while True:
            try:
                if await page.locator(selector).locator("visible=true").count():
                    return True
            except Error as error:  # of a page that has just moved on, unless it is of the selector
                if "selector" in error.message.lower():
                    said = f"{selector!r} cannot be looked for: {short(error.message.splitlines()[0])}"
                    raise Unknown(said, "Give this check a selector of CSS in invoke.yaml.", definite=True) from None
            if self.wrong or address(page.url) != address(url):
                end = min(end, time.monotonic() + SOON)
            if time.monotonic() > end:
                break
            await asyncio.sleep(POLL)
        within = f" within {self.check.timeout:g} s" if end == self.until else ""
        there = "it is there, but hidden" if await page.locator(selector).count() else "there is none"
        slow = f"; it still waits for {watch.slow()}" if watch.pending else ""
        self.wrong.append(f"{self.called} does not show {selector}{within}: {there}{slow}.")
        return False

    async def _settled(self, watch: Watch) -> None:
        """Wait for the parts of the page that are still on their way, and a little for what its scripts ask for."""
        began = time.monotonic()
        while (now := time.monotonic()) < self.until:
            quiet = not watch.pending and now > max(watch.last, began) + QUIET
            if quiet or (now > began + LATE and not watch.lacks_parts()):
                return await asyncio.sleep(min(self.check.stay, self._left()))
            await asyncio.sleep(0.02)
        self.wrong.append(f"{self.called} is not loaded after {self.check.timeout:g} s: {watch.slow()}.")

    async def _keep(self, page: Page) -> str:
        """Keep a screenshot of the full page, and return its file's name."""
        path = f"-{self.number}-{safe(self.path[1:])}" if len(self.check.path) > 1 else ""
        name = f"{safe(self.name)}{path}-{self.size[0]}x{self.size[1]}{'-dark' * self.dark}.png"
        limit = max(self._left(), GRACE / 2) * 1000
        await page.screenshot(path=Path(self.place.kept) / name, full_page=True, animations="disabled", timeout=limit)
        return name

    def _left(self) -> float:
        return max(self.until - time.monotonic(), 0.001)


def safe(name: str) -> str:
    """Return `name` as a part of a file's name; the view "/" is called root."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-") or "root"
