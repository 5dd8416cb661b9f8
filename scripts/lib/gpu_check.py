"""The working part of scripts/gpu-check: lists what a build has for GPUs, packs it to be carried, runs it, and writes the results."""
import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SKIPPED = 77
TEST_SECONDS, SANITIZER_SECONDS, BENCH_SECONDS = 600, 900, 600
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZER_FOUND = 86  # its exit code for findings, to be told from the test's own
REFUSED = re.compile(r"Device not supported|not supported on this (system|device)|Unable to find injection library", re.I)
# Of every host with a C++ program: packing them would hide newer ones that the host's own tools need.
NOT_PACKED = re.compile(r"^(ld-linux|libc\.|libm\.|libpthread|libdl|librt|libresolv|libstdc\+\+|libgcc_s|libcuda\.|libnvidia)")


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
    """{commit, tests: [{name, command, environment, timeout}], benches: [path], chorale: path}; programs relative to `build`."""
    listing = output_of(["ctest", "--test-dir", str(build), "--show-only=json-v1", "-L", "^gpu$"], 300)
    if not listing:
        fail(f"ctest cannot list the tests of {build}")
    tests = []
    for entry in json.loads(listing)["tests"]:
        properties = {p["name"]: p["value"] for p in entry.get("properties", [])}
        program = Path(entry.get("command", ["?"])[0])
        tests.append({
            "name": entry["name"],
            "command": [str(program.relative_to(build)) if program.is_relative_to(build) else str(program), *entry["command"][1:]],
            "environment": dict(line.split("=", 1) for line in properties.get("ENVIRONMENT", [])),
            "timeout": properties.get("TIMEOUT", TEST_SECONDS)})
    benches = sorted(str(p.relative_to(build)) for p in (build / "tests").glob("gpu_*_bench") if os.access(p, os.X_OK))
    commit = output_of(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT).strip() or "unknown"
    if output_of(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT).strip():
        commit += "+changes"
    return {"commit": commit, "tests": tests, "benches": benches, "chorale": "chorale"}


def libraries_of(program):
    """Paths of the shared libraries it needs, less those that every host has."""
    for line in output_of(["ldd", str(program)]).splitlines():
        match = re.match(r"\s*(\S+) => (\S+)", line)
        if match and match.group(2) == "not":
            fail(f"{program} needs {match.group(1)}, which is not here")
        if match and not NOT_PACKED.match(match.group(1)):
            yield Path(match.group(2))


def pack(manifest_path, into):
    manifest, build = json.loads(manifest_path.read_text()), manifest_path.parent
    if into.exists() and not (into / "gpu-tests.json").exists() and any(into.iterdir()):
        fail(f"{into} holds other things; give a new folder")
    shutil.rmtree(into, ignore_errors=True)
    (into / "lib").mkdir(parents=True)
    stay = [t["name"] for t in manifest["tests"] if Path(t["command"][0]).is_absolute()]
    if stay:
        say(f"not packed, since they start with a program of this host: {', '.join(stay)}")
    manifest["tests"] = [t for t in manifest["tests"] if t["name"] not in stay]
    programs = sorted({t["command"][0] for t in manifest["tests"]} | set(manifest["benches"]) | {manifest["chorale"]})
    for program in programs:
        target = into / program
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(build / program, target)
        output_of(["strip", str(target)])
        for library in libraries_of(build / program):
            if not (into / "lib" / library.name).exists():
                shutil.copy2(library.resolve(), into / "lib" / library.name)
    (into / "gpu-tests.json").write_text(json.dumps(manifest, indent=1) + "\n")
    mib = sum(p.stat().st_size for p in into.rglob("*") if p.is_file()) / 2**20
    say(f"{into}: {len(manifest['tests'])} tests, {len(manifest['benches'])} benches, {mib:.0f} MiB")


# ---- running --------------------------------------------------------------------------------------------------------------------------

class Runner:
    def __init__(self, manifest_path, device):
        self.folder, self.device = manifest_path.resolve().parent, device
        self.manifest = json.loads(manifest_path.read_text())

    def environment(self, extra=()):
        environment = {**os.environ, **dict(extra)}
        if (self.folder / "lib").is_dir():  # a packed build brings its libraries
            environment["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(self.folder / "lib"), environment.get("LD_LIBRARY_PATH")]))
        return environment

    def program(self, command):
        return [str(self.folder / command[0]), *command[1:]]  # an absolute path stays as it is

    def run(self, command, seconds, extra=()):
        """(exit code or None at the time limit, output, seconds)"""
        start = time.monotonic()
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, env=self.environment(extra))
            return done.returncode, done.stdout.decode(errors="replace"), time.monotonic() - start
        except subprocess.TimeoutExpired as late:
            return None, (late.stdout or b"").decode(errors="replace"), time.monotonic() - start
        except OSError as error:
            return 127, str(error), time.monotonic() - start

    def test(self, test, prefix=(), seconds=None):
        extra = {**test["environment"], "CHORALE_TEST_DEVICE": self.device}
        code, output, took = self.run([*prefix, *self.program(test["command"])], seconds or test["timeout"], extra)
        return code, output, {"name": test["name"], "seconds": round(took, 1)}


def last_line(output):
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


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


def run_benches(runner, benches):
    """Rows are the lines of standard output that are JSON objects; all else is for people."""
    rows, outcomes = [], []
    for bench in benches:
        name = Path(bench).name
        code, output, seconds = runner.run([*runner.program([bench]), "--device", runner.device], BENCH_SECONDS)
        outcome = {"name": name, "seconds": round(seconds, 1), "outcome": "passed" if code == 0 else "failed"}
        if code != 0:
            outcome["reason"] = f"not done after {BENCH_SECONDS} s" if code is None else last_line(output)
        for line in output.splitlines():
            try:
                row = json.loads(line) if line.startswith("{") else None
            except ValueError:
                row = None
            if row is not None:
                rows.append({"bench": name, **row})
        report(outcome, output)
        outcomes.append(outcome)
    return outcomes, rows


def gpu_findings(runner):
    """What doctor says of GPUs and their libraries: [{verdict, subject, fact, advice}]."""
    _, output, _ = runner.run([*runner.program([runner.manifest["chorale"]]), "doctor", "--json", "--port", "0"], 120)
    lines = [line for line in output.splitlines() if line.startswith("[")]
    findings = json.loads(lines[-1]) if lines else []
    return [f for f in findings if f["subject"].startswith("gpu") or f["subject"] in ("cuBLASLt", "NCCL")]


# ---- results --------------------------------------------------------------------------------------------------------------------------

def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "")).replace("|", "/") for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def markdown(results):
    parts = [f"# GPU check: {results['device']}, {results['date']}",
             f"`scripts/gpu-check` at commit {results['commit']}. Exact values stand in the JSON file beside this one.",
             table(results["host"], ["subject", "fact"])]
    if results["benches"]:
        parts.append("## Benches")
        for name in dict.fromkeys(row["bench"] for row in results["benches"]):
            rows = [{k: v for k, v in row.items() if k != "bench"} for row in results["benches"] if row["bench"] == name]
            parts += [f"`{name}`", table(rows, list(dict.fromkeys(key for row in rows for key in row)))]
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
    if unknown := skip - {"tests", "sanitizer", "benches"}:
        fail(f"--skip {','.join(sorted(unknown))}: one of tests, sanitizer, benches")
    tests = [t for t in runner.manifest["tests"] if re.search(arguments.tests, t["name"])]
    if not tests:
        fail(f"no test of label gpu matches '{arguments.tests}'")
    host = gpu_findings(runner)
    for finding in host:
        print(f"{finding['verdict']:<8} {finding['subject']:<10} {finding['fact']}", flush=True)
    first_gpu = next((f["fact"] for f in host if f["subject"] == "gpu 0"), None)
    device = first_gpu.split(",")[0] if first_gpu else arguments.device
    if arguments.device == "cuda" and first_gpu is None:
        print("skipped: " + (host[0]["fact"] + "; " + host[0]["advice"] if host else "doctor found no GPU"))
        return SKIPPED
    rows = [] if "tests" in skip else run_tests(runner, tests)
    kernels = [t for t in tests if Path(t["command"][0]).name == "worker_tests"]
    checked = [] if "sanitizer" in skip or arguments.device != "cuda" else run_sanitizers(runner, kernels)
    outcomes, bench_rows = ([], []) if "benches" in skip else run_benches(runner, runner.manifest["benches"])
    write({"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"), "device": device,
           "commit": runner.manifest["commit"], "host": host, "tests": rows + outcomes, "sanitizer": checked, "benches": bench_rows},
          arguments.results)
    failed = [row["name"] for row in rows + checked + outcomes if row["outcome"] == "failed"]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    lister, packer, starter = (commands.add_parser(name) for name in ("list", "pack", "run"))
    for each in (lister, packer, starter):
        each.add_argument("--manifest", type=Path, required=True)
    lister.add_argument("--build", type=Path, required=True)
    packer.add_argument("--into", type=Path, required=True)
    starter.add_argument("--device", choices=("cuda", "emulator"), default="cuda")
    starter.add_argument("--tests", default="")
    starter.add_argument("--skip", default="")
    starter.add_argument("--results", type=Path, default=ROOT / "docs/results/gpu")
    arguments = parser.parse_args()
    if arguments.command == "list":
        arguments.manifest.write_text(json.dumps(list_build(arguments.build), indent=1) + "\n")
        return 0
    if arguments.command == "pack":
        pack(arguments.manifest, arguments.into)
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
