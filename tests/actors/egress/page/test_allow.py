"""What the allow list does not have is not fetched, whoever asks for it. Real pages and sites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.actors.egress.page.kit import not_shown, seen, shown
from tests.actors.egress.page.site import Site


def only(*sites: Site) -> Callable[[str], bool]:
    """An allow list of these."""
    ports = tuple(f":{site.port}/" for site in sites)
    return lambda url: any(port in url for port in ports)


async def test_a_page_that_is_not_allowed_is_not_shown(
    tmp_path: Path, site: Site, elsewhere: Site
) -> None:
    why = await not_shown(tmp_path, elsewhere.url("/x?token=1"), allowed=only(site))
    assert why == f"the allow list does not have {elsewhere.url('/x')}"
    assert elsewhere.connections == 0


async def test_nor_one_that_it_redirects_to(tmp_path: Path, site: Site, elsewhere: Site) -> None:
    url = site.url(f"/redirect?{elsewhere.url('/x')}")
    why = await not_shown(tmp_path, url, allowed=only(site))
    assert why == f"{site.url('/redirect')} cannot be shown: the allow list does not have it"
    assert elsewhere.connections == 0


async def test_nothing_of_a_page_comes_from_elsewhere(
    tmp_path: Path, site: Site, elsewhere: Site
) -> None:
    """Images, frames, redirects, requests of scripts and workers, WebSockets, early connections."""
    other = elsewhere.url("/from")
    socket = other.replace("http", "ws")
    worker = f'fetch("{other}/worker").catch(() => postMessage(0));'
    url = site.page(
        f"""
        <link rel=preconnect href="{elsewhere.url("/", "localhost")}">
        <body style="background:#00ff00"><img src="{other}/image"><iframe src="{other}/frame">
        </iframe><script>onload = async () => {{
            const failed = [];
            for (const path of ['{other}/fetch', '/redirect?{other}/redirected'])
                await fetch(path).catch(() => failed.push('fetch'));
            navigator.sendBeacon('{other}/beacon', 'x');
            await new Promise(done => {{
                new WebSocket('{socket}/socket').onerror = () => {{ failed.push('ws'); done(); }};
            }});
            await new Promise(done => {{
                const code = new Blob([`{worker}`]);
                new Worker(URL.createObjectURL(code)).onmessage = done;
            }});
            failed.push('worker');
            const own = origin.replace('http', 'ws') + '/ws';
            await new Promise(done => {{ new WebSocket(own).onopen = done; }});
            console.log(failed.join());
        }}</script>
        """
    )
    async with shown(tmp_path, url, allowed=only(site)) as one:
        await one.says("fetch,fetch,ws,worker")
        assert elsewhere.connections == 0
        blocked = {(str(b["url"]).rpartition(":")[2], b["type"]) for b in one.told("blocked")}
        port = elsewhere.port
        assert {
            (f"{port}/from/image", "Image"),
            (f"{port}/from/frame", "Document"),
            (f"{port}/from/fetch", "XHR"),
            (f"{port}/from/redirected", "XHR"),
            (f"{port}/from/beacon", "Ping"),
            (f"{port}/from/worker", "XHR"),
            (f"{port}/", "WebSocket"),
        } <= blocked


async def test_where_a_page_may_not_go_it_stays(
    tmp_path: Path, site: Site, elsewhere: Site
) -> None:
    url = site.script(f"setTimeout(() => location = '{elsewhere.url('/x')}', 50)", "#00ff00")
    async with shown(tmp_path, url, allowed=only(site)) as one:
        assert await one.until("blocked") == [{"url": elsewhere.url("/x"), "type": "Document"}]
        await seen(one.page, lambda picture: picture.all_of("#00ff00"))
        assert one.outcome is None
        assert elsewhere.connections == 0
