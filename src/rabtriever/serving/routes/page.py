"""``GET /``: the page, plain files of this package."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

__all__ = ["add_page"]

_FOLDER = Path(__file__).parents[1] / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No request to another host, and no script that did not come along."""


def add_page(app: FastAPI) -> None:
    """Serve the page and its files; the browser is told to load nothing else."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(
            _FOLDER / "index.html",
            headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"},
        )

    app.mount("/page", StaticFiles(directory=_FOLDER), name="page")
