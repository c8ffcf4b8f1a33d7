"""The benchmarks run, and report what they say they do; what they find is for a quiet machine and a real model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("openvino")
RUN = Path(__file__).parent.parent / "benchmarks" / "run.py"


def test_every_part_runs(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "--base", str(tiny_folder("llama")), "--dtype", "float32", "--small"]
    command += ["--repeats", "1", "--work", str(tmp_path / "work"), "-o", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    parts = report["parts"]
    assert list(parts) == ["encode", "query", "agreement", "rerank", "rerank of long documents", "stage I", "stage III"]
    for name, part in parts.items():
        assert f"### {name}" in done.stdout
        for row in part["systems"].values():
            assert all(math.isfinite(value) and value > 0 for value in row.values())
    # The paths that are compared do the same work.
    assert min(row["worst_cosine"] for row in parts["agreement"]["systems"].values()) > 0.999999
    assert max(parts[name]["largest_difference"] for name in parts if name.startswith("rerank")) < 1e-3
    first, second = parts["stage I"]["first_loss"].values()
    assert first == pytest.approx(second, rel=1e-4)
    assert parts["stage III"]["pairs"] > 0
    assert report["ceilings_giga_per_second"]["float32"]["median"] > 0


def test_searches_are_measured(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    command = [sys.executable, str(RUN.with_name("search.py")), "--documents", "3000", "--queries", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cached_recall_at_10"] > 0.98
    assert report["single_bits_recall_at_10"] > 0.98  # they are used only if they find as much
    assert {report["cache"]["codes"], report["single_bits"]["codes"]} <= {"sq8", "fp16", "rabitq"}
    vectors = 3000 * 576 * 4
    assert vectors < report["cache"]["bytes"] < 2 * vectors
    for name in ("ceilings", "cached_memory", "exact", "upsert of one, then search"):
        assert all(math.isfinite(value) for value in report[name].values()), name


def test_ratios_that_became_worse_are_named(tmp_path: Path) -> None:
    def compared(after: dict[str, dict[str, float]]) -> subprocess.CompletedProcess[str]:
        for name, systems in (("before", before), ("after", after)):
            (tmp_path / name).write_text(json.dumps({"parts": {"query": {"systems": systems}}}))
        command = [
            sys.executable,
            str(RUN.with_name("regression.py")),
            str(tmp_path / "before"),
            str(tmp_path / "after"),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    before = {"rabtriever": {"milliseconds": 60.0, "times_limit": 2.0, "share_of_limit": 0.5}}
    same = compared({"rabtriever": {"milliseconds": 90.0, "times_limit": 2.2, "share_of_limit": 0.45}})
    assert (same.returncode, "WORSE" in same.stdout) == (0, False)  # a slower machine, the same ratios
    worse = compared({"rabtriever": {"milliseconds": 60.0, "times_limit": 3.0, "share_of_limit": 0.3}})
    assert worse.returncode == 1
    assert worse.stdout.count("WORSE") == 2
    assert compared({}).returncode == 1  # gone
    assert compared({"rabtriever": {"times_limit": 1.0, "share_of_limit": 0.9}}).returncode == 0
