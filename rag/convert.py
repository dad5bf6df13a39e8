"""HTML and PDF as Markdown, which the chunker knows how to cut.

A PDF is read by a process of its own, with limits on time and memory: what a hostile or broken file does to its parser
ends there.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import warnings
from pathlib import Path

PDF_SECONDS = 60
PDF_BYTES = 2 << 30
_NO_CONTENT = ("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "svg", "iframe")


class ConversionFailed(Exception):
    """The file is not what its name says, or its parser cannot make text of it."""


def html_to_markdown(html: str) -> str:
    """Headings, paragraphs, lists, tables and code of the page's main part; navigation, scripts and forms are left out."""
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning  # not needed where nothing changed
    from markdownify import ATX, MarkdownConverter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as HTML, as browsers do
        page = BeautifulSoup(html, "lxml")
    body = page.find("main") or page.find("article") or page.body or page
    for tag in body.find_all(_NO_CONTENT):
        tag.decompose()
    text = MarkdownConverter(heading_style=ATX, strip=["a", "img"]).convert_soup(body)
    title = page.title.get_text(" ", strip=True) if page.title else ""
    text = re.sub(r"\n{3,}", "\n\n", text.replace("\xa0", " ")).strip()
    return f"# {title}\n\n{text}\n" if title and not text.startswith("# ") else f"{text}\n"


def pdf_to_markdown(path: Path) -> str:
    """A page a heading, so that an answer can name it. Raises ConversionFailed."""
    argv = [sys.executable, "-m", "rag.convert", str(path)]
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PDF_SECONDS, check=False, cwd=root)
    except subprocess.TimeoutExpired as error:
        raise ConversionFailed(f"reading it takes more than {PDF_SECONDS} s") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ConversionFailed(f"not a PDF that can be read ({said[-1][:200]})")
    return done.stdout.decode(errors="replace").replace("\0", "")


def _print_pdf(path: str) -> None:
    from pypdf import PdfReader

    resource.setrlimit(resource.RLIMIT_AS, (PDF_BYTES, PDF_BYTES))
    pages = (page.extract_text() for page in PdfReader(path).pages)
    text = "\n\n".join(f"# Page {number}\n\n{text}" for number, text in enumerate(pages, 1) if text.strip())
    sys.stdout.buffer.write(text.encode(errors="replace"))


if __name__ == "__main__":
    _print_pdf(sys.argv[1])
