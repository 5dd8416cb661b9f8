"""What scripts/gpu-check --pack does: a folder and a tarball with a build's tests and benches, which need python3 and nothing else."""
import json
import shutil
from pathlib import Path

import bundle as bundle_script

ROOT = Path(__file__).resolve().parent.parent.parent
CARRIED = ("gpu_check.py", "gpu_peers.py", "gpu_ratios.py", "gpu_results.py", "gpu_runner.py", "gpu_shapes.py", "gpu_tests.py", "gpu_worlds.py",
           "random_model.py")  # of this folder
START = """#!/bin/sh
# Tests and measures this machine's GPUs with what lies here; --help tells more. Results go to the folder results, or where --results says.
here=$(cd "$(dirname "$0")" && pwd)
exec python3 "$here/check/gpu_check.py" run --manifest "$here/gpu-tests.json" --results "$here/results" "$@"
"""


def programs_of(manifest):
    """Paths in the build of all programs that the tests and benches start."""
    parts = [part for test in manifest["tests"] for part in test["command"]]
    return sorted({part.removeprefix("{build}/") for part in parts if part.startswith("{build}/")} | set(manifest["benches"]))


def pack(manifest_path, into, models=()):
    """Folder and tarball: a bundle (scripts/bundle), the programs of the manifest, stripped, these scripts, and checkpoints to look at."""
    into = into.resolve()
    manifest, build = json.loads(manifest_path.read_text()), manifest_path.parent
    if into.exists() and not (into / "gpu-tests.json").exists() and any(into.iterdir()):
        bundle_script.fail(f"{into} holds other things; give a new folder")
    shutil.rmtree(into, ignore_errors=True)
    stay = [t["name"] for t in manifest["tests"] if Path(t["command"][0]).is_absolute()]
    if stay:
        bundle_script.say(f"not packed, since they start with a program of this host: {', '.join(stay)}")
    manifest["tests"] = [t for t in manifest["tests"] if t["name"] not in stay]
    bundle = bundle_script.Bundle(into)
    bundle_script.fill(bundle, build / "chorale", bundle_script.open_mpi())
    for program in programs_of(manifest):
        if not (build / program).exists():
            bundle_script.fail(f"{build / program} is not built")
        bundle.add_program(build / program, program)
    bundle.add_licences()
    glibc = bundle_script.verify(into)
    for name in CARRIED:
        bundle.add_file(ROOT / "scripts/lib" / name, into / "check" / name)
    for model in models:
        (into / "models").mkdir(exist_ok=True)
        (shutil.copytree if model.is_dir() else shutil.copy2)(model, into / "models" / model.name)
    (into / "gpu-check").write_text(START)
    (into / "gpu-check").chmod(0o755)
    manifest["programs"] = "libexec"
    (into / "gpu-tests.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{'folder':<24} {bundle_script.mib(bundle_script.size_of(into)):>10}   {into}: {len(manifest['tests'])} tests, "
          f"{len(manifest['benches'])} benches; needs glibc {glibc[0]}.{glibc[1]} and python3", flush=True)
    tarball = bundle_script.pack(into)
    bundle_script.say(f"there: tar xzf {tarball.name} && {into.name}/gpu-check")
