"""A stand-in for a container engine's command line: `engine.py PROGRAM WORD…`.

Keeps what it was asked in `calls` beside PROGRAM and its containers in `boxes`. What a container
runs is the program `inside`. Standard library only: it is run as the real engine would be.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

PROGRAM = pathlib.Path(sys.argv[1])
BASE = PROGRAM.parent


def box(name: str) -> pathlib.Path:
    return BASE / "boxes" / name


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_of(name: str) -> int:
    try:
        return int((box(name) / "pid").read_text())
    except OSError:
        sys.exit(f"Error: No such container: {name}")


def end(name: str, number: signal.Signals) -> int:
    pid = pid_of(name)
    if alive(pid):
        os.killpg(pid, number)
    return pid


def put(path: pathlib.Path, text: str) -> None:
    """A file that is there is complete."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def contain(name: str, words: list[str]) -> None:
    """What the engine's daemon does: runs the program, and keeps how it ended."""
    with open(box(name) / "log", "wb") as log:
        process = subprocess.Popen(
            [BASE / "inside", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    put(box(name) / "pid", str(process.pid))
    status = process.wait()
    if box(name).exists():
        put(box(name) / "code", str(status if status >= 0 else 128 - status))


def run(words: list[str]) -> None:
    if (BASE / "refuse").exists():
        sys.stderr.write("Unable to find image locally: pull access denied\n")
        sys.exit(125)
    name = words[words.index("--name") + 1]
    if box(name).exists():
        sys.stderr.write("Conflict. The container name is already in use\n")
        sys.exit(125)
    box(name).mkdir(parents=True)
    # As the command line does: a name alone has its value in the caller's environment.
    given = [words[i + 1] for i, word in enumerate(words) if word == "--env"]
    pairs = (g.partition("=") for g in given)
    inside = {name: value if equal else os.environ[name] for name, equal, value in pairs}
    # Not a child of the caller's in any way that it could see: no session, no other environment.
    subprocess.Popen(
        [sys.executable, "-IS", __file__, PROGRAM, ".contain", name, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.environ["PATH"], **inside},
        start_new_session=True,
    )
    while not (box(name) / "pid").exists():
        time.sleep(0.01)
    print("f00df00d")


def wait(name: str) -> None:
    pid_of(name)
    while not (box(name) / "code").exists():
        time.sleep(0.02)
        if not box(name).exists():
            sys.exit(f"Error: No such container: {name}")
    print((box(name) / "code").read_text())


def stop(name: str, grace: int) -> None:
    pid = end(name, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    end(name, signal.SIGKILL)
    print(name)


def execute(name: str, words: list[str]) -> None:
    pid_of(name)
    payload = json.loads(words[-1])
    if payload.get("command") == "fail":
        print("cannot")
        sys.exit(3)
    print(json.dumps({"heard": payload, "by": words[:-1]}))


def main(words: list[str]) -> None:
    what, name = words[0], words[-1]
    match what:
        case ".contain":
            contain(words[1], words[words.index("media:1") + 1 :])
        case "run":
            run(words[1:])
        case "inspect":
            pid = pid_of(name)
            print(json.dumps({"Status": "any", "Running": alive(pid), "Pid": pid}))
        case "wait":
            wait(name)
        case "logs":
            follow = ["tail", "-n", "50", f"--pid={pid_of(name)}", "-s", "0.05", "-f"]
            os.execvp("tail", [*follow, str(box(name) / "log")])
        case "stop":
            stop(name, int(words[words.index("--time") + 1]))
        case "kill":
            end(name, signal.SIGKILL)
            print(name)
        case "rm":
            if box(name).exists():
                end(name, signal.SIGKILL)
                shutil.rmtree(box(name))
        case "exec":
            execute(words[1], words[2:])


if __name__ == "__main__":
    if sys.argv[2] != ".contain":
        with open(BASE / "calls", "a") as calls:
            calls.write(json.dumps([PROGRAM.name, *sys.argv[2:]]) + "\n")
    main(sys.argv[2:])
