"""The tasks of the example; `web.py` sends them, a worker runs them: leveret worker jobs:app."""

from __future__ import annotations

import time

import leveret

app = leveret.App()


@app.task(reject_on=ValueError)
def count(text: str, pause: float = 0.0) -> dict[str, int]:
    """Count how often each word is in a text, with a pause for each that makes it worth watching."""
    words = text.lower().split()
    if not words:
        raise ValueError("there is no word in it")
    counts: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        counts[word] = counts.get(word, 0) + 1
        leveret.current_job().set_progress(number / len(words), word)
        time.sleep(pause)
    return counts
