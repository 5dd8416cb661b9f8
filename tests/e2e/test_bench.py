"""chorale bench: the fixed JSON keys, alone and over ranks; that numbers stand in the relations that they must, not how large they are."""
import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import CHORALE, run, shared
from test_nccl import library, rooms  # noqa: F401

KEYS = ["test", "n", "mean", "p50", "p99", "unit", "threads", "tp", "pp", "class", "read_gbps", "peak_gops", "fraction"]


@pytest.fixture(scope="module")
def stories():
    return shared("models/stories260K")


def rows_of(done):
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}"
    rows = json.loads(done.stdout)
    for row in rows:
        assert list(row)[: len(KEYS)] == KEYS
        assert row["n"] >= 1 and all(math.isfinite(row[key]) and row[key] > 0 for key in ("mean", "p50", "p99"))
    return {row["test"]: row for row in rows}


def check_engine_rows(rows, tp, pp, threads):
    for row in rows.values():
        assert (row["unit"], row["tp"], row["pp"], row["threads"]) == ("tok/s", tp, pp, threads)
        assert row["class"].startswith("f32/") and row["read_gbps"] > 0
        assert row["fraction"] is None or row["fraction"] > 0
        assert 0 <= row["comm_share"] <= 1 and row["bubble"] <= 1
        assert 0 < row["coordinator_us_per_token"]


def test_engine_alone(stories):
    rows = rows_of(run("bench", "engine", "--model", stories, "-p", 32, "-n", 8, "-b", "1,4", "-r", 2, "--threads", 1, "--json"))
    assert list(rows) == ["pp32", "tg8", "tg8x4"]
    assert rows["tg8x4"]["streams"] == 4
    assert rows["tg8"]["comm_share"] == 0
    check_engine_rows(rows, 1, 1, 1)


def test_engine_on_a_device_is_not_set_beside_the_hosts_figures(stories):
    rows = rows_of(run("bench", "engine", "--model", stories, "-p", 4, "-n", 0, "-r", 1, "--device", "emulator", "--json"))
    assert [rows["pp4"][key] for key in ("read_gbps", "peak_gops", "fraction")] == [None, None, None]
    assert "peak_by" not in rows["pp4"]


def test_engine_on_a_device_tells_the_gaps_between_steps(stories):
    flags = ("bench", "engine", "--model", stories, "-p", 4, "-n", 4, "-b", "1,2", "-r", 2, "--device", "emulator")
    rows = rows_of(run(*flags, "--json"))
    assert list(rows) == ["pp4", "tg4", "tg4 gap", "tg4x2", "tg4x2 gap"]  # a prompt is one step
    for name in ("tg4 gap", "tg4x2 gap"):
        assert rows[name]["unit"] == "us" and rows[name]["n"] >= 2 * 3 and 0 < rows[name]["device_idle"] < 1
        assert [rows[name][key] for key in ("read_gbps", "peak_gops", "fraction")] == [None, None, None]
    assert "device_idle" in run(*flags).stdout.splitlines()[0]


@pytest.mark.parametrize("library,by", [(None, "own"), ("right", "cublaslt-13.1.0")])
def test_engine_sets_what_a_device_did_beside_what_it_can(stories, library, by):
    """As on a GPU; the emulator's figures mean nothing, so a variable that only tests know must ask for them."""
    env = {"CHORALE_EMULATOR_FIGURES": "1"}
    if library:
        env["CHORALE_CUBLASLT_PATH"] = str(CHORALE.parent / f"fake_libraries/libfake_{library}.so")
    done = run("bench", "engine", "--model", stories, "-p", 4, "-n", 2, "-r", 1, "--dtype", "bf16", "--tp", 2, "--device", "emulator", "--json",
               ranks=2, env=env)
    rows = rows_of(done)
    assert f"each of 1 device(s) copies {rows['pp4']['read_gbps']:.0f} GB/s" in done.stderr
    for row in (rows["pp4"], rows["tg2"]):
        assert row["read_gbps"] > 0 and row["peak_gops"] > 0 and row["fraction"] > 0 and row["peak_by"] == by
    assert rows["tg2 gap"]["fraction"] is None


@pytest.mark.parametrize("tp,pp", [(2, 1), (1, 2)])
def test_engine_over_ranks(stories, tp, pp):
    rows = rows_of(run("bench", "engine", "--model", stories, "-p", 32, "-n", 8, "-r", 2, "--tp", tp, "--pp", pp, "--threads", 1,
                       "--json", ranks=2))
    assert list(rows) == ["pp32", "tg8"]
    check_engine_rows(rows, tp, pp, 1)
    if tp == 2:
        assert rows["tg8"]["comm_share"] > 0
    else:
        assert rows["tg8"]["bubble"] > 0.3  # one stream: one of the two stages idles at any time


def test_engine_prints_a_table_for_people(stories):
    done = run("bench", "engine", "--model", stories, "-p", 8, "-n", 0, "-r", 1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()
    assert header.split()[:5] == ["test", "n", "mean", "p50", "p99"] and row.split()[0] == "pp8"


@pytest.mark.parametrize("flags,what", [
    (["-p", 0, "-n", 0], "nothing to measure"), (["-r", 0], "--repetitions 0"), (["-b", 0], "--batch 0"), (["-p", "x"], "x"),
    (["stray"], "unexpected argument 'stray'"), (["--tp", 2], "mpirun -n 2")])
def test_engine_refuses(stories, flags, what):
    done = run("bench", "engine", "--model", stories, *flags)
    assert done.returncode == 2 and what in done.stderr and done.stdout == ""


def test_comm_over_ranks():
    rows = rows_of(run("bench", "comm", "--device", "cpu", "--sizes", "8K,64K", "--backend", "shared_memory,mpi", "--iterations", 40, "--json", ranks=2))
    assert sorted(rows) == sorted(f"{test} {backend} {size} KiB" for test in ("all_reduce", "send_recv")
                                  for backend in ("shared_memory", "mpi") for size in (8, 64))
    row = rows["all_reduce shared_memory 8 KiB"]
    assert row["unit"] == "us" and row["bytes"] == 8192 and row["ranks"] == 2 and row["n"] >= 40
    assert all((r["threads"], r["tp"], r["pp"]) == (1, 2, 1) and r["class"] is None for r in rows.values())
    assert row["busbw_gbps"] == pytest.approx(row["algbw_gbps"])  # 2 (n - 1) / n of two ranks
    assert row["algbw_gbps"] == pytest.approx(8192 / row["mean"] * 1e-3)


FEW = ("--sizes", "1K,8K", "--iterations", 20)
OVER_NCCL = ["all_reduce", "nccl_all_reduce", "all_reduce_graph", "nccl_all_reduce_graph", "all_gather", "send_recv"]


def check_device_rows(rows, tests, backend, ranks):
    """Wrong sums end the bench: what is left to look at is what was measured, and that no figure of the host stands beside it."""
    assert sorted(rows) == sorted(f"{test} {backend} {size} KiB" for test in tests for size in (1, 8))
    for name, row in rows.items():
        test, _, size, _ = name.split()
        assert (row["unit"], row["threads"], row["tp"], row["pp"], row["ranks"]) == ("us", 1, ranks, 1, ranks)
        assert [row[key] for key in ("class", "read_gbps", "peak_gops", "fraction")] == [None] * 4
        assert row["n"] >= 20 and row["p50"] <= row["p99"] and row["bytes"] == int(size) * 1024
        assert row["algbw_gbps"] == pytest.approx(row["bytes"] / row["mean"] * 1e-3)
        factor = {"all_gather": 1 - 1 / ranks, "send_recv": 1}.get(test, 2 * (ranks - 1) / ranks)
        assert row["busbw_gbps"] == pytest.approx(factor * row["algbw_gbps"])


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_comm_on_devices_over_nccl(ranks):
    rows = rows_of(run("bench", "comm", "--device", "emulator", *FEW, "--json", ranks=ranks, env=library()))
    check_device_rows(rows, OVER_NCCL, "emulator/nccl", ranks)


def test_comm_on_devices_without_graphs():
    rows = rows_of(run("bench", "comm", "--device", "emulator", "--comm", "nccl", "--no-cuda-graphs", *FEW, "--json", ranks=2, env=library()))
    check_device_rows(rows, [test for test in OVER_NCCL if "graph" not in test], "emulator/nccl", 2)


@pytest.mark.parametrize("flags,backends", [(["--comm", "mpi"], ["shared_memory"]), (["--backend", "mpi,shared_memory"], ["mpi", "shared_memory"])],
                         ids=["chosen", "named"])
def test_comm_on_devices_by_way_of_the_host(flags, backends):
    """Although there is NCCL."""
    done = run("bench", "comm", "--device", "emulator", *flags, *FEW, "--json", ranks=2, env=library())
    rows = rows_of(done)
    for backend in backends:
        own = {name: row for name, row in rows.items() if f" emulator/{backend} " in name}
        check_device_rows(own, ["all_reduce", "all_gather", "send_recv"], f"emulator/{backend}", 2)
    assert len(rows) == 6 * len(backends)


def test_comm_prints_ours_and_the_librarys_beside_each_other():
    done = run("bench", "comm", "--device", "emulator", *FEW, ranks=2, env=library())
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert lines[0][:2] == ["test", "n"] and [line[0] for line in lines[1:5]] == OVER_NCCL[:4] and {line[2] for line in lines[1:5]} == {"1"}


@pytest.mark.parametrize("ranks,flags,env,code,words", [
    (2, ["--device", "cpu", "--comm", "nccl"], {}, 1, ["--comm nccl: rank 0 on ", " computes on the CPU (--comm mpi does without it)"]),
    (2, ["--device", "emulator", "--comm", "nccl"], {"FAKE_NCCL_VERSION": "21003"}, 1, ["--comm nccl: rank 0 on ", "NCCL cannot be used: ", "it is version 2.10.3; "]),
    (0, ["--device", "emulator", "--comm", "gloo"], {}, 2, ["--comm gloo: one of auto, nccl, mpi"]),
    (0, ["--device", "tpu"], {}, 2, ["tpu"]),
    (0, ["--comm", "nccl", "--backend", "mpi"], {}, 2, ["--backend ", "--comm nccl"]),
    (0, ["stray"], {}, 2, ["unexpected argument 'stray'"]),
    (0, ["--device", "emulator"], {}, 2, ["mpirun -n 2 chorale bench comm"]),
    (0, ["--comm", "nccl"], {}, 2, ["mpirun -n 2 chorale bench comm"])],
    ids=["cpu", "old", "comm", "device", "backend", "stray", "alone", "alone-nccl"])
def test_comm_refuses_what_cannot_be(ranks, flags, env, code, words):
    done = run("bench", "comm", *flags, "--sizes", "1K", ranks=ranks, env=library(**env))
    assert done.returncode == code and done.stdout == "", done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in words), done.stderr


def test_comm_ends_where_a_peer_fails():
    done = run("bench", "comm", "--device", "emulator", *FEW, ranks=2, timeout=60, env=library(FAKE_NCCL_FAULT="error-op:20@1"))
    assert done.returncode == 3 and done.stdout == ""
    assert "chorale: rank 1: NCCL 2.28.9 (stage 0: ranks 0, 1) all-gather no. " in done.stderr and "remote process exited" in done.stderr, done.stderr


def test_comm_help_says_what_times_are():
    done = run("bench", "comm", "--help")
    assert done.returncode == 0 and "between events in its stream" in done.stdout


def test_comm_alone_measures_the_control_link():
    rows = rows_of(run("bench", "comm", "--sizes", "4K", "--iterations", 20, "--json"))
    assert list(rows) == ["control_round_trip tcp 4 KiB"]
    assert [rows["control_round_trip tcp 4 KiB"][key] for key in ("threads", "tp", "pp")] == [1, 1, 1]


@pytest.mark.parametrize("size", ["0", "3", "8Q", "-4", "2000M", "99999999999999999999"])
def test_comm_refuses_sizes(size):
    done = run("bench", "comm", f"--sizes={size}")
    assert done.returncode == 2 and "--sizes" in done.stderr


def test_scaling_writes_table_json_and_plot(stories, tmp_path):
    done = run("bench", "scaling", "--model", stories, "--layouts", "1x1,2x1", "-p", 16, "-n", 4, "-r", 1, "--out", tmp_path / "scaling")
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout.splitlines()[0] and len(done.stdout.splitlines()) == 5
    rows = json.loads((tmp_path / "scaling.json").read_text())
    assert [(row["layout"], row["test"]) for row in rows] == [("1x1", "pp16"), ("1x1", "tg4"), ("2x1", "pp16"), ("2x1", "tg4")]
    assert all(row["speed_up"] == 1 and row["efficiency"] == 1 for row in rows[:2])
    for first, row in zip(rows, rows[2:]):
        assert row["speed_up"] == pytest.approx(row["tokens_per_second"] / first["tokens_per_second"])
        assert row["efficiency"] == pytest.approx(row["speed_up"] / 2)
    picture = ElementTree.parse(tmp_path / "scaling.svg").getroot()
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"1x1", "2x1", "pp16", "tg4", "compute", "communication"} <= texts


def test_scaling_prints_the_rows_of_all_layouts(stories, tmp_path):
    done = run("bench", "scaling", "--model", stories, "--layouts", "1x1,1x2", "-p", 8, "-n", 0, "-r", 1, "--json", "--out", tmp_path / "s")
    rows = json.loads(done.stdout)
    assert [(row["test"], row["tp"], row["pp"], row["unit"]) for row in rows] == [("pp8", 1, 1, "tok/s"), ("pp8", 1, 2, "tok/s")]
    assert all(list(row)[: len(KEYS)] == KEYS for row in rows)


def test_scaling_goes_on_after_a_layout_that_cannot_be(stories, tmp_path):
    done = run("bench", "scaling", "--model", stories, "--layouts", "9x1,1x1", "-p", 8, "-n", 0, "-r", 1, "--out", tmp_path / "s")
    assert done.returncode == 1 and "tp=9" in done.stderr
    assert [row["layout"] for row in json.loads((tmp_path / "s.json").read_text())] == ["1x1"]


def test_scaling_refuses_what_is_no_layout(stories):
    done = run("bench", "scaling", "--model", stories, "--layouts", "1x1,2")
    assert done.returncode == 2 and "'2'" in done.stderr
