"""How a command ends: exit codes, mistakes in four lines, and a traceback only where asked for."""

from __future__ import annotations

import inspect
import os
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


def usage_error(error: Any, arguments: Sequence[str]) -> UsageError:
    """An error of typer's parser in our form; the fix is the whole command where one is near.

    Parsing ends before any verb begins, so this is the form of every misspelt verb or option.
    """
    ctx = error.ctx
    path = ctx.command_path if ctx else "nasfuse"
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        known = [name for param in ctx.command.params for name in param.opts if name[:2] == "--"]
        return _unknown(f"there is no option {option}", option, [*known, "--help"], ctx, arguments)
    if type(error).__name__ == "UsageError" and hasattr(ctx.command, "list_commands"):
        words = [word for word in arguments if not word.startswith("-")]
        verb = words[len(path.split()) - 1]  # behind the names of the groups
        return _unknown(
            f"there is no verb '{verb}'", verb, ctx.command.list_commands(ctx), ctx, arguments
        )
    example = (ctx.command.epilog or "").removeprefix("Example: ") if ctx else ""
    return UsageError(
        error.format_message().rstrip("."),
        where=path,
        why=" ".join(ctx.get_usage().split()).replace("Usage:", "it is used as") if ctx else "",
        fix=example or f"{path} --help",
    )


def _unknown(
    what: str, word: str, known: Sequence[str], ctx: Any, arguments: Sequence[str]
) -> UsageError:
    near = nearest(word, known)
    rest = [
        f"{near}{given.removeprefix(word)}" if given.partition("=")[0] == word and near else given
        for given in arguments
    ]
    return UsageError(
        what,
        where=ctx.command_path,
        why=f"the nearest is {near}" if near else f"there are {', '.join(known)}",
        fix=f"nasfuse {shlex.join(rest)}" if near else f"{ctx.command_path} --help",
    )
