"""Jobs that compute in Python for as long as they are told to: steps of the generator of worker_sim.cpp."""

import leveret

app = leveret.App()


@app.task(ignore_result=True)
def steps(value: int, count: int, end: int) -> None:
    """Compute; a job that comes to another end than its sender did is dead."""
    x = value
    for _ in range(count):
        x = (x * 1664525 + 1013904223) % 2**32
    if x != end:
        raise leveret.Reject("computed something else")
