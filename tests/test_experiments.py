"""The experiments' scripts: which commands they run, and what the report makes of the results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import Dataset
from rabtriever.data import Document, Query
from rabtriever.evaluation import Report, SystemResult
from rabtriever.evaluation.measures import MEASURES

FOLDER = Path(__file__).parents[1] / "experiments"


def run(script: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def reported(values: dict[str, list[float]], path: Path, gpu: str | None = None) -> None:
    systems = {
        name: SystemResult(name, {m: {f"q{i}": v for i, v in enumerate(found)} for m in MEASURES}, 1.0, 0.0)
        for name, found in values.items()
    }
    environment = {"machine": {"accelerator": gpu}} if gpu else None
    Report("saycan", "0123456789abcdef", "test", 4, 0, systems, environment).save(path)


def results_text(folder: Path) -> str:
    """What the report says of the results in a folder."""
    run("report.py", "--results", folder, "-o", folder / "results.md", cwd=folder)
    return (folder / "results.md").read_text()


def test_the_report_states_what_the_files_say(tmp_path: Path) -> None:
    reported({"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 0], "bm25": [0, 0, 0, 0]}, tmp_path / "saycan.json")
    reported({"student": [1, 1, 1, 0]}, tmp_path / "saycan-seed1.json")
    text = results_text(tmp_path)
    assert "| **student** (folded) | 0.625 ± 0.177 |" in text
    assert "| teacher | 0.750 |" in text
    assert "83 % of its R@1 (67, 100)" in text
    assert "| teacher | R@1 | 4 | -0.125 |" in text  # the mean of the seeds
    assert "the student keeps 94.5 % of R@1" in text  # the paper's
    assert "## esconv" not in text
    assert "| | saycan | saycan, the paper |" in text
    assert "| **student** (folded) | 62.5 / " in text
    assert "| 67.3 / 73.7 |" in text
    assert "DPO" not in text


def test_the_table_of_all_systems_takes_the_best_of_a_row_and_says_of_how_many_queries(tmp_path: Path) -> None:
    values = {
        "student": [1, 1, 0, 0],
        "dense:a-0.1": [0, 0, 0, 1],
        "dense:a-0.2": [0, 1, 0, 1],
        "dense:a-prompted": [0, 0, 0, 0],
        "dense:a-swapped": [0, 0, 1, 0],
    }
    reported(values | {"teacher": [1, 1, 0, 0], "linear-head": [1, 1, 1, 0]}, tmp_path / "alfred.json")
    reported({"teacher": [1, 0, 0, 0], "student": [1, 0, 0, 0]}, tmp_path / "alfred-dpo.json")
    reported({"teacher": [1, 1, 0, 0], "student": [1, 1, 0, 0], "rerank": [1, 1, 1, 0]}, tmp_path / "alfred-dpo1.json")
    report = json.loads((tmp_path / "alfred.json").read_text())
    report["systems"]["linear-head"]["queries"] = 3
    (tmp_path / "alfred.json").write_text(json.dumps(report))
    lines = results_text(tmp_path).splitlines()
    assert any(line.startswith("| bi-encoder, same backbone, swapped | 0.250 |") for line in lines)
    for rate, found in (("0.1", "0.250"), ("0.2", "0.500")):  # which two of one name would not tell apart
        assert any(line.startswith(f"| bi-encoder, same backbone, rate {rate} | {found} |") for line in lines)
    table = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in lines[8:20] if line.startswith("| ")}
    assert table["bi-encoder, same backbone"].startswith("50.0 / ")
    assert table["the same, prompted"].startswith("0.0 / ")
    assert table["teacher, by DPO"] == "37.5 / 37.5"  # the mean of two
    assert table["teacher"] == "50.0 / 50.0"
    assert [line for line in lines if line.startswith("A teacher trained by DPO")][1].endswith(
        "teacher 0.500 / 0.500 (4 queries, 1 ms), student 0.500 / 0.500 (4 queries, 1 ms), "
        "student, then teacher 0.750 / 0.750 (4 queries, 1 ms)."
    )
    assert table["reranker with a linear head"].endswith("(3)")


def test_a_teacher_that_reads_apart_has_rows_and_a_section_of_its_own(tmp_path: Path) -> None:
    reported({"student": [1, 1, 0, 0], "teacher": [1, 1, 0, 0]}, tmp_path / "saycan.json")
    values = {"student": [1, 1, 1, 0], "teacher": [1, 1, 0, 0], "student:saycan": [1, 1, 0, 0]}
    reported(values, tmp_path / "saycan-next.json")
    reported({"student": [1, 1, 1, 1]}, tmp_path / "saycan-next-seed1.json")
    text = results_text(tmp_path)
    assert "| teacher, next-text words, trained to read apart | 50.0 / 50.0 |" in text
    assert "| **student** (folded), next-text words, trained to read apart | 87.5 / 87.5 |" in text
    section = text[text.index("## saycan-next") :]
    assert "saycan-next.yaml" in section
    assert "175 % of its R@1 (150, 200)" in section
    assert "| **student** (folded), saycan | R@1 | 4 | +0.375 |" in section
    assert "On one" not in section  # a GPU


def test_a_prompted_bi_encoder_beside_the_next_texts_words_is_in_the_table_of_all_systems(tmp_path: Path) -> None:
    reported({"student": [1, 0, 0, 0], "teacher": [1, 1, 0, 0]}, tmp_path / "esconv.json")
    path = tmp_path / "esconv-next.json"
    reported({"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 0], "dense:a-prompted": [1, 1, 1, 1]}, path, "SOME GPU")
    text = results_text(tmp_path)
    assert "| the same, prompted | 100.0 / 100.0 |" in text
    assert "| **student** (folded) | 25.0 / 25.0 |" in text
    assert "On one SOME GPU" in text[text.index("## esconv-next") :]


def test_a_prompted_bi_encoder_of_one_part_is_no_row_with_anothers_end_token(tmp_path: Path) -> None:
    dense = {
        "saycan": {"dense:a": [0, 1, 0, 0], "dense:a-prompted": [1, 1, 1, 1]},
        "saycan-fold1": {"dense:a": [1, 1, 0, 0]},
    }
    for part, found in dense.items():
        path = tmp_path / f"{part}.json"
        reported({"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 1]} | found, path)
        path.write_text(re.sub(r'"q(\d)"', rf'"{part}-\1-0"', path.read_text()))
    assert "| bi-encoder, same backbone (parts 0, 1) | 0.375 | 0.375 | 0.375 | 0.375 | 0.250, 0.500 |" in results_text(
        tmp_path
    )


@pytest.mark.parametrize("name", ["saycan", "esconv", "alfred"])
def test_an_experiments_commands_are_known_to_the_command_line(name: str, tmp_path: Path) -> None:
    for rate, mrr in (("0.0001", 0.4), ("0.0003", 0.5)):
        folder = tmp_path / "models" / f"{name}-bi-encoder-{rate}"
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps({"dev_mrr": [0.1, mrr, 0.2]}))
    lines = run("run.py", name, "--data", "DATA", "--results", tmp_path, "--dry-run", cwd=tmp_path).splitlines()
    assert sum("there already" in line for line in lines) >= 2
    trained = "models/saycan-swapped" if name == "saycan" else f"DATA/{name}"
    for line in lines:
        if " -m rabtriever " in line:
            assert f" {f'DATA/{name}' if ' evaluate ' in line else trained} " in line
    verbs = [line.split(" -m rabtriever ")[1].split()[0] for line in lines if " -m rabtriever " in line]
    assert verbs[:2] == ["train", "evaluate" if name == "alfred" else "distill"]  # one seed
    chosen = [line for line in lines if "dense:" in line]
    assert chosen
    assert all("bi-encoder-0.0003" in line for line in chosen)  # by dev
    if name == "esconv":  # its labels are those of the student, its dialogues lose their start
        untrained = ["--data", "DATA", "--models", "none", "--results", tmp_path, "--dry-run"]
        trained = run("run.py", name, *untrained, cwd=tmp_path)
        assert trained.count("--queries 9500 --whole-corpus --keep-end") == 2
    assert (FOLDER / f"{name}.yaml").exists()


@pytest.mark.parametrize(("name", "merged"), [("general", 2), ("facts", 3)])
def test_merged_datasets_are_made_and_unseen_ones_tested(name: str, merged: int, tmp_path: Path) -> None:
    lines = run("run.py", name, "--data", "DATA", "--results", tmp_path, "--dry-run", cwd=tmp_path).splitlines()
    assert sum(f"DATA/{folder}" in lines[0] for folder in ("msmarco-small", "e-care", "entailmentbank")) == merged
    assert ("--train 1200" in lines[0]) == (name == "facts")
    unseen = [line for line in lines if "zero-shot-" in line]
    assert len(unseen) == 4
    assert all(f"models/{name} DATA/" in line for line in unseen)
    assert all(("dense:models/facts-bi-encoder-0.0003" in line) == (name == "facts") for line in unseen)
    trained = [line for line in lines if "bi_encoder.py" in line]
    assert len(trained) == (name == "facts")
    assert not any("--queries" in line.split() for line in trained)  # merged of as many as are to be read
    assert (FOLDER / f"{name}.yaml").exists()


def test_times_are_measured_against_length_and_number(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    # Sizes far apart and several rounds, so that what grows shows over what else the machine does; three times at most.
    sizes = ["--lengths", "16,256", "--numbers", "4,16384", "--most", "8", "--rounds", "5"]
    for attempt in range(3):
        out = tmp_path / f"{attempt}.json"
        run("complexity.py", "--base", tiny_folder("llama"), "-o", out, *sizes, cwd=tmp_path)
        found = json.loads(out.read_text())
        assert len(found["lengths"]["ms"][0]) == len(found["numbers"]["ms"][0]) == 4
        assert set(found["numbers"]["ms"][1]) == {"student, document by document", "student, folded"}  # beyond --most
        exponent = found["exponents"]
        more = exponent["number"]["student, document by document"] - exponent["number"]["student, folded"]
        longer = exponent["length"]["teacher"] - exponent["length"]["student, folded"]
        if min(more, longer) > 0:
            break
    assert more > 0
    assert longer > 0


def test_datasets_are_merged_and_a_large_one_is_thinned(tmp_path: Path) -> None:
    example = Dataset.example()
    for name in ("one", "other"):
        example.save(tmp_path / name)
    run("merge.py", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "whole", cwd=tmp_path)
    run("merge.py", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "thin", "--train", 3, cwd=tmp_path)
    whole, thin = Dataset.load(tmp_path / "whole"), Dataset.load(tmp_path / "thin")
    assert len(whole.corpus) == len(thin.corpus) == 2 * len(example.corpus)
    for split in example.splits:
        assert len(whole.split(split)) == 2 * len(example.split(split))
    query = example.split("test")[0]
    expected = {f"other:{id_}" for id_ in example.relevant("test", query.id)}
    assert whole.relevant("test", f"other:{query.id}") == expected
    assert sorted(query.id.partition(":")[0] for query in thin.split("train")) == ["one"] * 3 + ["other"] * 3
    assert len(thin.split("test")) == len(whole.split("test"))


def test_words_are_swapped_alike_in_task_and_steps(tmp_path: Path) -> None:
    things = ["coke", "coke can", "apple", "tea"]
    skills = [f"{verb} {thing}" for verb in ("find a", "pick up the", "put down the") for thing in things]
    skills += ["go to the table", "go to the counter", "go to the drawer", "open the drawer", "done"]
    corpus = {skill: Document(skill, skill) for skill in skills}
    texts = {
        "a": "Task: put a coke can on the table\nSteps so far: 1. find a coke can. 2. pick up the coke can.",
        "b": "Task: bring me an apple, not a coke\nSteps so far: 1. go to the drawer. 2. open the drawer.",
        "c": "Task: dance\nSteps so far: none",
    }
    queries = {key: Query(key, text) for key, text in texts.items()} | {"t": Query("t", "Task: lift the tea")}
    qrels = {"train": {key: {"done": 1} for key in texts}, "test": {"t": {"done": 1}}}
    Dataset("skills", corpus, queries, qrels).save(tmp_path / "skills")
    run("swap_words.py", "skills", "-o", "more", "--queries", 5, cwd=tmp_path)
    more = Dataset.load(tmp_path / "more")
    new = [query.text for query in more.unjudged]
    assert len(set(new)) == 5  # three of the first, two of the second, none of the third
    assert not set(new) & {query.text for query in queries.values()}
    assert set(more.queries) > set(queries)
    for text in new:
        if "put " in text:
            thing = text.split("put ")[1].split(" on the ")[0]
            article, word = thing.split(" ", 1)
            assert word in {"coke", "apple", "tea"}
            assert article == ("an" if word == "apple" else "a")
            assert f"on the counter\nSteps so far: 1. find {thing}. 2. pick up the {word}." in text
        else:  # a drawer can be opened, so it is no place to exchange; "coke" is not "coke can"
            assert "1. go to the drawer. 2. open the drawer." in text
            first, second = text.removeprefix("Task: bring me ").split("\n")[0].split(", not ")
            assert {first.split(" ", 1)[1], second.split(" ", 1)[1]} == {"coke can", "tea"}
    assert any("put " in text for text in new)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("swap_words.py", "skills", "-o", "many", "--queries", 50, cwd=tmp_path)
    assert "ask for fewer" in caught.value.stderr


def test_labels_are_swapped_along_where_the_corpus_has_the_skill(tmp_path: Path) -> None:
    skills = ["find a coke", "find the tea", "find an apple", "pick up the coke", "pick up the tea", "done"]
    corpus = {skill: Document(skill, skill) for skill in skills}
    first, then = (
        "Task: bring me a coke\nSteps so far: none",
        "Task: bring me an apple\nSteps so far: 1. find an apple.",
    )
    other = "Task: something sour, no tea\nSteps so far: none"
    queries = {key: Query(key, text) for key, text in {"a": first, "b": then, "c": other}.items()}
    right = {"a": "find a coke", "b": "pick up the coke", "c": "find an apple"}
    qrels = {"train": {key: {skill: 1} for key, skill in right.items()}, "test": {"a": {"done": 1}}}
    Dataset("skills", corpus, queries, qrels).save(tmp_path / "skills")
    run("swap_words.py", "skills", "-o", "more", "--queries", 4, "--labelled", cwd=tmp_path)
    more = Dataset.load(tmp_path / "more")
    assert not more.unjudged
    assert {key: more.relevant("train", key) for key in right} == {key: {skill} for key, skill in right.items()}
    assert more.qrels["test"] == qrels["test"]
    assert {text.text: more.relevant("train", text.id) for text in more.split("train") if text.id not in right} == {
        "Task: bring me a tea\nSteps so far: none": {"find the tea"},  # the corpus has no "find a tea"
        "Task: bring me an apple\nSteps so far: none": {"find an apple"},
        # "coke" is not named by the query, so it is right still, and nothing else may become it
        "Task: bring me a tea\nSteps so far: 1. find a tea.": {"pick up the coke"},
        "Task: something sour, no coke\nSteps so far: none": {"find an apple"},
    }
    with pytest.raises(subprocess.CalledProcessError):  # an apple cannot be picked up
        run("swap_words.py", "skills", "-o", "many", "--queries", 5, "--labelled", cwd=tmp_path)


def skill_dataset() -> Dataset:
    """Twelve tasks of one to three steps, two of which are asked for in two ways, in three splits."""
    tasks = [f"Bring me thing {i}." for i in range(10)]
    tasks += ["Can you bring me thing 0?", "How would you bring me thing 1?"]
    queries, qrels = {}, {"train": {}, "dev": {}, "test": {}}
    for i, task in enumerate(tasks):
        for step in range(1 + i % 3):
            query = Query(f"i{i}-{step}", f"Instruction: {task}\nSteps so far: {step}")
            queries[query.id] = query
            qrels["test" if i in (4, 5) else "dev" if i == 3 else "train"][query.id] = {"d": 1}
    return Dataset("skills", {"d": Document("d", "done")}, queries, qrels)


def test_parts_of_a_cross_validation_hold_each_query_once_and_a_tasks_together(tmp_path: Path) -> None:
    original = skill_dataset()
    original.save(tmp_path / "skills")
    tested = [{query.id for query in original.split("test")}]
    for part in (1, 2):
        run("folds.py", "skills", "-o", f"fold{part}", "--parts", 3, "--part", part, cwd=tmp_path)
        found = Dataset.load(tmp_path / f"fold{part}")
        splits = {name: {query.id for query in found.split(name)} for name in ("train", "dev", "test")}
        assert all(splits.values())
        assert sum(map(len, splits.values())) == len(original.queries)
        assert set.union(*splits.values()) == set(original.queries)
        instructions = {name: {id_.partition("-")[0] for id_ in ids} for name, ids in splits.items()}
        assert sum(map(len, instructions.values())) == 12  # none in two
        for one, other in (("i0", "i10"), ("i1", "i11")):  # asked for otherwise
            assert any({one, other} <= ids for ids in instructions.values())
        tested.append(splits["test"])
    assert set.union(*tested) == set(original.queries)
    assert sum(map(len, tested)) == len(original.queries)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("folds.py", "skills", "-o", "none", "--parts", 3, "--part", 3, cwd=tmp_path)
    assert "one of 1 to 2" in caught.value.stderr


def test_a_part_is_trained_on_by_its_datasets_settings(tmp_path: Path) -> None:
    fixed = ["--data", "DATA", "--results", tmp_path, "--dry-run"]
    lines = run("run.py", "saycan-fold2", *fixed, cwd=tmp_path).splitlines()
    assert "folds.py DATA/saycan -o models/saycan-fold2-data --parts 4 --part 2" in lines[0]
    assert "swap_words.py models/saycan-fold2-data -o models/saycan-fold2-data-swapped" in lines[1]
    assert "train models/saycan-fold2-data-swapped -o models/saycan-fold2 --config" in lines[2]
    assert lines[2].endswith("experiments/saycan.yaml")
    assert "evaluate models/saycan-fold2 models/saycan-fold2-data --systems student,teacher,bm25" in lines[3]


def test_parts_are_reported_as_one_and_a_teacher_of_the_lower_half_beside_them(tmp_path: Path) -> None:
    for part, student in (("saycan", [1, 1, 0, 0]), ("saycan-fold1", [1, 1, 1, 0])):
        reported({"student": student, "teacher": [1, 1, 1, 1], "bm25": [0, 0, 0, 0]}, tmp_path / f"{part}.json")
        named = re.sub(r'"q(\d)"', rf'"{part}-\1-0"', (tmp_path / f"{part}.json").read_text())
        (tmp_path / f"{part}.json").write_text(named)
    reported({"student": [1, 0, 0, 0], "teacher": [1, 1, 1, 1]}, tmp_path / "saycan-half.json")
    reported({"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 1]}, tmp_path / "saycan-dpo.json", gpu="A100")
    text = results_text(tmp_path)
    assert "lower half, and its student: R@1 / MRR@10 teacher 1.000 / 1.000 (4 queries, 1 ms), student 0.250" in text
    assert "| **student** (folded) | 0.625 | 0.625 | 0.625 | 0.625 | 0.500, 0.750 |" in text
    assert "The student keeps 62 % of its teacher's R@1" in text
    assert "by DPO, on one A100, and its student: R@1 / MRR@10 teacher 1.000 / 1.000 (4 queries), student" in text
    assert "(part" not in text
    assert "50 % of its R@1" in text
    (tmp_path / "saycan-fold1.json").write_text(named.replace('"saycan-fold1-', '"saycan-'))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        results_text(tmp_path)
    assert "in another part as well" in caught.value.stderr


def test_several_teachers_count_once_each_however_many_students_they_have(tmp_path: Path) -> None:
    values = {"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 0], "dense:a": [0, 0, 0, 0]}
    reported(values, tmp_path / "saycan.json")
    reported({"student": [1, 0, 0, 0]}, tmp_path / "saycan-seed1.json")
    assert "### saycan, several teachers" not in results_text(tmp_path)
    reported({"student": [1, 1, 1, 1], "teacher": [1, 1, 0, 0]}, tmp_path / "saycan-teacher1.json", gpu="A100")
    text = results_text(tmp_path)
    assert "| **student** (folded) | 68.8 / 68.8 |" in text  # of 37.5 and 100, where three students would make 58.3
    assert "| teacher | 62.5 / 62.5 |" in text
    section = text[text.index("### saycan, several teachers") :]
    assert "(students: 2, 1)" in section
    assert "| processors | 0.750 | 0.750 | 0.375 | 0.375 | 50 % |" in section
    assert "| A100 | 0.500 | 0.500 | 1.000 | 1.000 | 200 % |" in section
    assert "| mean | 0.625 ± 0.177 | 0.625 ± 0.177 | 0.688 ± 0.442 | 0.688 ± 0.442 | 125 % |" in section
    assert "| student | teacher | +0.062 (" in section
    assert "| student | bi-encoder, same backbone | +0.688 (" in section
    assert "document map" not in text
    reported({"student": [1, 1, 1, 0]}, tmp_path / "saycan-rank256.json")
    reported({"student": [1, 1, 1, 1]}, tmp_path / "saycan-rank256-teacher1.json")
    section = results_text(tmp_path)
    assert "| A100 | 0.500 | 0.500 | 1.000 | 1.000 | 1.000 | 1.000 | 200 % |" in section
    assert "| student with a document map | **student** (folded), no document map | +0.188 (" in section


def test_a_teacher_of_a_part_of_the_queries_is_compared_on_those(tmp_path: Path) -> None:
    for name in ("esconv", "esconv-teacher1"):
        path = tmp_path / f"{name}.json"
        reported({"student": [1, 0, 1, 1], "teacher": [1, 1, 0, 0]}, path)
        report = json.loads(path.read_text())
        report["systems"]["teacher"] |= {"queries": 2, "R@1": 1.0}
        for measure, values in report["per_query"]["teacher"].items():
            report["per_query"]["teacher"][measure] = {"q0": values["q0"], "q1": values["q1"]}
        path.write_text(json.dumps(report))
    section = results_text(tmp_path)
    section = section[section.index("### esconv, several teachers") :]
    assert "| processors | 1.000 (2) | 0.500 (2) | 0.750 | 0.750 | 50 % |" in section
    assert "| student | teacher | -0.500 (" in section


def test_a_bi_encoder_of_some_parts_stands_beside_the_student_of_the_same(tmp_path: Path) -> None:
    for part in ("saycan", "saycan-fold1", "saycan-fold2"):
        values = {"student": [1, 1, 0, 0], "teacher": [1, 1, 1, 1]}
        if part == "saycan-fold1":
            values |= {"dense:a": [0, 0, 0, 0], "dense:b": [1, 0, 0, 0], "dense:all-MiniLM-L6-v2": [1, 1, 1, 1]}
        reported(values, tmp_path / f"{part}.json")
        text = re.sub(r'"q(\d)"', rf'"{part}-\1-0"', (tmp_path / f"{part}.json").read_text())
        (tmp_path / f"{part}.json").write_text(text)
    row = next(line for line in results_text(tmp_path).splitlines() if "(part 1)" in line)
    assert row.startswith("| bi-encoder, same backbone (part 1) | 0.250 | 0.250 | 0.250 | 0.250 | 0.250 | +0.250 (")


def test_longer_trainings_on_a_gpu_have_a_table_without_times_and_count_among_all(tmp_path: Path) -> None:
    reported({"student": [1, 1, 0, 0], "dense:a": [1, 0, 0, 0]}, tmp_path / "alfred.json")
    reported({"student": [1, 1, 0, 0], "dense:a": [1, 0, 0, 0]}, tmp_path / "saycan.json")
    reported({"student": [1, 0, 0, 0]}, tmp_path / "saycan-seed1.json")
    reported({"dense:more": [1, 1, 1, 0]}, tmp_path / "alfred-gpu.json", gpu="A100")
    more = {"student": [1, 1, 1, 1], "teacher": [1, 1, 1, 0], "dense:more": [0, 0, 0, 0]}
    reported(more, tmp_path / "saycan-gpu.json", gpu="A100")
    text = results_text(tmp_path)
    assert "On one A100, which several trainings shared" in text
    assert "| bi-encoder, same backbone | 0.750 | 0.750 | 0.750 | 0.750 | 0.750 | 4 |" in text
    assert "| bi-encoder, same backbone | R@1 | 4 | -0.250 |" in text  # the student of the first table against it
    assert "133 % of its R@1" in text
    table = {line.split("|")[1].strip(): line for line in text.splitlines()[8:20] if line.startswith("| ")}
    assert table["bi-encoder, same backbone"].count("25.0 / ") == 1  # the better of SayCan's two
    assert "75.0 / " in table["bi-encoder, same backbone"]
    assert "100.0 / " in table["**student** (folded)"]  # the one that read more, without the seeds of the other


def test_the_plot_beside_the_table_has_its_systems_and_is_made_alike_twice(tmp_path: Path) -> None:
    reported({"student": [1, 1, 0, 0], "bm25": [1, 0, 0, 0]}, tmp_path / "saycan.json")
    plot = tmp_path / "images" / "accuracy-and-time.svg"
    assert f"]({plot.relative_to(tmp_path)})" in results_text(tmp_path)
    first = plot.read_text()
    assert ">BM25</text>" in first
    assert ">teacher</text>" not in first
    assert "longer training" not in first
    results_text(tmp_path)
    assert plot.read_text() == first
    reported({"student": [1, 1, 1, 0], "bm25": [1, 0, 0, 0]}, tmp_path / "saycan.json")
    reported({"student": [1, 1, 1, 1]}, tmp_path / "saycan-gpu.json", gpu="A100")
    results_text(tmp_path)
    assert ">student (folded), longer training</text>" in plot.read_text()


def test_datasets_that_were_not_trained_on_share_a_table(tmp_path: Path) -> None:
    reported({"student": [1, 1, 0, 0], "bm25": [1, 0, 0, 0]}, tmp_path / "zero-shot-general-cranfield.json")
    reported({"student": [1, 0, 0, 0], "bm25": [1, 1, 1, 0]}, tmp_path / "zero-shot-general-scifact.json")
    text = results_text(tmp_path)
    assert "## general on other datasets" in text
    assert "| system | cranfield | scifact |" in text
    assert "| **student** (folded) | 0.500 | 0.250 |" in text
    assert "| scifact | BM25 | 4 | -0.500 |" in text
