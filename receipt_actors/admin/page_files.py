"""The files of the page: read once, served from memory under their own names. There is no path that leads elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file."""

    content: bytes
    media_type: str

    async def answer(self, request: Request) -> Response:
        """Answer; a browser that has this very file is not sent it again."""
        tag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page_files(folder: Path = FOLDER) -> Mapping[str, PageFile]:
    """Return the files by the path of their URL; the index has two."""
    files = {
        f"/{file.name}": PageFile(file.read_bytes(), _MEDIA_TYPES[file.suffix])
        for file in sorted(folder.iterdir())
        if file.suffix in _MEDIA_TYPES
    }
    return {"/": files[f"/{INDEX}"], **files}
