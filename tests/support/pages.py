"""Runs the code of a page of the guide, in the order in which a reader meets it, in a folder of its own.

The language of a block and its title say what becomes of it:

| block | what is done |
| --- | --- |
| any, `title="NAME"` with a dot | written to the file NAME |
| `python` | run as a program; exit code 0 |
| `console` | lines that begin with `$ ` are run by a shell; exit code 0. Others are what it may print |
| `console`, `title="Terminal 2"` | the same, but it runs on until the page ends: then SIGTERM, and exit code 0 |
| `text`, `title="Output"` | what the last program printed on standard output; `…` stands for anything |
| `cpp` | must compile |
| `json`, `toml`, `ini` | must be well-formed |

A block behind `<!-- not run: WHY -->` is left alone. So is any other language; a block without a language is an error.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 240.0
FENCE = re.compile(r"^( *)(`{3,})(.*)$")
NOT_RUN = re.compile(r"^ *<!-- not run: .+ -->$")
BIN = Path(sys.executable).parent


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    title: str
    text: str
    run: bool


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = iter(enumerate(page.splitlines(), 1))
    run = True
    for number, line in lines:
        opening = FENCE.match(line)
        if not opening:
            run = not NOT_RUN.match(line) and (run or bool(line.strip()))
            continue
        indent, fence, info = opening.groups()
        inside = []
        for _, text in lines:
            if text.strip() == fence:
                break
            inside.append(text.removeprefix(indent))
        title = re.search(r'title="([^"]*)"', info)
        language = info.split()[0] if info.strip() else ""
        yield Block(number, language, title[1] if title else "", "".join(f"{text}\n" for text in inside), run)
        run = True


class PageError(Exception):
    """A block that does not do what it says."""


class Page:
    """Runs a page's blocks one after the other; its terminals end with the block of `with`."""

    def __init__(self, path: Path, folder: Path) -> None:
        """Prepare to run in a folder, which should be empty."""
        self.path = path
        self.folder = folder
        self.output = ""
        self.ran = 0
        self._terminals: list[tuple[Block, subprocess.Popen[bytes]]] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")},
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": "",
            "NO_COLOR": "1",
            "COLUMNS": "120",
        }

    def run(self) -> None:
        """Run all blocks. Raises PageError for the first that fails."""
        for block in blocks(self.path.read_text()):
            if block.run:
                self._do(block)
                self.ran += 1
        while self._terminals:
            self._end(*self._terminals.pop())

    def _do(self, block: Block) -> None:
        if not block.language:
            self._fail(block, "it has no language; console is for commands, text for what they print")
        if "." in block.title:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        if block.language == "console":
            self._console(block)
        elif block.language == "text" and block.title == "Output":
            self._compare(block)
        elif block.language in ("json", "toml", "ini"):
            self._parse(block)
        elif "." not in block.title and block.language == "python":
            self._program(block, [sys.executable, "-W", "error", "-c", block.text])
        elif "." not in block.title and block.language == "cpp":
            (self.folder / "block.cpp").write_text(block.text)
            compiler = f"g++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only $({BIN}/leveret config --cflags) block.cpp"
            self._program(block, ["sh", "-c", compiler])

    def _console(self, block: Block) -> None:
        script = "".join(f"{line[2:]}\n" for line in block.text.splitlines() if line.startswith("$ "))
        if not script:
            self._fail(block, "no line of it begins with `$ `")
        if not block.title.startswith("Terminal"):
            self._program(block, ["bash", "-ec", script])
            return
        *before, last = script.splitlines()
        with (self.folder / f"terminal-{block.line}").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-ec", "\n".join([*before, f"exec {last}"])],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._terminals.append((block, process))

    def _program(self, block: Block, command: list[str]) -> None:
        answer = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        self.output = answer.stdout
        if answer.returncode != 0:
            self._fail(block, f"exit code {answer.returncode}\n{answer.stdout}{answer.stderr}")

    def _compare(self, block: Block) -> None:
        pattern = ".*".join(re.escape(part) for part in block.text.strip().split("…"))
        if not re.fullmatch(pattern, self.output.strip(), re.DOTALL):
            self._fail(block, f"it was:\n{self.output}")

    def _parse(self, block: Block) -> None:
        try:
            if block.language == "json":
                json.loads(block.text)
            elif block.language == "toml":
                tomllib.loads(block.text)
            else:
                configparser.ConfigParser(interpolation=None, strict=False).read_string(block.text)
        except (ValueError, configparser.Error) as error:
            self._fail(block, str(error))

    def _end(self, block: Block, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != 0:
            log = (self.folder / f"terminal-{block.line}").read_text(errors="replace")
            self._fail(block, f"at its end, exit code {code}\n{log}")

    def _fail(self, block: Block, why: str) -> None:
        logs = "".join(
            f"\nterminal of line {other.line}:\n" + (self.folder / f"terminal-{other.line}").read_text(errors="replace")
            for other, _ in self._terminals
        )
        raise PageError(f"{self.path.name}:{block.line}: {block.language or 'block'}: {why}{logs}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Kill terminals that still run, after a failure."""
        for _, process in self._terminals:
            process.kill()
            process.wait()
