"""Every stage against what the machine can do and against its peers, in one run: JSON, and a table.

    make bench                                             the bundled example's texts
    make bench DATA=FOLDER                                 texts of the datasets in a folder, of mixed length
    python benchmarks/run.py --data DATA --only query,encode -o benchmarks/results.json
    python benchmarks/run.py --show benchmarks/results.json > docs/benchmarks.md       (make report does so)

A figure is the median of interleaved repetitions. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import encoding
import scoring
import texts
from measuring import Ceilings, machine
from models import Models

import training
from rabtriever import Dataset

_MIXED = ("scifact", "msmarco-small", "e-care")


class Benchmark:
    """What is measured, each part by its name."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.models = Models(options.base, options.work, options.dtype)
        self.repeats, self.small = options.repeats, options.small
        found = [options.data / name for name in _MIXED if (options.data / name).is_dir()] if options.data else []
        self.folders = found or [Path("example")]
        self.ceilings = Ceilings.of(self.models.student.reranker.backbone.model.base_model)
        self.store = options.work / "teacher-outputs"

    @property
    def parts(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name."""
        return {
            "encode": self.encode,
            "query": self.query,
            "agreement": self.agreement,
            "rerank": self.rerank,
            "rerank of long documents": self.rerank_long,
            "stage I": self.stage_one,
            "stage III": self.stage_three,
        }

    def encode(self) -> dict[str, Any]:
        """Bulk encoding of documents."""
        return encoding.bulk(self.models, self._documents(600 if self.small else 24_000), self.repeats, self.ceilings)

    def query(self) -> dict[str, Any]:
        """One query at a time."""
        asked = texts.queries(Path("example"), 2 if self.small else 10)
        return encoding.one_query(self.models, asked, self.repeats, self.ceilings)

    def agreement(self) -> dict[str, Any]:
        """How close the compiled student is to the student."""
        return encoding.agreement(self.models, self._documents(600 if self.small else 6_000))

    def rerank(self) -> dict[str, Any]:
        """The teacher over the documents of a query, of mixed length."""
        documents = texts.documents(self.folders, 50_000, self.models.student.reranker.prompt)
        return self._rerank(documents[: 4 if self.small else 100])

    def rerank_long(self) -> dict[str, Any]:
        """The same over documents of 512 tokens, each put together of several."""
        prompt = self.models.student.reranker.prompt
        count, length = (4, 60) if self.small else (20, 512)
        pool = texts.documents(self.folders, 3 * count * length, prompt)
        return self._rerank([texts.with_tokens(pool[place::count], length, prompt) for place in range(count)])

    def _rerank(self, documents: list[str]) -> dict[str, Any]:
        asked = texts.queries(Path("example"), self.repeats + 1)
        return scoring.rerank(self.models, asked, documents, self.repeats)

    def stage_one(self) -> dict[str, Any]:
        """Training the teacher."""
        return training.stage_one(self.models, Dataset.example(), 2 if self.small else 8, 5, self.repeats)

    def stage_three(self) -> dict[str, Any]:
        """Training the predictor."""
        size = (4, 3, 2) if self.small else (16, 15, 256)
        return training.stage_three(self.models, Dataset.example(), self.store, *size)

    def _documents(self, tokens: int) -> list[str]:
        return texts.documents(self.folders, tokens, self.models.student.reranker.prompt)


_HEAD = """# Benchmarks

Made by `make report` from `benchmarks/results.json`, which `make bench DATA=FOLDER` wrote
({date}; {base}; {machine}).

The *limit* is the larger of two: the FLOP of the linear maps on real tokens at the speed of the model's own matrix
products, and every weight read once; both were measured between the repetitions. What to do with all this:
[performance](performance.md)."""


def page(report: dict[str, Any]) -> str:
    """A results file as a page of the documentation."""
    machine_ = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in report["machine"].items())
    found = report["ceilings_giga_per_second"]
    rows = [f"| {name} | {_show(each['median'])} | {_show(each['best'])} |" for name, each in found.items()]
    limits = [
        "",
        "### ceilings",
        "",
        "GFLOP/s of matrix products, GB/s of memory",
        "",
        "| | median | best |",
        "|---|---:|---:|",
    ]
    head = _HEAD.format(date=report["date"], base=report["base"], machine=machine_)
    return "\n".join([head, *limits, *rows, "", table(report)])


def table(report: dict[str, Any]) -> str:
    """The report's systems as Markdown, a table for each part."""
    lines = []
    for name, part in report["parts"].items():
        facts = ", ".join(
            f"{key.replace('_', ' ')} {_show(value)}" for key, value in part.items() if not isinstance(value, dict)
        )
        lines += ["", f"### {name}", "", facts, ""]
        rows = part.get("systems", {})
        if rows:
            columns = list(next(iter(rows.values())))
            lines += [f"| | {' | '.join(column.replace('_', ' ') for column in columns)} |"]
            lines += ["|---|" + "---:|" * len(columns)]
            lines += [f"| {row} | {' | '.join(_show(found[c]) for c in columns)} |" for row, found in rows.items()]
    return "\n".join(lines).strip()


def _show(value: Any) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m", help="the language model")
    parser.add_argument("--data", type=Path, help="a folder of datasets in BEIR layout, for texts of mixed length")
    parser.add_argument("--dtype", default="auto", choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--work", type=Path, default=Path("benchmark-models"), help="where exports are kept")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--small", action="store_true", help="a few texts, to see that all of it runs")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--show", type=Path, metavar="FILE", help="print what an earlier run wrote, as a page")
    options = parser.parse_args(arguments)
    if options.show:
        print(page(json.loads(options.show.read_text())))
        return
    benchmark = Benchmark(options)
    wanted = options.only.split(",") if options.only else list(benchmark.parts)
    if unknown := set(wanted) - set(benchmark.parts):
        parser.error(f"no part is called {', '.join(sorted(unknown))}; there are {', '.join(benchmark.parts)}")
    report: dict[str, Any] = {"base": options.base, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    report["parts"] = {}
    for name in wanted:
        report["parts"][name] = benchmark.parts[name]()
        report["ceilings_giga_per_second"] = benchmark.ceilings.report()
        if options.output:
            options.output.write_text(json.dumps(report, indent=1) + "\n")
        print(table({"parts": {name: report["parts"][name]}}), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
