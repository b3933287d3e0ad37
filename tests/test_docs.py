"""The other pages: what is drawn is the code's, what is linked exists, and nothing says where it was written."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bulkjobs.lifecycle import mermaid

ROOT = Path(__file__).parents[1]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)
SECTIONS = ["Context", "Decision", "Refused", "Evidence", "What would change it"]

MACHINE = re.compile(r"(?<![\w.])/(?:work|root|home|tmp|Users)\b")
"""Folders of the machine on which a page was written."""
HOSTS = {
    "127.0.0.1",
    "api.insideview.com",
    "files.example",
    "keepachangelog.com",
    "login.insideview.com",
    "semver.org",
}
"""Where addresses on the pages may lead."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_tour_draws_the_table_of_the_lifecycle():
    assert f"```mermaid\n{mermaid()}\n```" in text_of(ROOT / "docs" / "tour.md")


def test_the_tour_names_modules_that_exist():
    for module in re.findall(r"`([a-z_/]+(?:\.py|/))`", text_of(ROOT / "docs" / "tour.md")):
        assert (ROOT / "bulkjobs" / module).exists(), module


def test_decisions_are_numbered_without_a_gap():
    assert [page.name[:5] for page in DECISIONS] == [
        f"{number:04}-" for number in range(1, len(DECISIONS) + 1)
    ]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_number_in_the_title_and_every_section(page):
    text = text_of(page)
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^## .*$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """A relative link names a file, and a fragment one of its headings."""
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", text_of(leads_to), re.MULTILINE)
            assert fragment in [heading.lower().replace(" ", "-") for heading in headings], target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_says_where_it_was_written(page):
    """It names no folder of a machine, and no host but those it is about."""
    text = text_of(page)
    assert MACHINE.findall(text) == []
    assert {urlsplit(url).hostname for url in re.findall(r"https?://[^\s`)|]+", text)} <= HOSTS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_plain_text_with_short_lines(page):
    """No trailing blanks, no tabs, one newline at the end; only tables and links are long."""
    text = text_of(page)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    for line in text.splitlines():
        assert line == line.rstrip()
        assert "\t" not in line
        assert len(line) <= 122 or "|" in line or "](" in line, line


def test_the_changelog_has_what_is_unreleased_first():
    headings = re.findall(r"^(#+ .*)$", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["# Changelog", "## [Unreleased]"]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert {heading[4:] for heading in headings if heading.startswith("### ")} <= kinds
