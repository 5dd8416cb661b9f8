"""What follows from the figures of scripts/gpu-check: what the fixed order costs, and what peers do on the same machine."""


def by_bench(rows, bench):
    return [row for row in rows if row["bench"] == bench]


def ratios(rows):
    """Rows that set two figures beside each other, where both are there."""
    found = []
    engines = list(dict.fromkeys(row["bench"] for row in rows if row["bench"].startswith("engine ")))
    rates = {(row["bench"], row["test"]): row["p50"] for row in rows if row.get("unit") == "tok/s" and row["bench"] in engines}
    for (bench, test), one in rates.items():
        if fast := rates.get((f"{bench} fast", test)):
            found.append({"bench": "one answer against fast", "ranks": bench.removeprefix("engine "), "test": test, "one tok/s": one, "fast tok/s": fast,
                          "one / fast": one / fast})
    peers = [row for row in rows if row["bench"].startswith("peer ")]
    for row in peers:
        for answer in ("", " fast"):
            if ours := rates.get((f"engine tp=1{answer}", row.get("test"))):
                found.append({"bench": "chorale against peers", "peer": row["peer"], "answer": answer.strip() or "one", "test": row["test"],
                              "chorale": ours, "peer's": row["tok/s"], "unit": "tok/s", "ratio": ours / row["tok/s"]})
    kernels = {row["shape"]: row["TFLOP/s"] for row in by_bench(rows, "gpu_kernel_bench") if row.get("kernel") == "attention prefill"}
    for row in by_bench(rows, "peer sdpa"):
        if ours := kernels.get(row["shape"]):
            found.append({"bench": "chorale against peers", "peer": row["peer"], "test": f"attention prefill, {row['shape']}", "chorale": ours,
                          "peer's": row["TFLOP/s"], "unit": "TFLOP/s", "ratio": ours / row["TFLOP/s"]})
    return found
