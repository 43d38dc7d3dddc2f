"""Run as a program: a tree with a guardian and a page, until it is killed.

Says on stdout which process groups there are. Arguments: the instance, a folder, an address.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from actors.egress.page import Page, PageRequest
from supervisor import log
from supervisor.orphans import Registry
from supervisor.service import Context
from supervisor.spec import ChildSpec
from tests.actors.egress.page.kit import everything
from tests.supervisor.kit import Does, Tree


async def main() -> None:
    registry = Registry(sys.argv[1], 1)
    wanted = PageRequest(sys.argv[3], 320, 180)

    async def job(context: Context) -> None:
        folder = Path(sys.argv[2])
        page = Page(wanted, folder, registry, context.path, everything, lambda _: None)
        async with trio.open_nursery() as nursery:
            await nursery.start(page.run)
            print(json.dumps({"groups": page.groups}), flush=True)
            context.ready()

    tree = Tree([ChildSpec("guardian", registry.service), ChildSpec("job", lambda: Does(job))])
    await tree.run()


if __name__ == "__main__":
    log.configure("warning")
    trio.run(main)
