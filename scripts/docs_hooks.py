"""What the documentation site is told as it is built: the page of the command line is written from the verbs."""

from __future__ import annotations

from typing import Any

import typer

PAGE = "reference/command-line.md"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the verbs under the page's own words."""
    return f"{markdown}\n\n{verbs()}" if page.file.src_uri == PAGE else markdown


def verbs() -> str:
    """Every verb of ``rabtriever``, with its arguments, as Markdown."""
    from rabtriever.cli.app import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    return "\n\n".join(_verb(name, command) for name, command in commands.items())


def _verb(name: str, command: Any) -> str:
    arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    lines = [f"## {name}", "", f"`{' '.join(['rabtriever', name, *arguments])}`", "", command.help or "", ""]
    lines += ["| | |", "|---|---|"]
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        shown = ", ".join(f"`{flag}`" for flag in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            shown = f"`{parameter.metavar or parameter.name.upper()}`"
        elif parameter.metavar:
            shown += f" `{parameter.metavar}`"
        words = (getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
        default = parameter.default
        if parameter.param_type_name == "option" and not callable(default) and default not in (None, False, (), []):
            words += f" Default: `{default}`."
        lines.append(f"| {shown} | {words} |")
    return "\n".join(lines)
