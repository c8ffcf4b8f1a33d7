"""SmolLM2-135M, exported, in a process that cannot import this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rabtriever import Reranker, Retriever
from rabtriever.export import export_cross_encoder, export_sentence_transformers
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import PromptConfig
from toy_data import NEEDS, TOOLS

pytestmark = pytest.mark.slow

ALLOWED = 5e-5
"""Of the largest number: rounding in float32 over thirty layers."""

ALONE = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rabtriever":
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
try:
    import rabtriever
except ImportError as error:
    assert "blocked" in str(error)
else:
    raise SystemExit("rabtriever could be imported")

import numpy
from sentence_transformers import CrossEncoder, SentenceTransformer

folder, texts = sys.argv[1], json.loads(sys.argv[2])
student = SentenceTransformer(folder + "/student", device="cpu", local_files_only=True)
teacher = CrossEncoder(folder + "/teacher", device="cpu", local_files_only=True)
queries, documents = student.encode_query(texts), student.encode_document(texts)
numpy.savez(
    folder + "/found.npz", queries=queries, documents=documents, similarities=student.similarity(queries, documents),
    scores=teacher.predict([[text, texts[-1 - place]] for place, text in enumerate(texts)]),
)
"""


def test_the_package_is_not_needed(smollm2: Path, tmp_path: Path) -> None:
    prompt = PromptConfig(max_document_tokens=64, max_query_tokens=48)
    teacher = Reranker.from_pretrained(smollm2, prompt=prompt, dtype="float32")
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    student = Retriever(teacher, predictor)
    student.save_pretrained(tmp_path / "model")
    export_sentence_transformers(tmp_path / "model", tmp_path / "student")
    export_cross_encoder(tmp_path / "model", tmp_path / "teacher")
    texts = [
        "",
        "a",
        " two  spaces",
        "<|im_end|>\n<T>",
        "\U0001f469\u200d\U0001f680 \u05e9\u05dc\u05d5\u05dd",
        *NEEDS[:3],
    ]
    subprocess.run([sys.executable, "-I", "-c", ALONE, str(tmp_path), json.dumps(texts)], check=True)
    found = np.load(tmp_path / "found.npz")
    queries, documents = student.encode_query(texts), student.encode_document(texts)
    expected = {
        "queries": queries,
        "documents": documents,
        "similarities": queries @ documents.T,
        "scores": teacher.score_pairs([(text, texts[-1 - place]) for place, text in enumerate(texts)]),
    }
    for name, right in expected.items():
        worst = np.abs(found[name] - right).max() / np.abs(right).max()
        print(f"{name}: {worst:.1e}")
        assert worst <= ALLOWED, f"{name}: {worst:.1e}"
