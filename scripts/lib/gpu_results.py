"""What scripts/gpu-check found: a JSON file, a table beside it and a log of failures. All are written anew after every row, so that a
run that is killed leaves what it had, and runs of the same date, device and commit add up to one file.
"""
import json
import os
import re
import shlex
import sys
import time

from gpu_ratios import ratios
from gpu_runner import NO_TIME

LOG_CHILD_BYTES = 200 << 10  # of the standard output of a failed program, and as much of its standard error
LOG_BYTES = 12 << 20         # of the whole log
SECTIONS = ("tests", "sanitizer")


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def had_no_time(row):
    return row.get("reason") == NO_TIME


def tail_of(text, size):
    """Its last bytes; what is missing is said."""
    whole = text.encode(errors="replace")
    return text if len(whole) <= size else f"({len(whole) - size} bytes left out)\n" + whole[-size:].decode(errors="replace")


def cell(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def markdown(results):
    parts = [f"# GPU check: {results['device']}, {results['date']}",
             f"`scripts/gpu-check` at commit {results['commit']}. Exact values stand in the JSON file beside this one.",
             table(results["host"], ["subject", "fact"])]
    for title, section in (("Ratios", ratios(results["benches"])), ("Benches", results["benches"])):
        parts += [f"## {title}"] if section else []
        for name in dict.fromkeys(row["bench"] for row in section):
            rows = [{k: v for k, v in row.items() if k != "bench"} for row in section if row["bench"] == name]
            parts += [f"`{name}`", table(rows, list(dict.fromkeys(key for row in rows for key in row if row[key] is not None)))]
    parts += ["## Tests", table(results["tests"], ["name", "outcome", "seconds", "reason"])]
    if results["sanitizer"]:
        parts += ["## compute-sanitizer", table(results["sanitizer"], ["tool", "name", "outcome", "seconds", "reason"])]
    return "\n\n".join(parts) + "\n"


def replace_file(path, text):
    """All of it or nothing, also when this process is killed meanwhile."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text)
    os.replace(partial, path)


def report(row, output=""):
    print(f"{row['outcome']:<8} {row.get('tool', ''):<10} {row['name']:<32} {row['seconds']:>7} s  {row.get('reason', '')}", flush=True)
    if row["outcome"] == "failed":
        print("\n".join("    " + line for line in output.splitlines()[-40:]), flush=True)


class Results:
    """`facts`: date, device, gpus, commit, mpirun and host, the JSON file's head. Errors of the first writing are thrown; a later one is
    told, and mended by the next row's writing where that succeeds."""

    def __init__(self, folder, facts):
        folder.mkdir(parents=True, exist_ok=True)
        self.stem, earlier = self.place(folder, facts)
        self.all = {**facts, "tests": [], "sanitizer": [], "benches": []}
        for section in (*SECTIONS, "benches"):
            self.all[section] = list(earlier.get(section, []))
        self.rows = []  # of this run
        self.is_written = False
        if earlier:
            say(f"adding to {self.path('.json')}")
        else:
            self.path("-failures.log").unlink(missing_ok=True)
        self.write_files()

    @staticmethod
    def place(folder, facts):
        """(path less its ending, what stands there of the same date, device and commit). Another commit's file of that day stays."""
        stem = f"{facts['date']}-{slug(facts['device'])}"
        for name in (stem, f"{stem}-{slug(facts['commit'])}"):
            path = folder / (name + ".json")
            try:
                earlier = json.loads(path.read_text())
                if all(earlier.get(key) == facts[key] for key in ("date", "device", "commit")):
                    return folder / name, earlier
            except FileNotFoundError:
                return folder / name, {}
            except (ValueError, AttributeError):
                say(f"{path} is not of gpu-check, and stays")
        return folder / name, {}

    def path(self, ending):
        return self.stem.with_name(self.stem.name + ending)

    def add(self, section, row, output="", children=()):
        """A row {name, outcome, seconds, reason?, tool?, of?}: prints it, logs `children` where it failed, and writes all files. It takes
        the place of an earlier row of its name, and of those that are `of` it; a row for want of time takes no result's place."""
        report(row, output)
        self.rows.append(row)
        if row["outcome"] == "failed":
            self.log(row, output, children)
        rows = self.all[section]
        at = next((i for i, r in enumerate(rows) if (r["name"], r.get("tool")) == (row["name"], row.get("tool"))), None)
        if at is None:
            rows.append(row)
        elif not had_no_time(row):
            rows[at] = row
            self.all[section] = [r for r in rows if r.get("of") != row["name"]]
        self.write()

    def add_figures(self, bench, figures, is_whole):
        """The rows that a bench printed, in place of those that it printed before; a part of them takes nothing's place."""
        if figures and (is_whole or not any(r["bench"] == bench for r in self.all["benches"])):
            self.all["benches"] = [r for r in self.all["benches"] if r["bench"] != bench] + [{"bench": bench, **row} for row in figures]
            self.write()

    def forget(self, name):
        """Leaves out an earlier run's row of that name."""
        for section in SECTIONS:
            self.all[section] = [r for r in self.all[section] if r["name"] != name]
        self.write()

    def verdict(self):
        """The last line: what failed, or how many parts this run went without; why stands in their rows."""
        if failed := self.names_of(lambda row: row["outcome"] == "failed"):
            return f"failed: {', '.join(failed)}"
        skipped = self.names_of(lambda row: row["outcome"] == "skipped")
        return f"passed, {len(skipped)} part{'' if len(skipped) == 1 else 's'} skipped: {', '.join(skipped)}" if skipped else "all passed"

    def names_of(self, wanted):
        return [row["name"] for row in self.rows if wanted(row)]

    def log(self, row, output, children):
        lines = [f"==== {row['name']} {row.get('tool', '')}: {row.get('reason', '')} ({time.strftime('%H:%M:%S', time.gmtime())} UTC)"]
        for child in children:
            settings = "".join(f"{name}={shlex.quote(value)} " for name, value in child.extra.items())
            ended = "its time limit" if child.code is None else child.code
            lines += [f"-- {settings}{shlex.join(map(str, child.command))}", f"-- ended with {ended} after {child.seconds:.1f} s"]
            for name in ("stdout", "stderr"):
                lines += [f"-- {name}", tail_of(getattr(child, name), LOG_CHILD_BYTES)]
        if not children:
            lines.append(tail_of(output, LOG_CHILD_BYTES))
        text = "\n".join(lines) + "\n\n"
        path = self.path("-failures.log")
        try:
            if path.exists() and path.stat().st_size + len(text.encode(errors="replace")) > LOG_BYTES:
                text = lines[0] + "\n(left out: this log is full)\n\n"
            with path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            say(f"cannot write {path}: {error}")

    def write(self):
        try:
            self.write_files()
        except OSError as error:
            self.is_written = False
            say(f"cannot write {self.path('.json')}: {error}")

    def write_files(self):
        replace_file(self.path(".json"), json.dumps(self.all | {"ratios": ratios(self.all["benches"])}, indent=1) + "\n")
        replace_file(self.path(".md"), markdown(self.all))
        self.is_written = True
