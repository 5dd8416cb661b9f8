"""The working part of scripts/gpu-check: lists what a build has for GPUs, packs it to be carried, runs it, and writes the results."""
import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gpu_worlds
import random_model

ROOT = Path(__file__).resolve().parent.parent.parent
SKIPPED = 77
TEST_SECONDS, SANITIZER_SECONDS, BENCH_SECONDS = 600, 900, 600
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZER_FOUND = 86  # its exit code for findings, to be told from the test's own
REFUSED = re.compile(r"Device not supported|not supported on this (system|device)|Unable to find injection library", re.I)
PARTS = ("tests", "sanitizer", "worlds", "benches")
CARRIED = ("gpu_check.py", "gpu_worlds.py", "random_model.py")  # what a packed build needs of this folder


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def fail(text):
    raise SystemExit(f"error: {text}")


def output_of(command, seconds=60, **options):
    """Standard output, or nothing where the command is not here, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True, **options).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


# ---- what a build has -----------------------------------------------------------------------------------------------------------------

def list_build(build):
    """{commit, tests: [{name, command, environment, timeout}], benches: [path]}; in commands {build} stands for the folder of programs
    and {mpirun} for that program, so that they can be carried."""
    listing = output_of(["ctest", "--test-dir", str(build), "--show-only=json-v1", "-L", "^(gpu|mpi)$"], 300)
    if not listing:
        fail(f"ctest cannot list the tests of {build}")
    tests = []
    for entry in json.loads(listing)["tests"]:
        properties = {p["name"]: p["value"] for p in entry.get("properties", [])}
        command = [re.sub(f"^{re.escape(str(build))}/", "{build}/", part) for part in entry.get("command", ["?"])]
        if Path(command[0]).name == "mpirun":
            command[0] = "{mpirun}"
        tests.append({"name": entry["name"], "command": command, "timeout": properties.get("TIMEOUT", TEST_SECONDS),
                      "environment": dict(line.split("=", 1) for line in properties.get("ENVIRONMENT", []))})
    benches = sorted(str(p.relative_to(build)) for p in (build / "tests").glob("gpu_*_bench") if os.access(p, os.X_OK))
    commit = output_of(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT).strip() or "unknown"
    if output_of(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT).strip():
        commit += "+changes"
    return {"commit": commit, "tests": tests, "benches": benches}


def programs_of(manifest):
    """Paths in the build of all programs that the tests and benches start."""
    parts = [part for test in manifest["tests"] for part in test["command"]]
    return sorted({part.removeprefix("{build}/") for part in parts if part.startswith("{build}/")} | set(manifest["benches"]))


def pack(manifest_path, into):
    """A bundle (scripts/bundle) with tests, benches and this script in it: a machine needs python3 to run it, and nothing else."""
    import bundle as bundle_script  # not carried
    manifest, build = json.loads(manifest_path.read_text()), manifest_path.parent
    if into.exists() and not (into / "gpu-tests.json").exists() and any(into.iterdir()):
        fail(f"{into} holds other things; give a new folder")
    shutil.rmtree(into, ignore_errors=True)
    stay = [t["name"] for t in manifest["tests"] if Path(t["command"][0]).is_absolute()]
    if stay:
        say(f"not packed, since they start with a program of this host: {', '.join(stay)}")
    manifest["tests"] = [t for t in manifest["tests"] if t["name"] not in stay]
    bundle = bundle_script.Bundle(into)
    bundle_script.fill(bundle, build / "chorale", bundle_script.open_mpi())
    for program in programs_of(manifest):
        if not (build / program).exists():
            fail(f"{build / program} is not built")
        bundle.add_program(build / program, program)
    bundle.add_licences()
    glibc = bundle_script.verify(into)
    for name in CARRIED:
        bundle.add_file(ROOT / "scripts/lib" / name, into / "check" / name)
    (into / "gpu-check").write_text(PACKED_START)
    (into / "gpu-check").chmod(0o755)
    manifest["programs"] = "libexec"
    (into / "gpu-tests.json").write_text(json.dumps(manifest, indent=1) + "\n")
    say(f"{into}: {len(manifest['tests'])} tests, {len(manifest['benches'])} benches, {bundle_script.mib(bundle_script.size_of(into))}; "
        f"needs glibc {glibc[0]}.{glibc[1]} and python3; there run gpu-check")


PACKED_START = """#!/bin/sh
# Tests and measures this machine's GPUs with what lies here; --help tells more. Results go to the folder results, or where --results says.
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/check/gpu_check.py" run --manifest "$here/gpu-tests.json" --results "$here/results" "$@"
"""


# ---- running --------------------------------------------------------------------------------------------------------------------------

class Runner:
    def __init__(self, manifest_path, device):
        self.folder, self.device = manifest_path.resolve().parent, device
        self.manifest = json.loads(manifest_path.read_text())
        self.programs = self.folder / self.manifest.get("programs", ".")
        self.mpirun, self.base = "mpirun", dict(os.environ)
        if (start := self.folder / "bin/run").exists():  # a packed build: what its own Open MPI and libraries need
            self.mpirun = str(self.folder / "bin/mpirun")
            tell = [str(start), sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
            self.base = json.loads(output_of(tell) or fail(f"{start} does not run"))

    def environment(self, extra=()):
        return {**self.base, **dict(extra)}

    def program(self, command):
        """The command of a manifest, as it is called here."""
        return [part.replace("{build}", str(self.programs)).replace("{mpirun}", self.mpirun) for part in command]

    def run(self, command, seconds, extra=()):
        """(exit code or None at the time limit, standard error and then output, seconds). Apart, so that neither cuts lines of the other."""
        start = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL, env=self.environment(extra))
            return done.returncode, (done.stderr + done.stdout).decode(errors="replace"), time.monotonic() - start
        except subprocess.TimeoutExpired as late:
            return None, ((late.stderr or b"") + (late.stdout or b"")).decode(errors="replace"), time.monotonic() - start
        except OSError as error:
            return 127, str(error), time.monotonic() - start

    def test(self, test, prefix=(), seconds=None):
        extra = {**test["environment"], "CHORALE_TEST_DEVICE": self.device}
        code, output, took = self.run([*prefix, *self.program(test["command"])], seconds or test["timeout"], extra)
        return code, output, {"name": test["name"], "seconds": round(took, 1)}


def last_line(output):
    """What a program said last, or its last line with "error:", behind which mpirun prints its own."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -")]
    errors = [line for line in lines if re.match(r"(\S+ )?error:", line)]
    return (errors or lines or [""])[-1][:200]


def report(row, output=""):
    print(f"{row['outcome']:<8} {row.get('tool', ''):<10} {row['name']:<32} {row['seconds']:>7} s  {row.get('reason', '')}", flush=True)
    if row["outcome"] == "failed":
        print("\n".join("    " + line for line in output.splitlines()[-40:]), flush=True)


def run_tests(runner, tests):
    rows = []
    for test in tests:
        code, output, row = runner.test(test)
        row["outcome"] = "passed" if code == 0 else "skipped" if code == SKIPPED else "failed"
        if code is None:
            row["reason"] = f"not done after {test['timeout']} s"
        elif code != 0:
            row["reason"] = last_line(output)
        report(row, output)
        rows.append(row)
    return rows


def find_sanitizer():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [Path(home) / folder / "compute-sanitizer" for home in filter(None, homes) for folder in ("bin", "compute-sanitizer")]
    return next((str(p) for p in [shutil.which("compute-sanitizer"), *places] if p and os.access(p, os.X_OK)), None)


def run_sanitizers(runner, tests):
    sanitizer = find_sanitizer()
    if sanitizer is None:
        say("compute-sanitizer is not here (package cuda-sanitizer): left out")
        return []
    rows = []
    for tool in SANITIZERS:
        for test in tests:
            prefix = [sanitizer, "--tool", tool, "--error-exitcode", str(SANITIZER_FOUND)]
            if tool == "memcheck":
                prefix += ["--report-api-errors", "no"]  # the program checks its calls, and polls until "not ready" ends
            code, output, row = runner.test(test, prefix, SANITIZER_SECONDS)
            row.update(tool=tool, outcome="passed" if code == 0 else "failed")
            if code is None:
                row["reason"] = f"not done after {SANITIZER_SECONDS} s"
            elif code != 0 and REFUSED.search(output):
                row.update(outcome="skipped", reason="the tool refuses this machine")
            elif code == SKIPPED:
                row.update(outcome="skipped", reason=last_line(output))
            elif code != 0:
                row["reason"] = last_line(output)
            report(row, output)
            rows.append(row)
    return rows


def rows_in(bench, output):
    """The lines that are JSON objects or lists of them; all else is for people."""
    rows = []
    for line in output.splitlines():
        try:
            found = json.loads(line) if line.startswith(("{", "[{")) else []
        except ValueError:
            found = []
        rows += [{"bench": bench, **row} for row in (found if isinstance(found, list) else [found])]
    return rows


def run_worlds(worlds, layouts):
    rows = []
    for row, output in worlds.check(layouts, last_line):
        report(row, output)
        rows.append(row)
    return rows


def run_world_benches(runner, worlds, shape):
    rows, outcomes = [], []

    def note(name, code, output, started):
        outcome = {"name": f"bench {name}", "seconds": round(time.monotonic() - started, 1), "outcome": "passed"}
        found = rows_in(name, output)
        if code != 0 or not found:
            outcome.update(outcome="failed", reason="not done in time" if code is None else last_line(output) if code else "it printed no rows")
        report(outcome, output)
        outcomes.append(outcome)
        rows.extend(found)

    for name, command, environment in worlds.bench(shape):
        started = time.monotonic()
        code, output, _ = runner.run(command, gpu_worlds.BENCH_SECONDS, environment)
        note(name, code, output, started)
    started = time.monotonic()
    note("serve", *worlds.bench_serve(shape), started)
    return outcomes, rows


def run_benches(runner, benches):
    rows, outcomes = [], []
    for bench in benches:
        name = Path(bench).name
        code, output, seconds = runner.run([*runner.program(["{build}/" + bench]), "--device", runner.device], BENCH_SECONDS)
        outcome = {"name": name, "seconds": round(seconds, 1), "outcome": "passed" if code == 0 else "failed"}
        if code != 0:
            outcome["reason"] = f"not done after {BENCH_SECONDS} s" if code is None else last_line(output)
        rows += rows_in(name, output)
        report(outcome, output)
        outcomes.append(outcome)
    return outcomes, rows


def gpu_findings(runner):
    """What doctor says of GPUs and their libraries: [{verdict, subject, fact, advice}]."""
    _, output, _ = runner.run([*runner.program(["{build}/chorale"]), "doctor", "--json", "--port", "0"], 120)
    lines = [line for line in output.splitlines() if line.startswith("[")]
    findings = json.loads(lines[-1]) if lines else []
    return [f for f in findings if f["subject"].startswith("gpu") or f["subject"] in ("cuBLASLt", "NCCL")]


# ---- results --------------------------------------------------------------------------------------------------------------------------

def cell(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/")


def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def markdown(results):
    parts = [f"# GPU check: {results['device']}, {results['date']}",
             f"`scripts/gpu-check` at commit {results['commit']}. Exact values stand in the JSON file beside this one.",
             table(results["host"], ["subject", "fact"])]
    if results["benches"]:
        parts.append("## Benches")
        for name in dict.fromkeys(row["bench"] for row in results["benches"]):
            rows = [{k: v for k, v in row.items() if k != "bench"} for row in results["benches"] if row["bench"] == name]
            parts += [f"`{name}`", table(rows, list(dict.fromkeys(key for row in rows for key in row if row[key] is not None)))]
    parts += ["## Tests", table(results["tests"], ["name", "outcome", "seconds", "reason"])]
    if results["sanitizer"]:
        parts += ["## compute-sanitizer", table(results["sanitizer"], ["tool", "name", "outcome", "seconds", "reason"])]
    return "\n\n".join(parts) + "\n"


def write(results, folder):
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", results["device"].lower()).strip("-") or "unknown"
    stem = folder / f"{results['date']}-{slug}"
    stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(results))
    say(f"wrote {stem}.json and .md")


def run(arguments):
    runner = Runner(arguments.manifest, arguments.device)
    skip = set(filter(None, arguments.skip.split(",")))
    if unknown := skip - set(PARTS):
        fail(f"--skip {','.join(sorted(unknown))}: some of {', '.join(PARTS)}")
    layouts = list(filter(None, arguments.layouts.split(",")))
    if wrong := [layout for layout in layouts if not re.fullmatch(r"[1-9]\d?x[1-9]\d?", layout)]:
        fail(f"--layouts {wrong[0]}: TPxPP, as in {','.join(gpu_worlds.LAYOUTS)}")
    tests = [t for t in runner.manifest["tests"] if re.search(arguments.tests, t["name"])]
    if not tests and "tests" not in skip:
        fail(f"no test of label gpu or mpi matches '{arguments.tests}'")
    host = gpu_findings(runner)
    for finding in host:
        print(f"{finding['verdict']:<8} {finding['subject']:<10} {finding['fact']}", flush=True)
    gpus = [f["fact"] for f in host if re.fullmatch(r"gpu \d+", f["subject"])]
    device = gpus[0].split(",")[0] if gpus else arguments.device
    if arguments.device == "cuda" and not gpus:
        print("skipped: " + (host[0]["fact"] + "; " + host[0]["advice"] if host else "doctor found no GPU"))
        return SKIPPED
    rows = [] if "tests" in skip else run_tests(runner, tests)
    kernels = [t for t in tests if Path(t["command"][0]).name == "worker_tests"]
    checked = [] if "sanitizer" in skip or arguments.device != "cuda" else run_sanitizers(runner, kernels)
    outcomes, bench_rows = ([], []) if "benches" in skip else run_benches(runner, runner.manifest["benches"])
    with tempfile.TemporaryDirectory(prefix="chorale-gpu-check-", dir=arguments.scratch) as scratch:
        worlds = gpu_worlds.Worlds(runner, Path(scratch), max(1, len(gpus)), has_nccl(runner, host))
        if "worlds" not in skip:
            rows += run_worlds(worlds, layouts or worlds.layouts())
        if "benches" not in skip:
            more, more_rows = run_world_benches(runner, worlds, arguments.shape or bench_shape(worlds, gpus))
            outcomes, bench_rows = outcomes + more, bench_rows + more_rows
    write({"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "device": device, "gpus": len(gpus),
           "commit": runner.manifest["commit"], "mpirun": runner.mpirun, "host": host, "tests": rows + outcomes, "sanitizer": checked,
           "benches": bench_rows}, arguments.results)
    failed = [row["name"] for row in rows + checked + outcomes if row["outcome"] == "failed"]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def bench_shape(worlds, gpus):
    """The largest model of random weights for which there is room."""
    if worlds.runner.device != "cuda":
        return "tiny"
    memory = re.search(r"([0-9.]+) of [0-9.]+ GiB free", gpus[0])
    if memory and float(memory.group(1)) < 24:
        return "1.1b"
    if not worlds.room_for("8b"):
        say(f"{worlds.folder} has no room for the model 8b: taking 1.1b (--scratch names another folder)")
        return "1.1b"
    return "8b"


def has_nccl(runner, host):
    """Whether ranks can use it: doctor found it, or a stand-in for it is named for the emulator."""
    if runner.device != "cuda":
        return bool(os.environ.get("CHORALE_NCCL_PATH"))
    return any(f["subject"] == "NCCL" and f["verdict"] == "ok" for f in host)


def main():
    parser = argparse.ArgumentParser(prog="gpu-check")
    commands = parser.add_subparsers(dest="command", required=True)
    lister, packer, starter = (commands.add_parser(name) for name in ("list", "pack", "run"))
    for each in (lister, packer, starter):
        each.add_argument("--manifest", type=Path, required=True)
    lister.add_argument("--build", type=Path, required=True)
    packer.add_argument("--into", type=Path, required=True)
    starter.add_argument("--device", choices=("cuda", "emulator"), default="cuda", help="emulator tries this script without a GPU")
    starter.add_argument("--tests", default="", help="only the tests whose names match this expression")
    starter.add_argument("--skip", default="", help=f"some of {','.join(PARTS)}")
    starter.add_argument("--layouts", default="", help=f"TPxPP of the worlds to try (default: {','.join(gpu_worlds.LAYOUTS)})")
    starter.add_argument("--shape", choices=random_model.SHAPES, help="model of the benches; 8b, or tiny on the emulator")
    starter.add_argument("--scratch", type=Path, help="where models are written: 16 GB for 8b (default: the system's temporary folder)")
    starter.add_argument("--results", type=Path, default=ROOT / "docs/results/gpu")
    arguments = parser.parse_args()
    if arguments.command == "list":
        arguments.manifest.write_text(json.dumps(list_build(arguments.build.resolve()), indent=1) + "\n")
        return 0
    if arguments.command == "pack":
        pack(arguments.manifest.resolve(), arguments.into)
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
