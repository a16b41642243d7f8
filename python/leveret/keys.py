"""Keys: which jobs run one after another, in the order sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from leveret.app import App

    KeyOf: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], str]
    """Gives the text of a job's key for its arguments. May raise what `send` raises."""

__all__ = ["constant_key", "declared_key", "ordered_queues"]


def _text(key: Any, what: str) -> str:
    """Return a key's text. Raises TypeError or ValueError for what is no key."""
    if type(key) is not int and not isinstance(key, str):
        raise TypeError(f"{what} must be a str or an int, not {type(key).__name__}")
    text = str(key)
    if not text:
        raise ValueError(f"{what} is empty: jobs with nothing in common would wait for each other")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} has a lone surrogate, which has no form in UTF-8: {text!r}") from None
    return text


def constant_key(key: str | int, what: str = "key") -> KeyOf:
    """Return what gives one key for all jobs. Raises TypeError or ValueError for what is no key."""
    text = _text(key, what)

    def constant(_args: tuple[Any, ...], _kwargs: Mapping[str, Any]) -> str:
        return text

    return constant


def declared_key(key: Any, function: Any, task: str, setting: str = "key") -> KeyOf:
    """Return what finds the key that a declaration names: a parameter, or a function of all arguments.

    Raises:
        TypeError: For what is neither.
        ValueError: If there is no such parameter.
    """
    what = f'the {setting.replace("_", " ")} of a job of "{task}"'
    if callable(key):

        def called(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
            return _text(key(*args, **kwargs), what)

        return called
    import inspect

    if not isinstance(key, str):
        raise TypeError(f"{setting} must be the name of a parameter or a function of the arguments, not {key!r}")
    parameters = inspect.signature(function).parameters
    found = parameters.get(key)
    if found is None or found.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        raise ValueError(f"{setting}={key!r} is no parameter: they are {', '.join(parameters) or 'none'}")
    default = found.default
    place = -1 if found.kind is inspect.Parameter.KEYWORD_ONLY else list(parameters).index(key)

    def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        if 0 <= place < len(args):
            return _text(args[place], what)
        value = kwargs.get(key, default)
        if value is inspect.Parameter.empty:
            raise TypeError(f'cannot send "{task}": the argument {key!r}, its key, is missing')
        return _text(value, what)

    return named


def ordered_queues(*apps: App) -> list[str]:
    """Return the queues of the apps' ordered tasks."""
    tasks = [task for app in apps for task in app.load().values()]
    return sorted({task.settings.queue for task in tasks if task.settings.ordered})
