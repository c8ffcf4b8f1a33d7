"""The model card says what the model is, how it was made and how to use it."""

from __future__ import annotations

import re

import pytest
import yaml

from rabtriever.artifacts import ArtifactConfig, BaseIdentity
from rabtriever.model_card import model_card, with_results

TRAINING = {
    "teacher": {
        "steps": 110,
        "dev_mrr": 0.47382,
        "data": "f00d",
        "seed": 3,
        "config": {"lora": {"rank": 16}, "epochs": 3.0},
    },
    "results": [
        {
            "dataset": "household",
            "split": "test",
            "queries": 80,
            "systems": {"student": {"R@1": 0.51251, "MRR@10": 0.6}, "bm25": {"R@1": 0.05, "ms_per_query": 0.1}},
        }
    ],
}


def config(kind: str = "retriever", base: str = "smollm2-135m", **changes: object) -> ArtifactConfig:
    values = {
        "kind": kind,
        "base": BaseIdentity(name=base, fingerprint="ab" * 32, architecture="LlamaForCausalLM", hidden_size=576),
        "weights_hash": "12",
        "tokenizer_fingerprint": "cd",
        "prompt": {"max_document_tokens": 512, "max_query_tokens": 256},
        "prompt_hash": "ef",
        "true_id": 1,
        "false_id": 2,
        "adapter": False,
        "predictor": {"layers": 2} if kind == "retriever" else None,
        "training": TRAINING,
    }
    return ArtifactConfig.model_validate({**values, **changes})


def front_matter(card: str) -> dict[str, object]:
    match = re.match(r"---\n(.*?)---\n", card, re.DOTALL)
    assert match
    found = yaml.safe_load(match[1])
    assert isinstance(found, dict)
    return found


def test_front_matter() -> None:
    assert front_matter(model_card(config(), "household")) == {
        "library_name": "rabtriever",
        "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "pipeline_tag": "feature-extraction",
        "tags": ["rabtriever", "rationale-based-retrieval", "retriever"],
    }
    assert front_matter(model_card(config(base="Qwen/Qwen3-0.6B"), "household"))["base_model"] == "Qwen/Qwen3-0.6B"
    local = front_matter(model_card(config(kind="reranker", base="/data/models/my-model"), "household"))
    assert {"base_model", "license"}.isdisjoint(local)  # neither is known of a local folder
    assert local["pipeline_tag"] == "text-ranking"


def test_the_path_of_a_local_base_model_stays_private() -> None:
    card = model_card(config(base="/data/models/my-model"), "household")
    assert "| Base model | my-model (" in card
    assert "/data" not in card


def test_results_settings_and_facts_are_shown() -> None:
    card = model_card(config(), "household")
    assert "On household, split test, 80 queries:" in card
    assert "|  | R@1 | R@3 | R@5 | MRR@10 | nDCG@10 | ms_per_query | queries |" in card
    assert "| student | 0.5125 |  |  | 0.6 |  |  |  |" in card
    assert "| bm25 | 0.05 |  |  |  |  | 0.1 |  |" in card
    assert "| dev mrr | 0.4738 |" in card
    assert "  rank: 16\n" in card
    assert "at most 512 tokens" in card


@pytest.mark.parametrize("kind", ["reranker", "retriever"])
def test_the_example_is_python(kind: str) -> None:
    card = model_card(config(kind=kind), "household")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code
    compile(code[1], "card", "exec")
    assert 'from_pretrained("household")' in code[1]


@pytest.mark.parametrize(
    "training", [{}, {"results": []}, {"results": [{"systems": {}}]}, {"teacher": 1, "results": [1]}]
)
def test_a_card_without_results(training: dict[str, object]) -> None:
    card = model_card(config(training=training), "household")
    assert "## Results" not in card
    assert "## Limits" in card


def test_names_cannot_break_a_table() -> None:
    systems = {"a|b\nc": {"R@1": 1.0}}
    card = model_card(config(training={"results": [{"systems": systems}]}), "household")
    assert "| a\\|b c | 1 |" in card


@pytest.mark.parametrize("kind", ["reranker", "retriever"])
def test_training_data_and_intended_use_are_named(kind: str) -> None:
    card = model_card(config(kind=kind, training={"teacher": {"dataset": "household", "data": "f00d"}}), "my-model")
    assert "| dataset | household |" in card
    assert "## Intended use\n\nTo " in card


def test_new_results_leave_what_was_written_by_hand() -> None:
    def evaluated(value: float, split: str = "test") -> ArtifactConfig:
        found = {"dataset": "d", "split": split, "queries": 3, "systems": {"student": {"R@1": value}}}
        return config(training={"results": [found]})

    generated = model_card(config(training={}), "household")
    written = generated.replace("## How it was made", "## Training data\n\nOur own.\n\n## How it was made")
    first = with_results(written, evaluated(0.25))
    assert first.replace(first[first.index("## Results") : first.index("## How it")], "") == written
    assert "| student | 0.25 |" in first
    second = with_results(first, evaluated(0.5))
    assert second == first.replace("| student | 0.25 |", "| student | 0.5 |")
    assert with_results(second, evaluated(0.5)) == second
    own = with_results("# Mine\n\nNo headings of the usual kind.\n", evaluated(0.5))
    assert own.startswith("# Mine\n\nNo headings of the usual kind.\n")
    assert "| student | 0.5 |" in own
    assert model_card(evaluated(0.5), "household") == with_results(generated, evaluated(0.5))
    assert "| student | 71,179 |" in with_results(written, evaluated(71_178.6))


@pytest.mark.parametrize("start", [None, {"power": 0.5, "dev_mrr": 0.7512}])
def test_where_a_student_started_is_told_if_it_started_somewhere(start: dict[str, float] | None) -> None:
    card = model_card(config(training={"distill": {"epochs": 3, "dev_mrr": 0.76, "start": start}}), "household")
    assert ("at the inner product of the teacher's own states" in card) == (start is not None)
    assert ("| power | 0.5" in card) == (start is not None)
