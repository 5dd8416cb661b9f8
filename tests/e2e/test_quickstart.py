"""scripts/quickstart: from a checkout to a streamed answer of a real 4-rank cluster, and a clean end."""
import os
import re
import subprocess

import pytest
from conftest import CHORALE, ROOT

pytestmark = pytest.mark.skipif(CHORALE != ROOT / "build/release/chorale", reason="quickstart builds and uses build/release")


def quickstart(*args):
    return subprocess.run([ROOT / "scripts/quickstart", *args], capture_output=True, text=True, timeout=800,
                          stdin=subprocess.DEVNULL, env=os.environ)


def test_streams_an_answer_and_shuts_down(smollm2):
    done = quickstart("--prompt", "What is the capital of France?", "--model", smollm2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Paris" in done.stdout
    assert re.search(r"[0-9.]+ tokens/s", done.stderr) and "first token" in done.stderr
    for rank in range(4):  # the shard map names every rank
        assert re.search(rf"^\s*{rank}\s", done.stdout, re.MULTILINE), done.stdout
    assert subprocess.run(["pgrep", "-f", f"{CHORALE} serve"], capture_output=True).stdout == b""


@pytest.mark.parametrize("arguments", [["--tp", "two"], ["--ranks", "3"], ["--bogus"], ["--prompt"], ["--cuda", "maybe"]])
def test_usage_errors(arguments):
    done = quickstart(*arguments)
    assert done.returncode in (1, 2) and "error" in done.stderr


def test_help():
    done = quickstart("--help")
    assert done.returncode == 0 and "--prompt" in done.stdout and "examples" in done.stdout
