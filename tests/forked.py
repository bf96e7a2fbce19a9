"""Real processes that begin with everything imported: forked, at each order, from one that did so before.

A fresh interpreter spends 2.5 CPU seconds on imports before it does what a test of two processes is about. What is
forked here has a number, a session and a standard output of its own, and can be killed like any other process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PARENT = """
import json, os, select, sys, traceback

for name in sys.argv[1:]:
    __import__(name)


def run(order):
    os.setsid()
    for number, place in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["-c", *order["arguments"]]
    try:
        exec(compile(order["script"], "<script>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


print("ready", flush=True)
ended = {}
while True:
    if select.select([0], [], [], 0.02)[0]:
        line = sys.stdin.buffer.raw.readline()
        if not line:
            break
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run(order)
        ended[pid] = order["end"]
        print(pid, flush=True)
    while ended:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        with open(ended[pid] + ".partial", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        os.rename(ended[pid] + ".partial", ended.pop(pid))
"""


@dataclass(frozen=True)
class Forked:
    """A process that runs a script."""

    pid: int
    out: Path
    err: Path
    end: Path

    def poll(self) -> int | None:
        return int(self.end.read_text()) if self.end.exists() else None

    def wait(self, timeout: float = 240.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline, f"process {self.pid} has not ended: {self.err.read_text()}"
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = 240.0) -> tuple[str, str]:
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()


class Forks:
    """Starts processes in which some modules are imported already; for a `with` block."""

    def __init__(self, folder: Path, *modules: str) -> None:
        self._folder, self._number = folder, 0
        self._parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "ready"

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=60)

    def __call__(self, script: str, *arguments: str) -> Forked:
        """Run a script with arguments, as ``python -c`` would."""
        self._number += 1
        out, err, end = (self._folder / f"{self._number}.{kind}" for kind in ("out", "err", "end"))
        order = {"script": script, "arguments": arguments, "out": str(out), "err": str(err), "end": str(end)}
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(order) + "\n")
        self._parent.stdin.flush()
        return Forked(int(self._line()), out, err, end)

    def _line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().strip()
