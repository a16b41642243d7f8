"""The guide: every block of every page is run, and the site has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.pages import Page, PageError, blocks

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_of_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    with Page(page, tmp_path) as reader:
        reader.run()


def test_the_site_has_every_page_once() -> None:
    listed = re.findall(r"(\S+\.md)", (ROOT / "mkdocs.yml").read_text().split("\nnav:", 1)[1])
    assert sorted(listed) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", page.read_text()):
        other = (page.parent / target) if target else page
        assert other.is_file(), f"{page.name}: {target}"
        assert other.is_relative_to(DOCS), f"{page.name}: {target} is no part of the site"
        headings = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
        ids = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
        assert not anchor or anchor in ids, f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```python\nraise SystemExit(3)\n```", "exit code 3"),
        ("```console\n$ false\n$ true\n```", "exit code 1"),
        ("```console\nleveret doctor\n```", "begins with"),
        ('```python\nprint(1)\n```\n```text title="Output"\n2\n```', "it was:\n1"),
        ("```cpp\nint f() { return }\n```", "expected primary-expression"),
        ("```json\n{,}\n```", "Expecting property name"),
        ("```toml\na = \n```", "Invalid value"),
        ("```ini\na\n```", "no section headers"),
        ("```\nls\n```", "no language"),
        (
            (
                "```console\n$ mkfifo told\n```\n"
                '```console title="Terminal 1"\n'
                "$ sh -c \"trap 'kill \\$!; exit 4' TERM; sleep 600 & echo > told; wait\"\n```\n"
                "```console\n$ read line < told\n```"
            ),
            "exit code 4",
        ),
    ],
    ids=lambda text: re.sub(r"\W+", "-", text[:20]),
)
def test_a_block_that_does_not_is_named(text: str, said: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{text}\n")
    with pytest.raises(PageError, match=re.escape(said)) as caught, Page(page, tmp_path) as reader:
        reader.run()
    assert str(caught.value).startswith("page.md:")


def test_files_programs_and_terminals_work_together(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '1. A file:\n\n    ```python title="one.py"\n    word = "hare"\n    ```\n\n'
        '```python\nimport one\nprint(one.word, 1.25)\n```\n```text title="Output"\nhare …\n```\n'
        '```console title="Terminal 1"\n$ sleep 100\n```\n'
        "<!-- not run: it would fail -->\n```python\nraise SystemExit(1)\n```\n"
    )
    with Page(page, tmp_path) as reader, pytest.raises(PageError, match="exit code -15"):
        reader.run()
    assert reader.ran == 4
    assert [block.run for block in blocks(page.read_text())] == [True, True, True, True, False]
