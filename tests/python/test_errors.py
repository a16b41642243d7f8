from __future__ import annotations

import re
from pathlib import Path

import leveret
from leveret import errors

HEADER = Path(__file__).resolve().parents[2] / "include/leveret/error.hpp"


def test_the_tree_is_that_of_the_header() -> None:
    names = re.findall(r"^class (\w+) : public error ", HEADER.read_text(), re.MULTILINE)
    in_cpp = {name.title().replace("_", "") for name in names}
    assert in_cpp
    for name in in_cpp:
        assert issubclass(getattr(errors, name), leveret.Error), name


def test_a_result_timeout_is_a_timeout_error() -> None:
    assert issubclass(leveret.ResultTimeout, TimeoutError)
    assert issubclass(leveret.ResultTimeout, leveret.Error)


def test_every_error_is_public() -> None:
    public = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert public == set(errors.__all__)
    assert public - {"TimeoutError"} <= set(leveret.__all__)
