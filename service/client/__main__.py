"""The command `fer`: classifies the faces in pictures; prints a table, JSON or CSV."""

import argparse
import asyncio
import glob
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from service.client.answers import Failure, Prediction
from service.client.api import DEFAULT_RETRIES, DEFAULT_TIMEOUT_S, DEFAULT_URL, AsyncClient
from service.client.draw import draw
from service.client.exchange import Detect
from service.client.formats import FORMATS, Outcome

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 if all pictures were answered, 1 if some were not, 2 for wrong arguments.
    """
    options = _parser().parse_args(arguments)
    files = list(dict.fromkeys(_expand(options.pictures)))
    if not files:
        print("fer: there are no pictures in what was named", file=sys.stderr)
        return 2
    for folder in filter(None, (options.draw, options.explain)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            print(f"fer: {folder} cannot be made: {error.strerror}", file=sys.stderr)
            return 2
    return asyncio.run(_run(files, options))


async def _run(files: list[Path], options: argparse.Namespace) -> int:
    chosen, status = FORMATS[options.format], 0
    if chosen.head:
        print(chosen.head)
    # No progress bar without a terminal: it would break the lines of a log.
    with tqdm(total=len(files), unit="picture", disable=not sys.stderr.isatty()) as bar:
        async for outcome in _ask_all(files, options):
            if isinstance(outcome.answer, str):
                status = 1
            elif options.draw:
                target = _target(outcome.file, files, options.draw)
                await asyncio.to_thread(draw, outcome.file, outcome.answer, target)
            if text := chosen.write(outcome):
                bar.write(text)
            bar.update()
    return status


async def _ask_all(files: list[Path], options: argparse.Namespace) -> AsyncIterator[Outcome]:
    """Send several requests at a time; yield in the files' order."""
    limit = asyncio.Semaphore(options.concurrency)
    async with AsyncClient(
        options.url, api_key=options.api_key, timeout_s=options.timeout, retries=options.retries
    ) as client:

        async def predict(file: Path) -> Prediction:
            search = {
                "detect": options.detect, "max_faces": options.max_faces,
                "min_face": options.min_face, "prior": options.prior,
            }  # fmt: skip
            prediction = await client.predict(file, **search)
            if options.explain and prediction.faces:
                figure = await client.figure(file, **search)
                target = _target(file, files, options.explain)
                await asyncio.to_thread(target.write_bytes, figure)
            return prediction

        async def ask(file: Path) -> Outcome:
            async with limit:
                try:
                    return Outcome(file, await predict(file))
                except Failure as failure:
                    return Outcome(file, str(failure))
                except OSError as error:
                    return Outcome(file, f"cannot be read: {error.strerror}")

        for task in [asyncio.create_task(ask(file)) for file in files]:
            yield await task


def _target(file: Path, files: list[Path], folder: Path) -> Path:
    """Return the path of a file's PNG in `folder`, which mirrors the folders of the files."""
    top = os.path.commonpath([file.absolute().parent for file in files])
    inside = file.absolute().relative_to(top)
    target = folder / inside.with_name(inside.name + ".png")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _expand(names: Iterable[str]) -> Iterator[Path]:
    """Expand files, folders and patterns to files; keep missing names, for an error later."""
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif glob.has_magic(name) and not path.exists():
            yield from (Path(match) for match in sorted(glob.glob(name, recursive=True)))
        else:
            yield path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fer",
        description="Name the emotions of the faces in pictures.",
        epilog="exit status: 0 all pictures answered, 1 some were not, 2 wrong arguments",
    )
    environ = os.environ
    parser.add_argument("pictures", nargs="+", help="files, folders or patterns")
    parser.add_argument(
        "--url",
        default=environ.get("ATTENTION_FER_URL", DEFAULT_URL),
        help="where the service is; or ATTENTION_FER_URL (%(default)s)",
    )
    parser.add_argument(
        "--api-key",
        default=environ.get("ATTENTION_FER_API_KEY"),
        help="if the service wants one; better in ATTENTION_FER_API_KEY",
    )
    parser.add_argument("--format", choices=sorted(FORMATS), default="table")
    parser.add_argument("--draw", type=Path, metavar="DIR", help="write annotated copies there")
    parser.add_argument(
        "--explain", type=Path, metavar="DIR", help="write what each emotion was read from there"
    )
    parser.add_argument(
        "--detect",
        choices=get_args(Detect),
        help="look for faces always, or never: the whole picture is one (auto: unless it seems so)",
    )
    parser.add_argument("--max-faces", type=int, metavar="N", help="of each picture, the largest")
    parser.add_argument(
        "--min-face",
        type=float,
        metavar="SHARE",
        help="smallest face to look for, of the long side, from 0.02 (small ones where likely)",
    )
    parser.add_argument(
        "--prior",
        help="how frequent each emotion is taken to be: uniform, training, balanced or "
        "emotion:share,... (the service's default)",
    )
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", choices=range(1, 257))
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="S")
    parser.add_argument("--retries", type=int, default=DEFAULT_RETRIES, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
