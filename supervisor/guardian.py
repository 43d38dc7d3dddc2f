"""The guardian: a second process that outlives a killed appliance by a moment.

The appliance tells it, on its standard input, of each process group it starts (`+PID START`) and
sees end (`-PID`). When that pipe closes without a farewell (`bye`), the appliance was killed:
every group still on the list is killed, and the guardian ends. Standard library only, and no
import of ours: it must be small, start fast, and have nothing that can fail.

Run as a script: `python -I -S guardian.py MARKER`.
"""

import os
import signal
import sys
from collections.abc import Iterable

# A process may fork between our look and its end; one that was killed forks no more.
PASSES = 4


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process (proc(5), field 22); None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def members(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] != b"Z" and int(fields[2]) == group:
                found.append(int(name))
    return found


def marked(pid: int, marker: bytes) -> bool:
    """Does its environment carry our marker? It then came from us, whatever its group."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False


def end_group(pid: int, started: int, marker: bytes) -> None:
    """Kill a group if it is still the one that was told of: same leader, or marked members."""
    same = start_time(pid) == started
    for _ in range(PASSES):
        if not kill(m for m in members(pid) if same or marked(m, marker)):
            return


def end_marked(marker: bytes) -> None:
    """Kill what left its group but still carries our marker."""
    for _ in range(PASSES):
        others = (int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid())
        if not kill(pid for pid in others if marked(pid, marker)):
            return


def kill(pids: Iterable[int]) -> int:
    """Kill these; how many there were."""
    count = 0
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
        count += 1
    return count


def main() -> None:
    """Listen until the pipe closes."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    marker = sys.argv[1].encode()
    groups: dict[int, int] = {}
    for line in sys.stdin.buffer:
        word = line.strip()
        if word == b"bye":
            return
        if word[:1] == b"+":
            pid, started = word[1:].split()
            groups[int(pid)] = int(started)
        elif word[:1] == b"-":
            groups.pop(int(word[1:]), None)
    for pid, started in groups.items():
        end_group(pid, started, marker)
    end_marked(marker)


if __name__ == "__main__":
    main()
