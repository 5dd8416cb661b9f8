"""The working part of scripts/gpu-check: lists what a build has for GPUs, and runs it part by part. A part that breaks is a failed row;
the others go on. gpu_runner starts programs, gpu_results writes what they found.
"""
import argparse
import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import gpu_peers
import gpu_shapes
import gpu_tests
import gpu_worlds
import random_model
from gpu_results import Results, had_no_time, say
from gpu_runner import NO_TIME, SKIPPED, NoTimeLeft, Runner, outcome_of, output_of

ROOT = Path(__file__).resolve().parent.parent.parent
TEST_SECONDS, BENCH_SECONDS, DOCTOR_SECONDS = 600, 600, 120
ABSENT = re.compile(r"no NVIDIA driver|but no GPU")  # what doctor says where there is nothing to check


def fail(text):
    raise SystemExit(f"error: {text}")


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
    if changes := output_of(["git", "diff", "HEAD"], cwd=ROOT):  # which, so that results of others do not add up to one file
        commit += "+changes." + hashlib.sha256(changes.encode()).hexdigest()[:8]
    return {"commit": commit, "tests": tests, "benches": benches}


# ---- the parts ------------------------------------------------------------------------------------------------------------------------

class Check:
    """One run: what its parts need, and where their rows go."""

    def __init__(self, runner, arguments, host):
        self.runner, self.arguments, self.host = runner, arguments, host
        self.gpus = working_gpus(host)
        self.device = self.gpus[0].split(",")[0] if self.gpus else runner.device
        self.tests = tests_matching(runner, arguments.tests)
        self.cleanup = contextlib.ExitStack()
        self.results = Results(arguments.results, {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "device": self.device, "gpus": len(self.gpus),
            "commit": runner.manifest["commit"], "mpirun": runner.mpirun, "host": host})

    def add(self, section, row, output=""):
        self.results.add(section, row, output, self.runner.take_children())

    def skip(self, name, reason):
        """The row of what this machine lacks."""
        self.add("tests", {"name": name, "seconds": 0.0, "outcome": "skipped", "reason": reason})

    @functools.cached_property
    def worlds(self):
        """Made when a part needs it, since its folder may not be usable."""
        scratch = tempfile.mkdtemp(prefix="chorale-gpu-check-", dir=self.arguments.scratch)
        self.cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
        return gpu_worlds.Worlds(self.runner, Path(scratch), max(1, len(self.gpus)), has_nccl(self.runner, self.host), models=self.arguments.scratch)

    @functools.cached_property
    def shape(self):
        return self.arguments.shape or bench_shape(self.worlds, self.gpus)

    def add_bench(self, name, code, output, started, limit, command=()):
        """The row of a bench that ended, and the figures that it printed."""
        row = {"name": f"bench {name}", "seconds": round(time.monotonic() - started, 1), **outcome_of(code, output, limit)}
        figures = figures_in(output)
        if code == 0 and not figures:
            row.update(outcome="failed", reason="it printed no figures")
        elif row["outcome"] == "failed" and gpu_worlds.cannot_share(command, output):
            row.update(outcome="skipped", reason=gpu_worlds.CANNOT_SHARE)
        self.results.add_figures(name, figures, is_whole=code != NO_TIME)
        self.add("tests", row, output)


def figures_in(output):
    """The lines that are JSON objects or lists of them; all else is for people."""
    rows = []
    for line in output.splitlines():
        try:
            found = json.loads(line) if line.startswith(("{", "[{")) else []
        except ValueError:
            found = []
        rows += found if isinstance(found, list) else [found]
    return rows


def run_worlds(check):
    worlds = check.worlds
    for row, output in worlds.check(list(filter(None, check.arguments.layouts.split(","))) or worlds.layouts()):
        check.add("tests", row, output)
    if "nccl" not in worlds.backends:
        check.skip("worlds over NCCL", next((f["fact"] for f in check.host if f["subject"] == "NCCL"), "there is no NCCL"))


def run_kernel_benches(check):
    for bench in check.runner.manifest["benches"]:
        started = time.monotonic()
        code, output, _ = check.runner.run([*check.runner.program(["{build}/" + bench]), "--device", check.runner.device], BENCH_SECONDS)
        check.add_bench(Path(bench).name, code, output, started, BENCH_SECONDS)


def run_benches_of(kind):
    """The part that runs `chorale bench KIND`."""
    def part(check):
        for name, command, environment in getattr(check.worlds, f"bench_{kind}")(check.shape):
            started = time.monotonic()
            code, output, _ = check.runner.run(command, gpu_worlds.BENCH_SECONDS, environment)
            check.add_bench(name, code, output, started, gpu_worlds.BENCH_SECONDS, command)
    return part


def run_serve(check):
    shape, started = check.shape, time.monotonic()
    code, output = check.worlds.bench_serve(shape)
    check.add_bench("serve", code, output, started, gpu_worlds.BENCH_SECONDS)


PARTS = {  # in the order in which they run
    "tests": ("what ctest labels gpu and mpi", gpu_tests.run_tests),
    "sanitizer": ("the kernels' tests under compute-sanitizer", gpu_tests.run_sanitizers),
    "worlds": ("answers of several ranks against those of one, bit by bit", run_worlds),
    "shapes": ("one answer, and the CPU's, on models of real shapes", gpu_shapes.run_shapes),
    "kernels-bench": ("speed of single kernels", run_kernel_benches),
    "engine": ("bench engine on 1 rank and on each GPU", run_benches_of("engine")),
    "comm": ("bench comm of 2 and more ranks", run_benches_of("comm")),
    "scaling": ("bench scaling", run_benches_of("scaling")),
    "serve": ("bench serve against a server", run_serve),
    "peers": ("torch's attention, transformers and vLLM where they are installed", gpu_peers.run_peers),
}
GROUPS = {"benches": ("kernels-bench", "engine", "comm", "scaling", "serve")}


def parts_named(text, option):
    names = [name for given in filter(None, text.split(",")) for name in GROUPS.get(given, (given,))]
    if unknown := sorted(set(names) - set(PARTS)):
        fail(f"{option} {','.join(unknown)}: some of {', '.join([*PARTS, *GROUPS])}")
    return names


def run_part(check, name):
    """Runs it; what it throws is a row of its own, and the next part has its turn."""
    row, started = {"name": f"part {name}"}, time.monotonic()
    try:
        check.runner.go_on()
        PARTS[name][1](check)
        check.results.forget(row["name"])
        return
    except NoTimeLeft:
        row.update(outcome="skipped", reason=NO_TIME)
        said = ""
    except Exception as error:  # whatever it is, the others do not depend on it
        row.update(outcome="failed", reason=f"{type(error).__name__}: {error}"[:200])
        said = traceback.format_exc()
    check.add("tests", {**row, "seconds": round(time.monotonic() - started, 1)}, said)


# ---- a run ----------------------------------------------------------------------------------------------------------------------------

def working_gpus(findings):
    """What doctor says of each."""
    return [f["fact"] for f in findings if re.fullmatch(r"gpu \d+", f["subject"]) and f["verdict"] != "fail"]


def tests_matching(runner, expression):
    return [t for t in runner.manifest["tests"] if re.search(expression, t["name"])]


def ask_doctor(runner):
    """(what doctor says of GPUs and their libraries: [{verdict, subject, fact, advice}], why that is not enough or nothing)."""
    code, output, _ = runner.run([*runner.program(["{build}/chorale"]), "doctor", "--json", "--port", "0"], DOCTOR_SECONDS)
    lines = [line for line in output.splitlines() if line.startswith("[")]
    try:
        findings = [f for f in json.loads(lines[-1]) if f["subject"].startswith("gpu") or f["subject"] in ("cuBLASLt", "NCCL")]
        if working_gpus(findings) or runner.device != "cuda" and findings:
            return findings, ""
        why = "; ".join(f"{f['fact']}; {f['advice']}" for f in findings if f["subject"].startswith("gpu"))
    except (IndexError, KeyError, TypeError, ValueError):
        findings, why = [], ""
    return findings, why or outcome_of(code, output, DOCTOR_SECONDS).get("reason") or "it says nothing of GPUs"


def run(arguments):
    runner = Runner(arguments.manifest, arguments.device, arguments.seconds)
    skipped = parts_named(arguments.skip, "--skip")
    parts = [name for name in PARTS if name in (parts_named(arguments.only, "--only") or PARTS) and name not in skipped]
    if not parts:
        fail("--only and --skip leave no part")
    if wrong := [x for x in filter(None, arguments.layouts.split(",")) if not re.fullmatch(r"[1-9]\d?x[1-9]\d?", x)]:
        fail(f"--layouts {wrong[0]}: TPxPP, as in {','.join(gpu_worlds.LAYOUTS)}")
    if unknown := sorted(set(filter(None, arguments.shapes.split(","))) - set(random_model.SHAPES)):
        fail(f"--shapes {','.join(unknown)}: some of {', '.join(random_model.SHAPES)}")
    if missing := [path for path in arguments.models if not path.exists()]:
        fail(f"--models: there is no {missing[0]}")
    if "tests" in parts and not tests_matching(runner, arguments.tests):
        fail(f"no test of label gpu or mpi matches '{arguments.tests}'")
    started = time.monotonic()
    host, trouble = ask_doctor(runner)
    for finding in host:
        print(f"{finding['verdict']:<8} {finding['subject']:<10} {finding['fact']}", flush=True)
    if trouble and ABSENT.search(trouble):
        print(f"skipped: {trouble}")
        return SKIPPED
    try:
        check = Check(runner, arguments, host)
    except OSError as error:
        fail(f"cannot write results: {error}")
    results = check.results
    with check.cleanup:
        if trouble:
            row = {"name": "doctor", "seconds": round(time.monotonic() - started, 1), "outcome": "failed", "reason": trouble[:200]}
            check.add("tests", row, trouble)
        else:
            runner.take_children()
            results.forget("doctor")
        for name in parts:
            run_part(check, name)
    say(f"wrote {results.path('.json')} and .md")
    if undone := results.names_of(had_no_time):
        print(f"{NO_TIME}: {', '.join(undone)}")
    failed = results.names_of(lambda row: row["outcome"] == "failed")
    if failed:
        say(f"all that those printed: {results.path('-failures.log')}")
    print(results.verdict())
    return 1 if failed or not results.is_written else 0


def bench_shape(worlds, gpus):
    """The largest model of random weights for which there is room."""
    if worlds.runner.device != "cuda":
        return "tiny"
    memory = re.search(r"([0-9.]+) of [0-9.]+ GiB free", gpus[0]) if gpus else None
    if memory and float(memory.group(1)) < 24:
        return "1.1b"
    if not worlds.has_room("8b"):
        say(f"{worlds.models} has no room for the model 8b: taking 1.1b (--scratch names another folder)")
        return "1.1b"
    return "8b"


def has_nccl(runner, host):
    """Whether ranks can use it: doctor found it, or a stand-in for it is named for the emulator."""
    if runner.device != "cuda":
        return bool(os.environ.get("CHORALE_NCCL_PATH"))
    return any(f["subject"] == "NCCL" and f["verdict"] == "ok" for f in host)


def stop(number, frame):
    raise SystemExit(128 + number)  # by way of all that ends children and cleans up


def main():
    parser = argparse.ArgumentParser(prog="gpu-check")
    commands = parser.add_subparsers(dest="command", required=True)
    lister, packer = (commands.add_parser(name) for name in ("list", "pack"))
    # People know it as gpu-check: its messages name neither this command nor --manifest.
    starter = commands.add_parser("run", prog="gpu-check", usage="gpu-check [options]; --help lists them", formatter_class=argparse.RawDescriptionHelpFormatter, epilog="\n".join([
        "parts:", *(f"  {name:<14} {text}" for name, (text, _) in PARTS.items()), *(f"  {name:<14} {', '.join(of)}" for name, of in GROUPS.items()),
        "exit code: 0 nothing failed, 1 something did, 77 there is no GPU here"]))
    for each in (lister, packer, starter):
        each.add_argument("--manifest", type=Path, required=True, help=argparse.SUPPRESS)
    lister.add_argument("--build", type=Path, required=True)
    packer.add_argument("--into", type=Path, required=True)
    for each in (packer, starter):
        each.add_argument("--models", type=paths, default=[], help="checkpoints that shapes looks at besides random weights; a pack takes them along")
    starter.add_argument("--device", choices=("cuda", "emulator"), default="cuda", help="emulator tries this script without a GPU")
    starter.add_argument("--tests", default="", help="only the tests whose names match this expression")
    starter.add_argument("--only", default="", metavar="PARTS", help="these parts alone, comma-separated")
    starter.add_argument("--skip", default="", metavar="PARTS", help="all parts but these")
    starter.add_argument("--seconds", type=positive, help="limit of the whole run; what did not fit is skipped, and a later run adds it")
    starter.add_argument("--layouts", default="", help=f"TPxPP of the worlds to try (default: {','.join(gpu_worlds.LAYOUTS)})")
    starter.add_argument("--shape", choices=random_model.SHAPES, help="model of the benches; 8b, or tiny on the emulator")
    starter.add_argument("--shapes", default="", help="models of random weights that shapes looks at (default: 135m,1.1b,8b; tiny on the emulator)")
    starter.add_argument("--scratch", type=Path, help="where models are written, 19 GB for all, and kept (default: a temporary folder, which goes)")
    starter.add_argument("--results", type=Path, default=ROOT / "docs/results/gpu")
    arguments = parser.parse_args()
    if arguments.command == "list":
        arguments.manifest.write_text(json.dumps(list_build(arguments.build.resolve()), indent=1) + "\n")
        return 0
    if arguments.command == "pack":
        from gpu_pack import pack  # not carried
        pack(arguments.manifest.resolve(), arguments.into, arguments.models)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    return run(arguments)


def paths(text):
    return [Path(name).resolve() for name in filter(None, text.split(","))]


def positive(text):
    if not re.fullmatch(r"[1-9]\d{0,6}", text):
        raise argparse.ArgumentTypeError(f"a number of seconds, not '{text}'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
