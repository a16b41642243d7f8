#!/usr/bin/env python3
"""Fuzzes the codec for longer than the tests do: what `make fuzz` runs.

    fuzz/run.py [--seconds 60] [--seed N]

First the differential fuzzer (C++ against Python), then libFuzzer under the address and undefined-behaviour sanitizers,
each for as long. Needs clang++ and its runtime library (Debian: clang, libclang-rt-dev or libclang-rt-14-dev). The
corpus grows in build/fuzz/corpus. The exit code is 1 if a fault was found, 2 if something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import differential

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 4096


def run(*command: str | Path) -> bool:
    """Run a command in the checkout; what it prints is for the reader."""
    return subprocess.run(command, check=False, cwd=ROOT).returncode == 0


def built(folder: Path, target: str, *options: str) -> Path | None:
    """Build one target in a folder of its own; None if that failed."""
    configured = run(
        "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DLEVERET_TESTS=ON", "--log-level=WARNING", *options
    )
    cores = str(os.cpu_count() or 1)
    if configured and run("cmake", "--build", folder, "--target", target, "-j", cores):
        return folder / target
    return None


def corpus(folder: Path) -> Path:
    """Fill a folder with the golden vectors' inputs; what libFuzzer added earlier stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for line in differential.seeds():
        if len(line) <= LONGEST:
            (folder / hashlib.sha256(line).hexdigest()[:16]).write_bytes(line)
    return folder


def main() -> int:
    """Fuzz with both."""
    parser = argparse.ArgumentParser(description="Fuzz the codec: C++ against Python, then libFuzzer.")
    parser.add_argument("--seconds", type=int, default=60, help="how long each of the two runs (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the differential fuzzer (default: by chance)")
    asked = parser.parse_args()
    if shutil.which("clang++") is None:
        print("cannot fuzz: no clang++ here; install the Debian packages clang and libclang-rt-dev", file=sys.stderr)
        return 2

    verdicts = built(ROOT / "build/release", "codec_verdicts", "-DCMAKE_BUILD_TYPE=Release")
    fuzzer = built(ROOT / "build/fuzz", "codec_fuzzer", "-DCMAKE_CXX_COMPILER=clang++")
    if verdicts is None or fuzzer is None:
        print("cannot fuzz: the build failed, see above; clang's runtime is libclang-rt-dev in Debian", file=sys.stderr)
        return 2
    seed = () if asked.seed is None else (f"--seed={asked.seed}",)
    differ = ROOT / "fuzz/differential.py"
    agree = run(sys.executable, differ, "--program", verdicts, f"--seconds={asked.seconds}", *seed)
    artifacts = ROOT / "build/fuzz/found-"
    times = (f"-max_total_time={asked.seconds}", f"-max_len={LONGEST}", "-print_final_stats=1", "-verbosity=0")
    sound = run(fuzzer, *times, f"-artifact_prefix={artifacts}", corpus(ROOT / "build/fuzz/corpus"))
    return 0 if agree and sound else 1


if __name__ == "__main__":
    sys.exit(main())
