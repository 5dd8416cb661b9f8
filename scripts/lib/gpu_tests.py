"""The part of scripts/gpu-check that runs tests: what ctest labels gpu and mpi, a failed suite's cases one by one, compute-sanitizer."""
import os
import re
import shutil
import time
from pathlib import Path

from gpu_runner import SKIPPED, outcome_of

SUITE_SECONDS = 120  # of a suite on a GPU at most; the emulator takes what the manifest says
CASE_SECONDS, CASES_SECONDS, LIST_SECONDS = 60, 180, 30  # of one case of a failed suite, and of all of them
SANITIZER_SECONDS = 900
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZER_FOUND = 86  # its exit code for findings, to be told from the test's own
REFUSED = re.compile(r"Device not supported|not supported on this (system|device)|Unable to find injection library", re.I)


def run_test(runner, test, seconds, prefix=(), arguments=None):
    command = [*prefix, *runner.program(test["command"] if arguments is None else arguments)]
    return runner.run(command, seconds, {**test["environment"], "CHORALE_TEST_DEVICE": runner.device})


def run_tests(check):
    for test in check.tests:
        limit = min(test["timeout"], SUITE_SECONDS) if check.runner.device == "cuda" else test["timeout"]
        code, output, took = run_test(check.runner, test, limit)
        row = {"name": test["name"], "seconds": round(took, 1), **outcome_of(code, output, limit, SKIPPED)}
        check.add("tests", row, output)
        if row["outcome"] == "failed":
            run_cases(check, test, output)


def cases_in(listing):
    """Full names in the output of --gtest_list_tests."""
    suite, cases = "", []
    for line in listing.splitlines():
        if found := re.match(r"(\S+\.)(\s+#.*)?$", line):
            suite = found.group(1)
        elif suite and (found := re.match(r"  (\S+)", line)) and "DISABLED_" not in suite + found.group(1):
            cases.append(suite + found.group(1))
    return cases


def run_cases(check, test, output):
    """The cases that did not pass with their suite, each in a process of its own: an error that sticks to a CUDA context fails all that
    follow it."""
    if not any(part.startswith("--gtest_filter=") for part in test["command"]):
        return
    passed = set(re.findall(r"^\[       OK \] ([^\s,]+)", output, re.M))
    code, listing, _ = run_test(check.runner, test, LIST_SECONDS, arguments=[*test["command"], "--gtest_list_tests"])
    until = time.monotonic() + CASES_SECONDS
    for case in cases_in(listing) if code == 0 else ():
        if case in passed:
            continue
        row = {"name": f"{test['name']}: {case}", "of": test["name"], "seconds": 0.0}
        limit, said = min(CASE_SECONDS, until - time.monotonic()), ""
        if limit <= 0:
            row.update(outcome="skipped", reason=f"the {CASES_SECONDS} s for single cases of a suite are over")
        else:
            alone = [f"--gtest_filter={case}" if part.startswith("--gtest_filter=") else part for part in test["command"]]
            code, said, took = run_test(check.runner, test, limit, arguments=alone)
            row.update(seconds=round(took, 1), **outcome_of(code, said, limit, SKIPPED))
        check.add("tests", row, said)


def find_sanitizer():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [Path(home) / folder / "compute-sanitizer" for home in filter(None, homes) for folder in ("bin", "compute-sanitizer")]
    return next((str(p) for p in [shutil.which("compute-sanitizer"), *places] if p and os.access(p, os.X_OK)), None)


def run_sanitizers(check):
    """All its tools over the kernels' tests."""
    if check.runner.device != "cuda":
        return check.skip("compute-sanitizer", "it looks at GPUs")
    sanitizer = find_sanitizer()
    if sanitizer is None:
        return check.skip("compute-sanitizer", "it is not here (package cuda-sanitizer of the CUDA toolkit)")
    for tool in SANITIZERS:
        for test in check.tests:
            if Path(test["command"][0]).name != "worker_tests":
                continue
            prefix = [sanitizer, "--tool", tool, "--error-exitcode", str(SANITIZER_FOUND)]
            if tool == "memcheck":
                prefix += ["--report-api-errors", "no"]  # the program checks its calls, and polls until "not ready" ends
            code, output, took = run_test(check.runner, test, SANITIZER_SECONDS, prefix)
            row = {"tool": tool, "name": test["name"], "seconds": round(took, 1), **outcome_of(code, output, SANITIZER_SECONDS, SKIPPED)}
            if row["outcome"] == "failed" and code is not None and REFUSED.search(output):
                row.update(outcome="skipped", reason="the tool refuses this machine")
            check.add("sanitizer", row, output)
