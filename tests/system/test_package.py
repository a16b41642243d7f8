"""What is installed, as a user of C++ meets it: in the Python package and under a prefix; and a build that can't be."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/release"

USER_CMAKE = """cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES CXX)
find_package(leveret {version} REQUIRED CONFIG)
add_executable(user user.cpp)
target_link_libraries(user PRIVATE leveret::leveret)
target_compile_options(user PRIVATE -Wall -Wextra -Wconversion -Werror)
"""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    answer = subprocess.run(
        command, check=False, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


def in_the_package() -> Path:
    spec = importlib.util.find_spec("leveret")
    assert spec is not None, "the package is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def under_a_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--preset", "release")
    run("cmake", "--build", "--preset", "release", "--target", "leveret")
    run("cmake", "--install", BUILD, "--prefix", prefix)
    return prefix


@pytest.fixture(params=["package", "prefix"])
def installed(request: pytest.FixtureRequest) -> Path:
    if request.param == "package":
        return in_the_package()
    prefix: Path = request.getfixturevalue("under_a_prefix")
    return prefix


def library_folder(installed: Path) -> Path:
    """Return lib, or what the distribution puts in its place."""
    found = [path.parent for path in installed.rglob("libleveret.so")]
    assert len(found) == 1, found
    return found[0]


def test_the_library_exports_the_c_abi_and_nothing_else(installed: Path) -> None:
    library = library_folder(installed) / "libleveret.so.0"
    rows = run("nm", "-D", "--defined-only", library).splitlines()
    names = {row.split()[-1].split("@")[0] for row in rows}
    assert names
    assert {name for name in names if not name.startswith("leveret_")} == set()


def test_the_library_names_its_abi_version(installed: Path) -> None:
    library = library_folder(installed) / "libleveret.so.0"
    assert "Library soname: [libleveret.so.0]" in run("readelf", "-d", library)


def test_a_program_finds_the_package_by_cmake(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(USER_CMAKE.format(version="0.1"))
    shutil.copy(ROOT / "examples/quickstart/worker_sim.cpp", tmp_path / "user.cpp")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", tmp_path / "build")
    assert "--threads" in run(tmp_path / "build/user", "--help")


def test_cmake_refuses_another_major_version(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(USER_CMAKE.format(version="1.0"))
    answer = subprocess.run(
        ["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0
    assert 'compatible with requested version "1.0"' in " ".join(answer.stderr.split())


def test_a_program_finds_the_library_by_pkg_config_wherever_the_tree_is_moved(installed: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved to"
    folder = moved / library_folder(installed).relative_to(installed)
    shutil.copytree(installed / "include", moved / "include")
    shutil.copytree(library_folder(installed), folder, symlinks=True)
    program = tmp_path / "user"
    command = (
        f"g++ -std=c++17 {ROOT}/examples/quickstart/worker_sim.cpp -o {program} $(pkg-config --cflags --libs leveret)"
    )
    # The path has a space, which pkg-config escapes for a shell that reads it again.
    run("bash", "-c", f'eval "{command}"', PKG_CONFIG_PATH=str(folder / "pkgconfig"))
    assert "--threads" in run(program, "--help")


def test_public_headers_stand_alone_and_compile_without_warnings(installed: Path, tmp_path: Path) -> None:
    headers = sorted(path.relative_to(installed / "include") for path in (installed / "include").rglob("*.h*"))
    assert headers
    for header in headers:
        source = tmp_path / "one.cpp"
        source.write_text(f"#include <{header}>\n#include <{header}>\n")
        run(
            "g++",
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Wconversion",
            "-Wpedantic",
            "-Werror",
            "-fsyntax-only",
            "-I",
            installed / "include",
            source,
        )


def test_the_c_abi_header_is_c(installed: Path, tmp_path: Path) -> None:
    source = tmp_path / "one.c"
    source.write_text("#include <leveret/abi.h>\nint main(void) { return (int)LEVERET_ABI_VERSION - 1; }\n")
    run(
        "gcc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-I",
        installed / "include",
        source,
        "-o",
        tmp_path / "c",
    )
    run(tmp_path / "c")


def test_the_package_holds_the_plugin_of_the_demo() -> None:
    plugin = in_the_package() / "plugins/demo.so"
    names = run("nm", "-D", "--defined-only", plugin).split()
    assert "leveret_plugin" in names
    assert "not found" not in run("ldd", plugin)


def test_pythons_own_sqlite_and_the_core_map_one_library() -> None:
    program = ROOT / "tests/support/one_sqlite.py"
    assert run(sys.executable, program).count("libsqlite3") == 1


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("hiredis", "libhiredis-dev"),
        ("librabbitmq", "librabbitmq-dev"),
        ("simdjson", "libsimdjson-dev"),
        ("sqlite3", "libsqlite3-dev"),
        ("libssl", "libssl-dev"),
    ],
)
def test_without_a_library_the_build_stops_and_names_its_debian_package(
    module: str, package: str, tmp_path: Path
) -> None:
    known = tmp_path / "pkgconfig"
    known.mkdir()
    for folder in run("pkg-config", "--variable", "pc_path", "pkg-config").strip().split(":"):
        for path in Path(folder).glob("*.pc"):
            if path.stem != module and not (known / path.name).exists():
                (known / path.name).symlink_to(path)
    answer = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path / "build", "-G", "Ninja"],
        check=False,
        env={**os.environ, "PKG_CONFIG_LIBDIR": str(known), "PKG_CONFIG_PATH": ""},
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0
    said = " ".join(answer.stderr.split())
    assert f"install {package} " in said
    assert "leveret needs" in said


@pytest.mark.parametrize(
    ("definition", "package"),
    [
        ("-DCMAKE_IGNORE_PATH=/usr/include", "libcli11-dev"),
        ("-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON", "libgtest-dev"),
        ("-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON", "pkg-config"),
    ],
)
def test_without_a_tool_the_build_stops_and_names_its_debian_package(
    definition: str, package: str, tmp_path: Path
) -> None:
    answer = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path / "build", "-G", "Ninja", "-DLEVERET_TESTS=ON", definition],
        check=False,
        capture_output=True,
        text=True,
    )
    assert answer.returncode != 0
    assert f"install {package} " in " ".join(answer.stderr.split())
