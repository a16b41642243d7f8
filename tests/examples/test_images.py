"""examples/images: a folder of pictures, made small by Pillow and by libjpeg-turbo."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.example import Example

DRAW = """
import random, sys
from pathlib import Path
from PIL import Image, ImageDraw
folder = Path(sys.argv[1])
shapes = random.Random(4)
(folder / "below").mkdir(parents=True)
sizes = [(1600, 1200), (1201, 801), (640, 480), (333, 777), (128, 128), (100, 60), (2000, 31), (97, 1500)]
for number, size in enumerate(sizes * 3):
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        x, y = shapes.randrange(size[0]), shapes.randrange(size[1])
        color = tuple(shapes.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + size[0] // 3, y + size[1] // 3), fill=color)
    where = folder / ("below" if number % 3 == 0 else ".") / f"{number}.{'JPG' if number % 2 else 'jpeg'}"
    image.convert("L" if number == 5 else "RGB").save(where, "JPEG", quality=92, progressive=number % 4 == 0)
"""
COMPARE = """
import math, sys
from pathlib import Path
from PIL import Image, ImageChops, ImageStat
one, other = map(Path, sys.argv[1:])
names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
assert names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
for name in names:
    a, b = Image.open(one / name).convert("RGB"), Image.open(other / name).convert("RGB")
    assert a.size == b.size, (name, a.size, b.size)
    assert a.width <= 128
    noise = sum(ImageStat.Stat(ImageChops.difference(a, b)).sum2) / (3 * a.width * a.height)
    print(name, a.size, math.inf if noise == 0 else 10 * math.log10(255**2 / noise))
"""


def test_both_make_the_same_thumbnails_and_report_the_same_broken_file(tmp_path: Path) -> None:
    example = Example("images", tmp_path)
    pictures = tmp_path / "pictures"
    example.run("python", "-c", DRAW, pictures)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("no picture either")
    plugin = tmp_path / "thumbnails.so"
    example.run("leveret", "build", "thumbnails.cpp", "-o", plugin, "--", "-lturbojpeg", "-Wall", "-Wextra", "-Werror")
    reports = {}
    for by, words in {"python": [], "native": ["--native", "--plugin", plugin]}.items():
        done = example.run("python", "thumbnails.py", pictures, tmp_path / by, *words, "--json", expect=1)
        reports[by] = json.loads(done.stdout)
        assert "broken.jpg" in done.stderr
    for report in reports.values():
        assert report["made"] == 24
        assert [Path(path).name for path in report["failed"]] == ["broken.jpg"]
    compared = example.run("python", "-c", COMPARE, tmp_path / "python", tmp_path / "native").stdout.splitlines()
    assert len(compared) == 24
    decibels = [float(re.split(r"\s", line)[-1]) for line in compared]
    assert min(decibels) > 28, compared
    assert abs(reports["python"]["bytes"] / reports["native"]["bytes"] - 1) < 0.1
