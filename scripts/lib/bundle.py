"""The working part of scripts/bundle: gathers an executable, its libraries and the Open MPI runtime into a folder that runs from any path."""
import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import icu_data

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_MIB = 60
# Every Linux host with glibc has these; a program must use those of its own loader.
GLIBC = re.compile(r"^(ld-linux-x86-64|lib(c|m|pthread|dl|rt|resolv|util|anl|nsl|BrokenLocale))\.so\.[0-9]+$")
CPP_RUNTIME = re.compile(r"^(libstdc\+\+|libgcc_s)\.so")  # keeps its version in its name, which bundle_start compares with the node's
MPI_PROGRAMS = {"mpirun": "orterun", "orted": "orted", "ompi_info": "ompi_info"}  # names here and on the building host
LINKS = ("chorale", "run", "mpirun", "mpiexec", "orted", "ompi_info", "no_ssh")
# Plugins of Open MPI by framework. Left out: MPI files, OpenSHMEM, one-sided windows (not used), monitoring, and the fabrics that
# Debian's own settings turn off (UCX, verbs, OFI, PSM): they need libraries that belong to the node's drivers.
FRAMEWORKS = ("allocator bml btl coll compress crs errmgr ess filem grpcomm iof mpool odls oob op patcher plm pmix pml pstat ras rcache "
              "reachable regx rmaps rml routed rtc schizo shmem state topo").split()
LEFT_OUT = re.compile(r"^mca_(btl_(ofi|openib|uct)|coll_(monitoring|sm)|pml_(cm|ucx|monitoring)|pmix_(flux|s1|s2|cray)|ras_simulator"
                      r"|reachable_netlink|schizo_(flux|jsm))\.so$")
TESTS = ("comm_tests", "parallel_tests", "worker_tests", "coordinator_tests", "comm_mpi_test", "sampled_tokens_test")


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def fail(text):
    raise SystemExit(f"error: {text}")


def output_of(command, **options):
    try:
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True, timeout=300, **options).stdout
    except FileNotFoundError:
        fail(f"{command[0]} is not installed: scripts/bundle installs it on Debian, from scripts/packages.txt")
    except subprocess.CalledProcessError as error:
        fail(f"{' '.join(map(str, command))} failed: {(error.stderr or error.stdout).strip()[-400:]}")


def mib(num_bytes):
    return f"{num_bytes / 2**20:.1f} MiB"


def size_of(folder):
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


# ---- what a file needs ----------------------------------------------------------------------------------------------------------------

class Needs:
    """What the dynamic section of an ELF file says: libraries, search path, newest glibc."""

    def __init__(self, path):
        text = output_of(["readelf", "-dVW", path])
        self.libraries = re.findall(r"\(NEEDED\).*\[(.+)\]", text)
        self.search = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", text)
        self.old_style = "(RUNPATH)" not in text
        versions = [tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_(\d+\.\d+)", text)]
        self.glibc = max(versions, default=(2, 0))


def libraries_of(program):
    """{name: path here} of all shared libraries that it loads, less glibc's."""
    found = {}
    for line in output_of(["ldd", program]).splitlines():
        match = re.match(r"\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$", line)
        if match and match.group(2) == "not found":
            fail(f"{program} needs {match.group(1)}, which is not on this host")
        if match and not GLIBC.match(match.group(1)):
            found[match.group(1)] = Path(match.group(2))
    return found


def open_mpi():
    """Where Open MPI's programs, plugins, messages and settings lie on this host."""
    if not shutil.which("ompi_info"):
        fail("no Open MPI on this host (ompi_info is not in PATH)")
    paths = dict(re.findall(r"path:(\w+):(.+)", output_of(["ompi_info", "--path", "all", "--parsable"])))
    version = re.search(r"ompi:version:full:([0-9.]+)", output_of(["ompi_info", "--parsable"]))
    if version is None or not version.group(1).startswith("4."):
        fail(f"Open MPI {version.group(1) if version else 'of unknown version'}: this script knows the layout of version 4")
    return {"version": version.group(1), **{key: Path(value) for key, value in paths.items()}}


# ---- the parts ------------------------------------------------------------------------------------------------------------------------

class Bundle:
    def __init__(self, folder):
        self.folder = folder
        self.sources = set()  # of copied files, for the licences

    def add_program(self, source, name):
        """Copies a program, stripped, to libexec/NAME, and the libraries it needs."""
        target = self.folder / "libexec" / name
        self.add_file(source.resolve(), target, 0o755)
        output_of(["strip", target])
        self.search_in(target, f"$ORIGIN/{os.path.relpath(self.folder / 'lib/shared', target.parent)}")
        self.add_libraries(source)

    def add_plugin(self, source):
        target = self.folder / "lib/openmpi" / source.name
        self.add_file(source, target)
        self.search_in(target, "$ORIGIN/../shared")
        self.add_libraries(source)

    def lacks(self, name):
        return not GLIBC.match(name) and not (self.folder / "lib/shared" / name).exists()

    def add_libraries(self, of):
        if not any(map(self.lacks, Needs(of).libraries)):
            return  # where those are, what they need is too; ldd is slow
        for name, path in libraries_of(of).items():
            runtime = CPP_RUNTIME.match(name)
            target = self.folder / "lib/shared" / (path.resolve().name if runtime else name)
            if target.exists():
                continue
            self.add_file(path.resolve(), target)
            if name.startswith("libicudata.so") and not icu_data.shrink(target, name):
                say("ICU's data stays whole: icupkg and genccode (icu-devtools) could not cut it")
            self.search_in(target, "$ORIGIN")
            if runtime and target.name != name:
                (target.parent / name).symlink_to(target.name)

    def add_file(self, source, target, mode=0o644):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)
        self.sources.add(str(source))

    @staticmethod
    def search_in(target, path):
        # RPATH, not RUNPATH: it goes before LD_LIBRARY_PATH, where clusters' modules put another Open MPI.
        output_of(["patchelf", "--force-rpath", "--set-rpath", path, target])

    def add_licences(self):
        """The copyright files of the Debian packages that the files came from."""
        if not shutil.which("dpkg-query"):
            return
        # dpkg knows files by the path that the package gave, before /lib became a link to /usr/lib.
        names = sorted({p for s in self.sources for p in (s, s.removeprefix("/usr"))})
        listing = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
        for package in sorted({line.split(":")[0] for line in listing.splitlines() if not line.startswith("diversion")}):
            notice = Path("/usr/share/doc") / package / "copyright"
            if notice.exists():
                (self.folder / "licenses").mkdir(exist_ok=True)
                (self.folder / "licenses" / f"{package}.txt.gz").write_bytes(gzip.compress(notice.read_bytes(), mtime=0))


def add_open_mpi(bundle, here):
    for name, source in MPI_PROGRAMS.items():
        bundle.add_program(here["bindir"] / source, name)
    for source in sorted(here["pkglibdir"].glob("mca_*.so")):
        if source.name.split("_")[1] in FRAMEWORKS and not LEFT_OUT.match(source.name):
            bundle.add_plugin(source)
    for source in sorted(here["pkgdatadir"].glob("help-*.txt")):
        bundle.add_file(source.resolve(), bundle.folder / "share/openmpi" / source.name)
    settings = here["sysconfdir"] / "openmpi-mca-params.conf"
    if settings.exists():
        bundle.add_file(settings.resolve(), bundle.folder / "etc" / settings.name)


def fill(bundle, executable, here):
    """The executable, Open MPI, and what starts them from any path."""
    bundle.add_program(executable, "chorale")
    add_open_mpi(bundle, here)
    bundle.add_file(ROOT / "scripts/lib/bundle_start", bundle.folder / "libexec/start", 0o755)
    (bundle.folder / "bin").mkdir()
    for name in LINKS:
        (bundle.folder / "bin" / name).symlink_to("../libexec/start")


def readme(version, glibc, open_mpi_version):
    return f"""{version}: runs from any path on x86-64 Linux with glibc >= {glibc[0]}.{glibc[1]}; no package, no Python, no root.

  bin/chorale doctor
  bin/mpirun -n 2 bin/chorale serve --model MODEL --tp 2
  bin/chorale submit --chat "What is the sea?"

Inside: the executable, its libraries, Open MPI {open_mpi_version} (shared memory and TCP). Start programs through bin/: the links there tell Open MPI
where the bundle lies. For several hosts unpack it to the same path on each (a path without spaces); ssh must answer there.
GPUs need the driver; NCCL and cuBLASLt are found where they are installed (LD_LIBRARY_PATH, the CUDA toolkit, the system).
Whole? sha256sum -c SHA256SUMS. Licences of what is not Chorale's stand in licenses/.
"""


def write_checksums(folder):
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and p.name != "SHA256SUMS"):
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


# ---- is it whole? ---------------------------------------------------------------------------------------------------------------------

def elf_files(folder):
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def verify(folder):
    """The newest glibc that any file needs. Fails where a file needs a library that is neither glibc's nor in the bundle, or looks
    for one outside of it."""
    present = {p.name for p in folder.glob("lib/shared/*") if p.exists()}
    newest = (2, 0)
    for path in elf_files(folder):
        needs, name = Needs(path), path.relative_to(folder)
        missing = [n for n in needs.libraries if not GLIBC.match(n) and n not in present]
        if missing:
            fail(f"{name} needs {', '.join(missing)}, which the bundle lacks")
        for search in needs.search:
            inside = (path.parent / search.replace("$ORIGIN", ".")).resolve().is_relative_to(folder.resolve())
            if not search.startswith("$ORIGIN") or not inside or not needs.old_style:
                fail(f"{name} looks for libraries in '{search}', which is not a place in the bundle")
        newest = max(newest, needs.glibc)
    return newest


def print_sizes(folder):
    parts = {"executable": [folder / "libexec/chorale"], "Open MPI programs": [folder / "libexec" / n for n in MPI_PROGRAMS],
             "Open MPI plugins, texts": [folder / "lib/openmpi", folder / "share"],
             "ICU": list(folder.glob("lib/shared/libicu*")),
             "C++ runtime": [p for p in folder.glob("lib/shared/*") if CPP_RUNTIME.match(p.name)],
             "licences": [folder / "licenses"], "tests": [folder / "libexec/tests"]}
    libraries = set(folder.glob("lib/shared/*")) - set(parts["ICU"]) - set(parts["C++ runtime"])
    parts["other libraries"] = list(libraries)
    for part, paths in parts.items():
        size = sum(size_of(p) if p.is_dir() else p.stat().st_size for p in paths if p.exists() and not p.is_symlink())
        if size:
            print(f"{part:<24} {mib(size):>10}")


def make(arguments):
    executable = arguments.build / "chorale"
    if not os.access(executable, os.X_OK):
        fail(f"{executable} is not there: build it first (scripts/bundle without --build does)")
    version = output_of([executable, "--version"]).strip()
    number = re.match(r"chorale (\S+)", version)
    folder = arguments.out / f"chorale-{number.group(1)}-x86_64"
    here = open_mpi()
    tests = [t for name in TESTS for t in [*arguments.build.glob(f"tests/{name}"), *arguments.build.glob(f"tests/*/{name}")]]
    if arguments.tests and not tests:
        fail(f"{arguments.build} has no test binaries: build them, or leave out --tests")

    if folder.exists() and not (folder / "SHA256SUMS").exists():
        fail(f"{folder} holds other things: remove it, or give another --out")
    shutil.rmtree(folder, ignore_errors=True)
    bundle = Bundle(folder)
    say(f"{version} and its libraries")
    fill(bundle, executable, here)
    for test in tests if arguments.tests else []:
        say(f"test {test.name}")
        bundle.add_program(test, f"tests/{test.name}")
    bundle.add_licences()
    say("verifying that nothing is looked for outside")
    glibc = verify(folder)
    (folder / "README.txt").write_text(readme(version, glibc, here["version"]))
    write_checksums(folder)

    print_sizes(folder)
    total = size_of(folder)
    counted = total - (size_of(folder / "libexec/tests") if arguments.tests else 0)
    print(f"{'folder':<24} {mib(total):>10}   needs glibc {glibc[0]}.{glibc[1]}")
    if counted > arguments.limit * 2**20:
        shutil.rmtree(folder)
        fail(f"{mib(counted)} without tests, over the limit of {arguments.limit} MiB (--limit)")
    return folder


def pack(folder):
    say("packing")
    tarball = folder.with_name(folder.name + ".tar.gz")
    with tarball.open("wb") as file:  # the same bytes for the same contents
        tar = subprocess.Popen(["tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-C", folder.parent,
                                "-c", folder.name], stdout=subprocess.PIPE)
        packed = subprocess.run(["gzip", "-n", "-6"], stdin=tar.stdout, stdout=file, check=False)
        if tar.wait() != 0 or packed.returncode != 0:
            fail(f"tar and gzip could not write {tarball}")
    print(f"{'tarball':<24} {mib(tarball.stat().st_size):>10}   {tarball}")
    return tarball


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--limit", type=int, default=LIMIT_MIB)
    parser.add_argument("--folder-only", action="store_true")
    arguments = parser.parse_args()
    folder = make(arguments)
    if not arguments.folder_only:
        pack(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
