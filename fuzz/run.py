#!/usr/bin/env python3
"""Fuzzes what reads other people's bytes for longer than the tests do: what `make fuzz` runs.

    fuzz/run.py [--seconds 60] [--seed N] [TARGET...]

First the differential fuzzer of the codec (C++ against Python), then libFuzzer under the address and
undefined-behaviour sanitizers, each target for as long: the codec, AMQP properties, rows of a SQLite file, pages of a
damaged one. Needs clang++ and its runtime library (Debian: clang, libclang-rt-dev or libclang-rt-14-dev). A target
begins with its folder of fuzz/corpus (the codec: with the golden vectors); what it adds is kept in build/fuzz. The exit
code is 1 if a fault was found, 2 if something is missing.
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
LONGEST = {"codec": 4096, "properties": 4096, "rows": 4096, "pages": 32_768}
"""Bytes of an input, by target."""
DIFFERENTIAL = "differential"


def run(*command: str | Path) -> bool:
    """Run a command in the checkout; what it prints is for the reader."""
    return subprocess.run(command, check=False, cwd=ROOT).returncode == 0


def built(folder: Path, targets: list[str], *options: str) -> bool:
    """Build targets in a folder of their own."""
    configured = run(
        "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DLEVERET_TESTS=ON", "--log-level=WARNING", *options
    )
    cores = str(os.cpu_count() or 1)
    return configured and run("cmake", "--build", folder, "--target", *targets, "-j", cores)


def corpus(target: str) -> list[Path]:
    """Return a target's folders of inputs: first the one that libFuzzer adds to."""
    grown = ROOT / "build/fuzz" / f"corpus-{target}"
    grown.mkdir(parents=True, exist_ok=True)
    if target != "codec":
        return [grown, ROOT / "fuzz/corpus" / target]
    for line in differential.seeds():
        if len(line) <= LONGEST[target]:
            (grown / hashlib.sha256(line).hexdigest()[:16]).write_bytes(line)
    return [grown]


def main() -> int:
    """Fuzz with all."""
    parser = argparse.ArgumentParser(description="Fuzz what reads other people's bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {DIFFERENTIAL}, {', '.join(LONGEST)}")
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the differential fuzzer (default: by chance)")
    asked = parser.parse_args()
    targets: list[str] = asked.targets or [DIFFERENTIAL, *LONGEST]
    if unknown := [name for name in targets if name not in {DIFFERENTIAL, *LONGEST}]:
        print(f"cannot fuzz {unknown[0]}: there are {DIFFERENTIAL}, {', '.join(LONGEST)}", file=sys.stderr)
        return 2
    if shutil.which("clang++") is None:
        print("cannot fuzz: no clang++ here; install the Debian packages clang and libclang-rt-dev", file=sys.stderr)
        return 2

    fuzzers = [name for name in targets if name != DIFFERENTIAL]
    release, fuzz = ROOT / "build/release", ROOT / "build/fuzz"
    ready = DIFFERENTIAL not in targets or built(release, ["codec_verdicts"], "-DCMAKE_BUILD_TYPE=Release")
    if fuzzers:
        ready = ready and built(fuzz, [f"{name}_fuzzer" for name in fuzzers], "-DCMAKE_CXX_COMPILER=clang++")
    if not ready:
        print("cannot fuzz: the build failed, see above; clang's runtime is libclang-rt-dev in Debian", file=sys.stderr)
        return 2
    sound = True
    if DIFFERENTIAL in targets:
        seed = () if asked.seed is None else (f"--seed={asked.seed}",)
        differ = ROOT / "fuzz/differential.py"
        program = release / "codec_verdicts"
        sound = run(sys.executable, differ, "--program", program, f"--seconds={asked.seconds}", *seed)
    for name in fuzzers:
        print(f"{name}:", flush=True)
        times = (f"-max_total_time={asked.seconds}", f"-max_len={LONGEST[name]}", "-print_final_stats=1")
        artifacts = f"-artifact_prefix={fuzz / f'found-{name}-'}"
        sound = run(fuzz / f"{name}_fuzzer", *times, "-verbosity=0", artifacts, *corpus(name)) and sound
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
