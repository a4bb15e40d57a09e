"""Stopping at once: by an exception, or, where nasfuse is a program of its own, by ending it.

An exception may arise in the middle of an import: CPython then keeps the lock of all imports for
ever, and whoever waits for another thread, which wants it, waits for ever too. A study is none the
worse for a program that ends on the spot: it is made for being killed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

_CURSOR = b"\x1b[?25h\r"  # shown again, if a display has hidden it


def exit_code(number: int) -> int:
    """What shells say of a program that a signal has ended."""
    return 128 + number


def _interrupt(number: int) -> None:
    raise KeyboardInterrupt(number)


def _leave(number: int, said: str, restore: Callable[[], None]) -> None:
    restore()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream.isatty():
                os.write(stream.fileno(), _CURSOR)
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{said}\n".encode())
    os._exit(exit_code(number))


def terminal_mode() -> tuple[int, list[Any]] | None:
    """The terminal of the input and its mode, as termios has it; None where there is none."""
    try:
        import termios
    except ImportError:  # another system
        return None
    try:
        terminal = sys.stdin.fileno()
        return terminal, termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):
        return None


def _terminal() -> Callable[[], None]:
    """Who sets the terminal's mode to what it is now."""
    found = terminal_mode()
    if found is None:
        return lambda: None
    import termios

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(found[0], termios.TCSANOW, found[1])

    return restore


_at_once: ContextVar[Callable[[int], None]] = ContextVar("at_once", default=_interrupt)


@contextmanager
def own_program(said: str) -> Iterator[None]:
    """Meanwhile the process is nobody else's, and may be ended: with this last word, and its
    terminal as it is now.

    An interrupt that arises where Python raises nothing, as in the callback of a weak reference,
    would be a traceback on the screen and else ignored: it ends the process.
    """
    before, hook = _at_once.set(partial(_leave, said=said, restore=_terminal())), sys.unraisablehook

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            stop_at_once(*unraisable.exc_value.args or (signal.SIGINT,))
        hook(unraisable)

    sys.unraisablehook = lost
    try:
        yield
    finally:
        sys.unraisablehook = hook
        _at_once.reset(before)


def stop_at_once(number: int = signal.SIGINT) -> None:
    """Do not come back; to be called by a signal's handler.

    Raises:
        KeyboardInterrupt: this is a part of another program.
    """
    _at_once.get()(number)
