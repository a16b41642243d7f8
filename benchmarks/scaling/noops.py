"""Jobs that do nothing, in Python."""

import leveret

app = leveret.App()


@app.task(ignore_result=True)
def noop() -> None:
    """Do nothing."""
