"""Starts programs for scripts/gpu-check: each has a time limit inside that of the whole run, and nothing that it started outlives it."""
import contextlib
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

NO_TIME = "no time left"  # the exit code, and the reason, of what the whole run's limit kept from starting or from ending
SKIPPED = 77              # a test's exit code where what it needs is not here
MARGIN_SECONDS = 10       # of the run's limit, kept for ending children and writing results
LEAST_SECONDS = 1         # with less than this left nothing is started
TERM_SECONDS, KILL_SECONDS = 3, 10
# In the environment of all that is started. mpirun puts each rank into a process group of its own, so that a group does not name all.
MARK = "CHORALE_GPU_CHECK_CHILD"


class NoTimeLeft(Exception):
    """The run's limit is reached."""


class Child(NamedTuple):
    """A program that ended, for the log of failures."""
    command: list
    extra: dict  # environment
    code: object
    seconds: float
    stdout: str
    stderr: str


def output_of(command, seconds=60, **options):
    """Standard output, or nothing where the command is not here, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True, **options).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def last_line(output):
    """What a program said last, or its last line with "error:", behind which mpirun prints its own."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -")]
    errors = [line for line in lines if re.match(r"(\S+ )?error:", line)]
    return (errors or lines or [""])[-1][:200]


def outcome_of(code, output, seconds, skip_code=None):
    """The outcome, and its reason, of a program whose own limit was `seconds`: what a row has besides its name and time."""
    if code == 0:
        return {"outcome": "passed"}
    if code is None:
        return {"outcome": "failed", "reason": f"not done after {seconds:g} s"}
    if code == NO_TIME:
        return {"outcome": "skipped", "reason": NO_TIME}
    said = last_line(output)
    if code == skip_code:
        return {"outcome": "skipped", "reason": said}
    return {"outcome": "failed", "reason": said or f"exit code {code}"}


def marked_with(mark):
    """Ids of the processes that have it in their environment, wherever they went."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def end_marked(mark):
    deadline = time.monotonic() + KILL_SECONDS
    while (found := marked_with(mark)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)  # until the kernel has taken them away, which the loop asks


class Runner:
    """Programs of the build that `manifest_path` lists, on `device`, for at most `seconds` in all (None: as long as it takes)."""

    def __init__(self, manifest_path, device, seconds=None):
        self.folder, self.device = manifest_path.resolve().parent, device
        self.deadline = None if seconds is None else time.monotonic() + seconds - min(MARGIN_SECONDS, seconds / 10)
        self.manifest = json.loads(manifest_path.read_text())
        self.programs = self.folder / self.manifest.get("programs", ".")
        self.mpirun, self.base = "mpirun", dict(os.environ)
        self.children = []  # that ended since the last row was added
        self.marks = (f"{os.getpid()}-{number}" for number in itertools.count(1))
        if (start := self.folder / "bin/run").exists():  # a packed build: what its own Open MPI and libraries need
            self.mpirun = str(self.folder / "bin/mpirun")
            tell = output_of([str(start), sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"])
            if not tell:
                raise SystemExit(f"error: {start} does not run")
            self.base = json.loads(tell)

    def environment(self, extra=()):
        return {**self.base, **dict(extra)}

    def program(self, command):
        """The command of a manifest, as it is called here."""
        return [part.replace("{build}", str(self.programs)).replace("{mpirun}", self.mpirun) for part in command]

    def left(self):
        """Seconds of the run's limit."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def go_on(self):
        """Throws where the run's limit is reached: before work of this process, and within it where it is long."""
        if self.left() < LEAST_SECONDS:
            raise NoTimeLeft(NO_TIME)

    def start(self, command, extra=(), **streams):
        """A process whose attribute `mark` names all that it will start; end() must follow."""
        mark = next(self.marks)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**self.environment(extra), MARK: mark}, start_new_session=True, **streams)
        process.mark = mark
        return process

    @staticmethod
    def end(process):
        """Ends it and all that it started: mpirun first, which then cleans up after itself."""
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_SECONDS)
        if process.poll() is None:  # not yet waited for, so its id is its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        end_marked(process.mark)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)

    def run(self, command, seconds, extra=()):
        """(exit code, standard error and then output, seconds). Apart, so that neither cuts lines of the other. The code is None at the
        command's own limit and NO_TIME where that of the run came first."""
        begun, allowed = time.monotonic(), min(seconds, self.left())
        if allowed < min(seconds, LEAST_SECONDS):
            return NO_TIME, "", 0.0
        try:
            process = self.start(command, extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            return self.ended(Child(command, dict(extra), 127, 0.0, "", str(error)))
        try:
            stdout, stderr = process.communicate(timeout=allowed)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = None if allowed == seconds else NO_TIME
            self.end(process)
            try:
                stdout, stderr = process.communicate(timeout=KILL_SECONDS)
            except subprocess.TimeoutExpired as late:
                stdout, stderr = late.stdout or b"", late.stderr or b""
        finally:
            self.end(process)
        return self.ended(Child(command, dict(extra), code, time.monotonic() - begun, stdout.decode(errors="replace"), stderr.decode(errors="replace")))

    def ended(self, child):
        self.children.append(child)
        return child.code, child.stderr + child.stdout, child.seconds

    def take_children(self):
        """Those that ended since the last call."""
        taken, self.children = self.children, []
        return taken
