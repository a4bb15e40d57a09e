"""How a command ends: exit codes, mistakes in four lines, and a traceback only where asked for."""

from __future__ import annotations

import inspect
import os
import re
import select
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from nasfuse.errors import NasfuseError, UsageError
from nasfuse.files import FORBIDDEN, FULL, refusal
from nasfuse.names import nearest
from nasfuse.stopping import exit_code, own_program, stop_at_once

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the traceback of an error as well.")
]


AGAIN = "stopped at once; the same command goes on"
EPOCH = "stopped at once; the same command goes on from the last epoch"
RESUME = "stopped at once; nasfuse resume goes on with the newest study"
LAST_WORDS = {"search": RESUME, "resume": RESUME, "explain": AGAIN, "train": EPOCH}


def guarded(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the option `-v`; whatever it raises ends in a message and an exit code."""

    @wraps(verb)
    def run(verbose: bool = False, **options: Any) -> None:
        with _ending(verbose, LAST_WORDS.get(verb.__name__, "stopped")):
            verb(**options)

    signature = inspect.signature(verb, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    last = inspect.Parameter("verbose", kind, default=False, annotation=Verbose)
    parameters = [*signature.parameters.values(), last]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


@contextmanager
def _ending(verbose: bool, stopped: str) -> Iterator[None]:
    try:
        with _terminable(stopped):
            yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as stop:  # nothing is at stake
        print(stopped, file=sys.stderr)
        raise typer.Exit(exit_code(*stop.args or (signal.SIGINT,))) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        known = _as_known(error)
        if verbose:
            traceback.print_exc()
        print(known or _bug(error), file=sys.stderr)
        raise typer.Exit(known.exit_code if known else 1) from None


def _reader_left() -> bool:
    """Whether who read the output has seen enough; other pipes can break as well."""
    if not hasattr(select, "poll"):  # another system
        return True
    ends = select.poll()
    ends.register(sys.stdout.fileno(), select.POLLERR)
    return any(found & select.POLLERR for _, found in ends.poll(0))


def done() -> None:
    """Let a signal end the process at once from now on, in which Python only tidies up.

    An interrupt in the middle of that can keep it from ever ending.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _heard():
            signal.signal(number, signal.SIG_DFL)


def leave(end: SystemExit) -> NoReturn:
    """End the process with an exit's code, and nothing after it.

    What was to be kept is on the disk, and what was started has ended. While Python tidies up,
    threads of libraries in C++ go on: measured, one of 45 searches that were stopped crashed then.
    """
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has left, or it is closed
            stream.flush()
    os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _heard() -> list[signal.Signals]:
    """What asks to stop, less what whoever started the program lets it ignore."""
    asks = (signal.SIGINT, signal.SIGTERM)
    return [number for number in asks if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def _terminable(said: str) -> Iterator[None]:
    """Let SIGTERM end a verb as Ctrl-C does, from its first line to its last; twice, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        del frame
        if asked:  # and did not end
            stop_at_once(number)
        asked = True
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, stop) for number in _heard()}
    try:
        with own_program(said):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_known(error: Exception) -> NasfuseError | None:
    """The error as one that the user can mend; None where it is a bug of ours."""
    if isinstance(error, NasfuseError):
        return error
    if isinstance(error, OSError) and error.errno in (*FULL, *FORBIDDEN):
        return refusal(Path(error.filename or Path.cwd()), error)
    return None


def _bug(error: Exception) -> NasfuseError:
    """What to say of an error that nobody foresaw; the traceback goes to a file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="nasfuse-error-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"nasfuse {shlex.join(sys.argv[1:])}\n\n{traceback.format_exc()}")
    return NasfuseError(
        "this is a bug of nasfuse",
        where=file.name,
        why=" ".join(f"{type(error).__name__}: {error}".split())[:300],
        fix="report it with that file, and the output of: nasfuse doctor",
    )


def usage_error(error: Any, arguments: Sequence[str], root: Any) -> UsageError:
    """An error of typer's parser in our form; the fix is the whole command where one is near.

    Parsing ends before any verb begins, so this is the form of every misspelt verb or option.
    `root` is the command line as the parser knows it: some of its errors do not say where they are.
    """
    command, path, end = _verb(root, arguments)
    ctx = error.ctx or command.make_context(path, [], resilient_parsing=True)
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        near = nearest(option, [*_options(ctx.command), *_options(command), "--help"])
        fixed = _renamed(option, near, arguments)
        if near in {"--help", *_options(ctx.command)} or near not in _options(command):
            known = [name for name in [*_options(command), "--help"] if name.startswith("--")]
            return _unknown(f"there is no option {option}", path, known, near, fixed)
        return UsageError(
            f"there is no option {option} before the verb",
            where=ctx.command_path,
            why=f"{near} is an option of {path}",
            fix=f"nasfuse {shlex.join(_moved(fixed, near, end, flag=_options(command)[near]))}",
        )
    if type(error).__name__ == "UsageError" and hasattr(ctx.command, "list_commands"):
        words = [word for word in arguments if not word.startswith("-")]
        verb = words[len(ctx.command_path.split()) - 1]  # behind the names of the groups
        known = ctx.command.list_commands(ctx)
        near = nearest(verb, known)
        fixed = _renamed(verb, near, arguments)
        return _unknown(f"there is no verb '{verb}'", ctx.command_path, known, near, fixed)
    example = (ctx.command.epilog or "").removeprefix("Example: ")
    return UsageError(
        error.format_message().rstrip("."),
        where=path,
        why=" ".join(ctx.get_usage().split()).replace("Usage:", "it is used as"),
        fix=example or f"{path} --help",
    )


def _verb(root: Any, arguments: Sequence[str]) -> tuple[Any, str, int]:
    """The verb that is named, its words as one text, and behind how many arguments they end."""
    command, path, end = root, "nasfuse", 0
    for place, word in enumerate(arguments, 1):
        if word in getattr(command, "commands", ()):
            command, path, end = command.commands[word], f"{path} {word}", place
    return command, path, end


def _options(command: Any) -> dict[str, bool]:
    """By their names, whether they take no value."""
    options = [param for param in command.params if param.param_type_name == "option"]
    return {name: param.is_flag for param in options for name in param.opts}


def _renamed(word: str, near: str | None, arguments: Sequence[str]) -> list[str]:
    return [
        f"{near}{given.removeprefix(word)}" if given.partition("=")[0] == word and near else given
        for given in arguments
    ]


def _moved(arguments: list[str], option: str, end: int, *, flag: bool) -> list[str]:
    """With an option, and its value, behind the verb, which ends there."""
    names = [given.partition("=")[0] for given in arguments]
    if option not in names:  # it is one of several letters, as in -qv
        letters = (name for name in names if re.match(rf"-\w*{option[1]}", name, re.IGNORECASE))
        option = next(letters, names[0])
    place = names.index(option)
    stop = min(place + (1 if flag or "=" in arguments[place] else 2), end - 1)
    rest, moved = arguments[stop:end], arguments[place:stop]
    return [*arguments[:place], *rest, *moved, *arguments[end:]]


def _unknown(
    what: str, where: str, known: Sequence[str], near: str | None, fixed: Sequence[str]
) -> UsageError:
    return UsageError(
        what,
        where=where,
        why=f"the nearest is {near}" if near else f"there are {', '.join(known)}",
        fix=f"nasfuse {shlex.join(fixed)}" if near else f"{where} --help",
    )
