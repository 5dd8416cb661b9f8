# Shared by the scripts beside it: where things are, what must be installed, how to build. Sourced, never run.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${CHORALE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/chorale}
JOBS=${JOBS:-$(nproc)}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# packages_of GROUP...: the Debian packages of the groups in scripts/packages.txt
packages_of() {
  local group
  for group in "$@"; do sed -n "s/^$group:[[:space:]]*//p" "$ROOT/scripts/packages.txt"; done | tr ' ' '\n' | sed '/^$/d'
}

# ensure_packages GROUP...: installs what is missing. Needs root only when something is.
ensure_packages() {
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    say "not Debian: make sure that these (or their like) are installed: $(packages_of "$@" | tr '\n' ' ')"
    return
  fi
  for package in $(packages_of "$@"); do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" -eq 0 ] || die "missing packages; run: sudo apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || die "apt-get update failed: are the package registries reachable?"
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >"${TMPDIR:-/tmp}/chorale-apt.log" 2>&1 ||
    { tail -20 "${TMPDIR:-/tmp}/chorale-apt.log" >&2; die "apt-get install failed"; }
}

# ensure_venv [REQUIREMENTS...]: a virtual environment in .venv with the given requirement files
ensure_venv() {
  local venv=$ROOT/.venv requirements
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  for requirements in "$@"; do
    local stamp
    stamp=$venv/.$(basename "$requirements").$(sha256sum "$requirements" | cut -c1-16)
    [ -e "$stamp" ] && continue
    say "installing Python packages of $(basename "$requirements")"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    touch "$stamp"
  done
}

CONFIGURE=()  # options of CMake that a script adds to the preset's, as -DNAME=VALUE

# build PRESET [TARGET...]: configures and builds build/PRESET
build() {
  local preset=$1; shift
  export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
  (cd "$ROOT" && cmake --preset "$preset" "${CONFIGURE[@]}" >"${TMPDIR:-/tmp}/chorale-cmake.log" 2>&1) ||
    { tail -30 "${TMPDIR:-/tmp}/chorale-cmake.log" >&2; die "cmake --preset $preset failed"; }
  cmake --build "$ROOT/build/$preset" --parallel "$JOBS" ${1:+--target "$@"}
}

# Open MPI refuses root and oversubscription unless told otherwise; a user's own settings win.
allow_mpi_here() {
  if [ "$(id -u)" -eq 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=${OMPI_ALLOW_RUN_AS_ROOT:-1} OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}
  fi
}
