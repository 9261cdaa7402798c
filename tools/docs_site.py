"""Hook of mkdocs.yml: README is the first page, and links out of docs/ lead to the repository.

The pages are written to be read in the repository, so their links name files of it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?\[[^]]*\]\()([^)#:\s]+)([^)]*\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README as index.md, and every picture outside docs/ that a page shows."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_site_links(readme, "", config)))
    pictures = set()
    for page in files.documentation_pages():
        for opening, target, _ in LINK.findall(page.content_string):
            if opening.startswith("!") and target.startswith("../"):
                pictures.add(target.removeprefix("../"))
    for path in sorted(pictures):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to the repository."""
    return markdown if page.file.src_uri == "index.md" else _site_links(markdown, "docs", config)


def _site_links(markdown: str, folder: str, config: MkDocsConfig) -> str:
    """Links of a page that lies in ``folder`` of the repository, as the site needs them."""

    def replace(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif opening.startswith("!"):
            target = path
        else:
            target = f"{config.repo_url}/blob/main/{path}"
        return f"{opening}{target}{closing}"

    return LINK.sub(replace, markdown)
