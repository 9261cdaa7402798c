"""Hook of mkdocs.yml: README is the first page, and links out of docs/ lead to the repository.

The pages are written to be read in the repository, so their links name files of it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?\[[^]]*\]\()(?!\w+:|#)([^)#\s]+)([^)]*\))")
"""Opening, target and rest of a link or picture of the repository; no URL, no anchor alone."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README as index.md, and every picture outside docs/ that a page shows."""
    readme = site_links((ROOT / "README.md").read_text(encoding="utf-8"), "", config.repo_url)
    files.append(File.generated(config, "index.md", content=readme))
    pictures = set()
    for page in files.documentation_pages():
        for opening, target, _ in LINK.findall(page.content_string):
            if opening.startswith("!") and target.startswith("../"):
                pictures.add(target.removeprefix("../"))
    for path in sorted(pictures):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to the repository."""
    if page.file.src_uri == "index.md":  # done in on_files
        return markdown
    return site_links(markdown, "docs", config.repo_url)


def site_links(markdown: str, folder: str, repository: str | None) -> str:
    """Links of a page that lies in ``folder`` of the repository, as the site needs them."""

    def replace(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif opening.startswith("!"):
            target = path
        else:
            target = f"{repository}/blob/main/{path}"
        return f"{opening}{target}{closing}"

    return LINK.sub(replace, markdown)
