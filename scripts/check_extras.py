"""One by one, each extra of the wheel does its work in an environment that has nothing else.

    python scripts/check_extras.py WHEEL FOLDER [EXTRA ...]

``FOLDER`` holds a virtual environment ``clean`` with the wheel alone, and an index ``skills`` made by it:
scripts/check_package.sh leaves them there. Each extra is installed into an environment of its own on top of that one,
so that what it forgets to ask for is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"

VERB = "from rabtriever.cli import main; assert main({}) == 0"
STUDENT = "from rabtriever import Index, Retriever; student = Retriever.from_pretrained('robot-skills'); "
WORK = {
    "eval": VERB.format(["evaluate", "robot-skills", "example", "--systems", "bm25", "--limit", "5"]),
    "fast": "from rabtriever import Index; print(Index.open('skills').accelerate())",
    "serve": "import json, signal, subprocess, sys, urllib.request; "
    "server = subprocess.Popen([sys.executable, '-m', 'rabtriever', 'serve', 'skills', '--port', '0', '--json'], "
    "stdout=subprocess.PIPE, text=True); url = json.loads(server.stdout.readline())['url']; "
    "print(urllib.request.urlopen(url + '/health').read()); server.send_signal(signal.SIGTERM); "
    "assert server.wait() == 0",
    "export": VERB.format(["export", "robot-skills", "out-export", "--to", "sentence-transformers"])
    + "; from sentence_transformers import SentenceTransformer; print(SentenceTransformer('out-export'))",
    "onnx": VERB.format(["export", "robot-skills", "out-onnx", "--to", "onnx"]),
    "openvino": VERB.format(["export", "robot-skills", "out-openvino", "--to", "openvino"]),
    "qdrant": VERB.format(["push", "skills", "--to", "qdrant", "out-qdrant"]),
    "milvus": VERB.format(["push", "skills", "--to", "milvus", "out-milvus.db"]),
    # Its driver gets as far as the port, where nobody listens.
    "pgvector": "from rabtriever.push.engine import connect\nfrom rabtriever import InputError\n"
    "try:\n    connect('pgvector', 'postgresql://me@127.0.0.1:1/x').exists()\n"
    "except InputError as error:\n    assert 'see that it runs' in str(error), error",
    "langchain": STUDENT + "from rabtriever.integrations.langchain import RabtrieverEmbeddings; "
    "assert len(RabtrieverEmbeddings(student).embed_query('mug')) == student.dimension",
    "llama-index": STUDENT + "from rabtriever.integrations.llama_index import RabtrieverEmbedding; "
    "assert len(RabtrieverEmbedding(student).get_query_embedding('mug')) == student.dimension",
    "haystack": STUDENT + "from rabtriever.integrations.haystack import RabtrieverTextEmbedder; "
    "assert RabtrieverTextEmbedder(student).run(text='mug')",
    "rerankers": "from rabtriever import Reranker; from rabtriever.integrations.rerankers import RabtrieverRanker; "
    "assert RabtrieverRanker(Reranker.from_pretrained('robot-skills')).rank(query='mug', docs=['a', 'b'])",
    "mteb": STUDENT + "from rabtriever.integrations.mteb import RabtrieverEncoder; RabtrieverEncoder(student)",
    "mcp": "from rabtriever.integrations.mcp import NewDocument",
    "docs": "import material, mkdocstrings",
    "ray": VERB.format(["index", "robot-skills", "my-skills", "-o", "by-ray", "--ray", "local"]),
}
"""What each extra is for, in a line of Python. The extra ``dev`` is for the tests, which are its own check."""


def check(extra: str, wheel: Path, folder: Path) -> None:
    """Install one extra and let it work; what it prints is shown where it fails."""
    place = folder / f"extra-{extra}"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    (packages,) = (folder / "clean" / "lib").glob("python*/site-packages")
    (mine,) = (place / "lib").glob("python*/site-packages")
    (mine / "clean.pth").write_text(f"{packages}\n")
    python = place / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", CONSTRAINTS]
    subprocess.run([*install, f"rabtriever[{extra}] @ {wheel.resolve().as_uri()}"], check=True)
    done = subprocess.run(
        [python, "-c", WORK[extra]],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the extra {extra} does not do its work:\n{done.stdout}\n{done.stderr}")
    print(f"{extra}: works", flush=True)  # noqa: T201


if __name__ == "__main__":
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if missing := extras.keys() - WORK.keys() - {"dev"}:
        raise SystemExit(f"nothing is known here that {', '.join(sorted(missing))} should do")
    for name in sys.argv[3:] or sorted(WORK):
        check(name, Path(sys.argv[1]), Path(sys.argv[2]))
