"""The command `fer`: classifies the faces in pictures; prints a table, JSON or CSV."""

import argparse
import asyncio
import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from tqdm import tqdm

from service import __version__
from service.client.address import parse_key, parse_retries, parse_timeout, parse_url
from service.client.answers import Failure, Prediction
from service.client.api import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, DEFAULT_URL, AsyncClient
from service.client.copies import Copies, plan_copies, prepare_folder, write_copy
from service.client.draw import draw
from service.client.exchange import Detect
from service.client.formats import FORMATS, Outcome, choose_format, shown
from service.client.picture import prepare_pillow
from service.client.sources import Found, Source, describe_skipped, find_sources

MAX_CONCURRENCY = 256

ANSWERED, UNANSWERED, WRONG_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130

_T = TypeVar("_T")


class _WrongArguments(Exception):  # noqa: N818 - said in one line
    """What was given cannot be done; the text says what and why."""


class _Unprintable(Exception):  # noqa: N818 - likewise
    """Standard output takes no more."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; what goes wrong is said in one line on standard error.

    Returns:
        The exit status: 0 if all pictures were answered, 1 if some were not (or a copy or the
        output could not be written), 2 for wrong arguments, 130 if it was interrupted.
    """
    _keep_file_names()
    try:
        return _run(_parser().parse_args(arguments))
    except _WrongArguments as error:
        _say(str(error))
        return WRONG_ARGUMENTS
    except _Unprintable as error:
        _leave_standard_output()
        # Whoever closed it, as `| head` does, has seen enough.
        if not isinstance(error.__cause__, BrokenPipeError):
            _say(str(error))
        return UNANSWERED
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    try:
        found = find_sources(options.pictures)
        copies = _plan_copies(found.sources, options)
        client = AsyncClient(
            options.url, api_key=options.api_key, timeout_s=options.timeout, retries=options.retries
        )
    except ValueError as error:
        raise _WrongArguments(str(error)) from None
    _say_what_is_left_out(found)
    if not found.sources:
        raise _WrongArguments("there are no pictures in what was named")
    prepare_pillow()
    job = _Job(client, options, copies)
    asyncio.run(job.run(found.sources))
    return max(job.report(len(found.sources)), UNANSWERED if found.unmatched else ANSWERED)


def _plan_copies(sources: Sequence[Source], options: argparse.Namespace) -> Copies:
    if not sources:
        return Copies({}, {})
    copies = plan_copies([source.file for source in sources], options.draw, options.explain)
    for folder in filter(None, (options.draw, options.explain)):
        try:
            prepare_folder(folder)
        except OSError as error:
            raise ValueError(f"{folder} cannot be written to: {error.strerror}") from None
    return copies


def _say_what_is_left_out(found: Found) -> None:
    for pattern in found.unmatched:
        _say(f"nothing matches {pattern}")
    if found.skipped:
        _say(describe_skipped(found.skipped))


class _Job:
    """Asks about pictures, several at a time, and counts what was not done."""

    def __init__(self, client: AsyncClient, options: argparse.Namespace, copies: Copies) -> None:
        self._client, self._options, self._copies = client, options, copies
        self._limit = asyncio.Semaphore(options.concurrency)
        self._unanswered = 0
        self._unwritten: Counter[str] = Counter()

    async def run(self, sources: Sequence[Source]) -> None:
        """Ask about all pictures; print the answers in their order."""
        chosen = choose_format(self._options.format, [source.file for source in sources])
        if chosen.head:
            _print(chosen.head)
        async with self._client:
            tasks = [asyncio.create_task(self._ask(source)) for source in sources]
            try:
                # No progress bar without a terminal: it would break the lines of a log.
                is_shown = sys.stderr is not None and sys.stderr.isatty()
                with tqdm(total=len(sources), unit="picture", disable=not is_shown) as bar:
                    for task in tasks:
                        text = chosen.write(await task)
                        with tqdm.external_write_mode():
                            _print(text)
                        bar.update()
            finally:  # before the client's end
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def report(self, asked: int) -> int:
        """Say what was not done, in a line for each kind; return the exit status."""
        if self._unanswered:
            _say(f"{self._unanswered} of {asked} pictures were not answered")
        for reason, count in self._unwritten.items():
            _say(f"{count} {'copy was' if count == 1 else 'copies were'} not written: {reason}")
        return UNANSWERED if self._unanswered or self._unwritten else ANSWERED

    async def _ask(self, source: Source) -> Outcome:
        async with self._limit:
            try:
                return Outcome(source.file, await self._answer(source))
            except Failure as failure:
                reason = str(failure)
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
            self._unanswered += 1
            return Outcome(source.file, reason)

    async def _answer(self, source: Source) -> Prediction:
        """Ask about one picture, and write its copies."""
        options, copies = self._options, self._copies
        search = {
            "detect": options.detect, "max_faces": options.max_faces,
            "min_face": options.min_face, "prior": options.prior,
        }  # fmt: skip
        # Once, and sent and drawn from these bytes: a pipe gives them only once.
        content = await asyncio.to_thread(source.read)
        prediction = await self._client.predict(content, **search)
        if target := copies.drawn.get(source.file):
            await self._write(target, partial(draw, content, prediction))
        if (target := copies.explained.get(source.file)) and prediction.faces:
            figure = await self._client.figure(content, **search)
            await self._write(target, lambda: figure)
        return prediction

    async def _write(self, target: Path, make: Callable[[], bytes]) -> None:
        """Write a copy in a thread; an answer stays one if its copy cannot be written."""
        try:
            await asyncio.to_thread(lambda: write_copy(target, make()))
        except (OSError, ValueError) as error:
            self._unwritten[getattr(error, "strerror", None) or str(error)] += 1


def _print(text: str) -> None:
    """Print a line on standard output, at once: whoever reads it may be waiting."""
    try:
        print(text, flush=True)
    except OSError as error:
        raise _Unprintable(f"the output cannot be written: {error.strerror}") from error


def _say(text: str) -> None:
    """Print a line on standard error, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"fer: {shown(text)}", file=sys.stderr, flush=True)


def _keep_file_names() -> None:
    """Let standard output take file names that are not valid in its encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        # In UTF-8 such a name is printed as the bytes that it has on the disk.
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def _leave_standard_output() -> None:
    """Make the interpreter's end silent, which else tries to write what is left."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise _WrongArguments(f"{message}; see fer --help")

    def print_help(self, file: Any = None) -> None:
        if file is not None:
            super().print_help(file)
            return
        _print(self.format_help().rstrip())  # argparse says nothing where that fails


class _Version(argparse.Action):
    """Prints the version and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        _print(f"fer {__version__}")
        parser.exit()


def _checked(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return a type of argparse's that keeps the words of a `ValueError`."""

    def read(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _count(most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        count = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
        if count < 1 or (most is not None and count > most):
            limit = "or more" if most is None else f"to {most}"
            raise ValueError(f"must be 1 {limit}, and is not {text!r}")
        return count

    return _checked(parse)


def _retries(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise ValueError(f"must be a whole number, and is not {text!r}")
    return parse_retries(int(text))


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"must be a number of seconds, and is not {text!r}") from None
    return parse_timeout(seconds)


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 < float(text) <= 1:
        raise ValueError(f"must be a share above 0 and at most 1, and is not {text!r}")
    return float(text)


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("the name of a folder is empty")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fer",
        description="Name the emotions of the faces in pictures.",
        epilog="exit status: 0 all pictures answered, 1 some were not (or a copy or the output "
        "could not be written), 2 wrong arguments, 130 interrupted",
    )
    environ = os.environ
    parser.add_argument(
        "pictures",
        nargs="+",
        help="files, folders or patterns; - for standard input. Of a folder what has the suffix "
        "of a picture is taken, and the rest is counted on standard error",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    parser.add_argument(
        "--url",
        type=_checked(lambda text: str(parse_url(text))),
        default=environ.get("ATTENTION_FER_URL") or DEFAULT_URL,
        help="where the service is, http without a scheme; or ATTENTION_FER_URL (%(default)s)",
    )
    parser.add_argument(
        "--api-key",
        type=_checked(parse_key),
        default=environ.get("ATTENTION_FER_API_KEY"),
        help="if the service wants one; better in ATTENTION_FER_API_KEY",
    )
    parser.add_argument("--format", choices=FORMATS, default="table")
    parser.add_argument(
        "--draw",
        type=_checked(_folder),
        metavar="DIR",
        help="write annotated copies there, NAME.png for each picture",
    )
    parser.add_argument(
        "--explain",
        type=_checked(_folder),
        metavar="DIR",
        help="write what each emotion was read from there, NAME.png; NAME.explained.png in the "
        "folder of --draw",
    )
    parser.add_argument(
        "--detect",
        choices=get_args(Detect),
        help="look for faces always, or never: the whole picture is one (auto: unless it seems so)",
    )
    parser.add_argument(
        "--max-faces", type=_count(), metavar="N", help="of each picture, the largest"
    )
    parser.add_argument(
        "--min-face",
        type=_checked(_share),
        metavar="SHARE",
        help="smallest face to look for, of the long side, from 0.02 (small ones where likely)",
    )
    parser.add_argument(
        "--prior",
        help="how frequent each emotion is taken to be: uniform, training, balanced or "
        "emotion:share,... (the service's default)",
    )
    parser.add_argument(
        "--concurrency",
        type=_count(MAX_CONCURRENCY),
        default=16,
        metavar="N",
        help="requests at a time (%(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=_checked(_timeout),
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="seconds for one attempt (%(default)g)",
    )
    parser.add_argument(
        "--retries",
        type=_checked(_retries),
        default=DEFAULT_RETRIES,
        metavar="N",
        help="attempts after the first one (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
