"""An index served by ``rabtriever mcp`` in a process of its own, asked by the SDK's own client."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp")

import anyio
from mcp import Client, StdioServerParameters, stdio_client

from cli.runner import Cli, Ran
from rabtriever import Index
from rabtriever.cli import main
from toy_data import NEEDS


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


def server(index: Path) -> StdioServerParameters:
    environment = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    return StdioServerParameters(command=sys.executable, args=["-m", "rabtriever", "mcp", str(index)], env=environment)


def text_of(result: Any) -> str:
    return str(result.content[0].text)


def test_an_application_searches_and_adds(index: Index, tmp_path: Path) -> None:
    expected = index.search(NEEDS[0], 3, filter="place > 0")
    reranked = index.search(NEEDS[0], 2, rerank=6)

    async def talk() -> None:
        async with Client(stdio_client(server(index.path), errlog=log)) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"search", "add_documents"}
            assert set(tools["search"].input_schema["properties"]) == {"query", "k", "rerank", "filter"}
            assert tools["search"].annotations.read_only_hint

            found = await client.call_tool("search", {"query": NEEDS[0], "k": 3, "filter": "place > 0"})
            assert not found.is_error
            hits = found.structured_content["hits"]
            assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
            assert set(hits[0]) == {"id", "title", "text", "metadata", "score", "probability"}
            # The server computes in the processor's own format, the test in float32.
            assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], rel=0.1, abs=0.1)

            again = await client.call_tool("search", {"query": NEEDS[0], "k": 2, "rerank": 6})
            assert len(again.structured_content["hits"]) == len(reranked)

            mop = {"id": "mop", "text": "take the mop", "metadata": {"place": 9}}
            added = await client.call_tool("add_documents", {"documents": [mop]})
            assert added.structured_content == {"added": 1, "updated": 0, "unchanged": 0, "documents": 7}
            only = await client.call_tool("search", {"query": NEEDS[0], "filter": "place = 9"})
            assert [hit["text"] for hit in only.structured_content["hits"]] == ["take the mop"]

            index.refresh()
            assert index.get("mop").text == "take the mop"
            index.delete("mop")  # by another process than the server's
            gone = await client.call_tool("search", {"query": NEEDS[0], "filter": "place = 9"})
            assert gone.structured_content["hits"] == []

            for arguments, told in [
                ({"query": " "}, "empty"),
                ({"query": NEEDS[0], "filter": "place >"}, "filter"),
                ({"query": NEEDS[0], "k": 0}, "greater than or equal to 1"),
            ]:
                refused = await client.call_tool("search", arguments)
                assert refused.is_error
                assert told in text_of(refused)
            twice = await client.call_tool("add_documents", {"documents": [mop, mop]})
            assert twice.is_error
            assert "same id" in text_of(twice)

    with (tmp_path / "log").open("w+") as log:
        anyio.run(talk)
        log.seek(0)
        assert "Traceback" not in log.read()
    assert index.refresh() and index.count == 6


def test_an_index_that_is_missing_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    ran = cli("mcp", tmp_path / "none")
    assert (ran.code, ran.out) == (2, "")
    assert "is not an index" in ran.err


def test_a_model_that_is_missing_is_told_at_the_start(cli: Cli, index: Index, tmp_path: Path) -> None:
    where = index.path / "index.json"
    where.write_text(where.read_text().replace("/model", "/nowhere"))
    ran = cli("mcp", index.path)
    assert (ran.code, ran.out) == (2, "")
    assert "not to be found" in ran.err


def test_the_package_that_is_missing_is_named(cli: Cli, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rabtriever.integrations.mcp", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    ran = cli("mcp", index.path)
    assert (ran.code, ran.out) == (2, "")
    assert "pip install 'rabtriever[mcp]'" in ran.err
