"""Run as a program: a tree with a guardian and one process with a family, until it is killed.

Says on stdout which pids there are. Arguments: the instance and the boot.
"""

from __future__ import annotations

import json
import sys

import trio

from supervisor import log
from supervisor.orphans import Registry
from supervisor.process import Command, Process
from supervisor.service import Context
from supervisor.spec import ChildSpec
from tests.supervisor.kit import Does, Tree
from tests.supervisor.procs import FAMILY, Words


async def main() -> None:
    registry = Registry(sys.argv[1], int(sys.argv[2]))

    async def job(context: Context) -> None:
        words = Words()
        process = Process(Command(["sh", "-c", FAMILY], owner=context.path), registry, words)
        async with trio.open_nursery() as nursery:
            await nursery.start(process.run)
            await words.starting("ready")
            guard = tree.child("guardian").context
            assert guard is not None
            pids = {
                "guardian": guard.os_pid,
                "leader": process.pid,
                "in": int(await words.starting("in")),
                "out": int(await words.starting("out")),
                "started": process.started,
            }
            print(json.dumps(pids), flush=True)
            context.ready()

    tree = Tree([ChildSpec("guardian", registry.service), ChildSpec("job", lambda: Does(job))])
    await tree.run()


if __name__ == "__main__":
    log.configure("warning")
    trio.run(main)
