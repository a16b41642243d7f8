"""Thumbnails of a folder's JPEG files: by a task in Python (Pillow), or one in C++ (libjpeg-turbo), of one contract.

    pip install -r requirements.txt
    python thumbnails.py FOLDER OUT                   by Pillow
    leveret build thumbnails.cpp -- -lturbojpeg
    python thumbnails.py FOLDER OUT --native          by libjpeg-turbo
    python thumbnails.py FOLDER OUT --native --json   for programs

The worker is in this program; `leveret worker` runs the same tasks in processes of their own. Prints a line for each
picture that could not be made, and what was done; exit code 1 if one could not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TypedDict

import leveret

SUFFIXES = {".jpg", ".jpeg"}
QUALITY = 85
app = leveret.App()


class Made(TypedDict):
    """What a thumbnail task answers."""

    width: int
    height: int
    bytes: int


@app.task(queue="thumbnails", reject_on=OSError)
def thumbnail(path: str, target: str, width: int = 128) -> Made:
    """Write a thumbnail of a JPEG file."""
    from PIL import Image  # noqa: PLC0415 - who only sends needs no Pillow

    with Image.open(path, formats=["JPEG"]) as image:
        new_width = min(width, image.width)
        new_height = max(1, (image.height * new_width + image.width // 2) // image.width)
        # The decoder scales by powers of two for nothing; the rest is averaged.
        image.draft("RGB", (new_width, new_height))
        small = image.convert("RGB").resize((new_width, new_height), Image.Resampling.BOX)
    small.save(target, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return {"width": new_width, "height": new_height, "bytes": Path(target).stat().st_size}


@app.native(queue="thumbnails-native")
def thumbnail_native(path: str, target: str, width: int = 128) -> Made:
    """Do the same in C++: thumbnails.cpp."""
    raise NotImplementedError


def main() -> int:
    """Send a job for each file, and tell what came of them."""
    parser = argparse.ArgumentParser(description="Thumbnails of the JPEG files of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--native", action="store_true", help="by the plugin thumbnails.so")
    parser.add_argument("--plugin", type=Path, help="where that is; by default here")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()

    files = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    targets = [given.out / path.relative_to(given.folder) for path in files]
    for folder in {target.parent for target in targets}:
        folder.mkdir(parents=True, exist_ok=True)
    task = thumbnail_native if given.native else thumbnail
    plugins = [given.plugin or Path("thumbnails.so").absolute()] if given.native else []
    began = time.perf_counter()
    failed: list[str] = []
    written = 0
    with app, app.worker(threads=given.threads, queues=[task.queue], plugins=plugins):
        jobs = task.send_many(
            (str(path), str(target), given.width) for path, target in zip(files, targets, strict=True)
        )
        for path, made in zip(files, jobs.results(return_exceptions=True), strict=True):
            if isinstance(made, leveret.JobFailed):
                failed.append(str(path))
                print(f"{path}: {made}", file=sys.stderr)
            else:
                written += made["bytes"]
    seconds = time.perf_counter() - began
    report = {"made": len(files) - len(failed), "failed": failed, "bytes": written, "seconds": round(seconds, 3)}
    if given.as_json:
        print(json.dumps(report))
    else:
        print(f"{report['made']} thumbnails, {written:,} bytes, {seconds:.2f} s; {len(failed)} could not be made")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
