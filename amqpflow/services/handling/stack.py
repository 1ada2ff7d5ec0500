"""Where an exception was raised in the user's own code, and its stack as text.

The user's code is neither amqpflow, nor the standard library, nor an installed package. A service that is itself an
installed package is known by its handler: the handler's package is the user's too.
"""

from __future__ import annotations

import inspect
import linecache
import os
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from amqpflow.delivery.stack_text import StackPart, stack_text
from amqpflow.model.clip import MESSAGE_MAX, NAME_MAX, STACK_MAX, clip, clip_start

_FRAMES_MAX = 200  #: the innermost ones that are looked at for a stack
_CAUSES_MAX = 8
_LINE_MAX = 200  #: characters of a source line in a stack
_REPEATS = 3  #: a line that calls itself is shown so often
_OURS = f"{Path(__file__).parents[2]}{os.sep}"  #: the whole package
_STANDARD = tuple(
    {f"{each}{os.sep}" for each in (Path(os.__file__).parent, *map(sysconfig.get_path, ("stdlib", "platstdlib")))}
)
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_TYPED_IN = ("<stdin>", "<console>", "<ipython")  #: code without a file that is the user's


class _Whose(Enum):
    OURS = 1
    LIBRARY = 2
    USER = 3


def code_of(function: Any) -> CodeType | None:
    """Return the code of a handler behind partials, decorators, methods and objects; None when it is not Python's."""
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function):
        function = getattr(type(function), "__call__", function)  # noqa: B004 - its code is wanted
    function = inspect.unwrap(function)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def defined_at(function: Any) -> str | None:
    """Return where a handler is defined, as `service.py:10`."""
    code = code_of(function)
    return _place(code.co_filename, code.co_firstlineno) if code is not None else None


def location(error: BaseException, function: Any) -> str | None:
    """Return file and line of the innermost frame of the user's own code, as `service.py:10`, at most 255 bytes.

    Without one it is the innermost frame that is not amqpflow's, else the place where the handler is defined.
    """
    mine: tuple[FrameType, int] | None = None
    theirs: tuple[FrameType, int] | None = None
    for frame, line in _entries(error.__traceback__):
        whose = _whose(frame.f_code.co_filename)
        if whose is _Whose.USER:
            mine = frame, line
        elif whose is _Whose.LIBRARY:
            theirs = frame, line
    package = _package_of(function) if theirs is not None else None
    if package is not None:
        for frame, line in _entries(error.__traceback__):
            name = str(frame.f_globals.get("__name__"))
            if _whose(frame.f_code.co_filename) is _Whose.USER or name.partition(".")[0] == package:
                mine = frame, line
    found = mine or theirs
    if found is None:
        return defined_at(function)
    return _place(found[0].f_code.co_filename, found[1])


def standing_at(frame: FrameType | None) -> str:
    """Return where a thread with this innermost frame is in the user's own code, and in which library it is."""
    innermost = library = ""
    while frame is not None:
        place = _place(frame.f_code.co_filename, frame.f_lineno)
        whose = _whose(frame.f_code.co_filename)
        if whose is _Whose.USER:
            return f"{place}{f' (in {library})' if library else ''}"
        if whose is _Whose.LIBRARY:
            library = library or place
        innermost = innermost or place
        frame = frame.f_back
    return library or innermost


def raised_in(error: BaseException) -> str:
    """Return `module:function` of the frame that raised it, "" for an exception that was never raised."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f"{at.tb_frame.f_globals.get('__name__')}:{at.tb_frame.f_code.co_qualname}"


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of amqpflow that it begins with; whole when it has no others."""
    at = traceback
    while at is not None and _whose(at.tb_frame.f_code.co_filename) is _Whose.OURS:
        at = at.tb_next
    return at or traceback


def stack(error: BaseException, within: BaseException | None = None) -> str:
    """Return the stack of an exception with its causes, at most 8 KiB, without the frames of amqpflow.

    `within` is the group that it is a leaf of.
    """
    parts, seen, at = [_part(error)], {id(error)}, error
    while len(parts) < _CAUSES_MAX:
        cause = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
        if cause is None or id(cause) in seen:
            break
        because = at.__cause__ is not None
        seen.add(id(cause))
        at = cause
        parts.append(_part(cause, _BECAUSE if because else _DURING))
    if within is not None and within is not error:
        parts.append(_part(within, _WITHIN))
    return stack_text(parts, STACK_MAX)


_BECAUSE = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"
_WITHIN = "The first exception of the above group:"


def _part(error: BaseException, link: str = "") -> StackPart:
    lines: deque[tuple[CodeType, int, dict[str, Any], int]] = deque(maxlen=_FRAMES_MAX)
    whole = list(_entries(error.__traceback__))
    shown = [each for each in whole if _whose(each[0].f_code.co_filename) is not _Whose.OURS] or whole
    count = 0
    for frame, line in shown:
        if lines and (lines[-1][0], lines[-1][1]) == (frame.f_code, line):
            code, _, scope, times = lines.pop()
            lines.append((code, line, scope, times + 1))
        else:
            lines.append((frame.f_code, line, frame.f_globals, 1))
            count += 1
    notes = getattr(error, "__notes__", None)
    end = f"{type_name(type(error))}: {message_of(error)}".removesuffix(": ") + "\n"
    if isinstance(notes, list):
        end += "".join(f"{clip(str(note), MESSAGE_MAX)}\n" for note in notes[:3] if isinstance(note, str))
    frames = tuple(_shown(*each) for each in lines)
    return StackPart(frames=frames, left_out=count - len(frames), end=_encodable(end), link=link)


def _shown(code: CodeType, line: int, scope: dict[str, Any], times: int) -> str:
    text = f'  File "{code.co_filename}", line {line}, in {code.co_name}\n'
    if source := linecache.getline(code.co_filename, line, scope).strip():
        text += f"    {source[:_LINE_MAX]}\n"
    repeated = f"  [Previous line repeated {times - _REPEATS} more times]\n" if times > _REPEATS else ""
    return _encodable(text * min(times, _REPEATS) + repeated)


def type_name(kind: type) -> str:
    """Return a class as a rule would name it: ValueError, httpx.ConnectError."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """Return the text of an exception, at most 1 KiB. It may be one whose `str()` raises."""
    try:
        return clip(str(error), MESSAGE_MAX)
    except Exception as broken:
        return f"<str() of the error raised {type(broken).__name__}>"


def _entries(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno or 0
        traceback = traceback.tb_next


@lru_cache(maxsize=4096)
def _whose(file: str) -> _Whose:
    if file.startswith(_OURS):
        return _Whose.OURS
    if file.startswith(_STANDARD) or any(each in file for each in _INSTALLED):
        return _Whose.LIBRARY
    if file.startswith("<") and not file.startswith(_TYPED_IN):
        return _Whose.LIBRARY  # generated by a package, or frozen
    return _Whose.USER


def _package_of(function: Any) -> str | None:
    """Return the package of a handler that is installed; None if its file is the user's own."""
    code = code_of(function)
    if code is None or _whose(code.co_filename) is not _Whose.LIBRARY or code.co_filename.startswith(_STANDARD):
        return None
    while isinstance(function, partial):
        function = function.func
    name = getattr(inspect.unwrap(function), "__module__", None)
    return name.partition(".")[0] if isinstance(name, str) else None


def _place(file: str, line: int) -> str:
    return clip_start(f"{_short(file)}:{line}", NAME_MAX)


@lru_cache(maxsize=1024)
def _short(file: str) -> str:
    """Return a file's path below the working directory or the place that it was imported from."""
    try:
        roots = [str(Path.cwd()), *sys.path]
    except OSError:
        roots = [*sys.path]  # the working directory was deleted
    within = [f"{root.rstrip(os.sep)}{os.sep}" for root in roots if isinstance(root, str) and root]
    longest = max((root for root in within if file.startswith(root)), key=len, default="")
    return file[len(longest) :]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
