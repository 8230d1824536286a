"""`mmzoo models push`: a complete model folder to the Hub, in one commit, with the evaluations that belong to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmzoo.errors import CommandParser, InputError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from mmzoo.hub.publication import PublishedFile

SHOWN_OF_A_FAULT = 200
CARD_REFUSED = "Invalid metadata in README.md"  #: how the Hub client begins to say so
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))


def hub_endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def check_repository(repository: str) -> str:
    """InputError unless it is owner/name as the Hub allows it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError("the owner is missing")
    except HFValidationError as fault:
        reason = " ".join(str(fault).split())[:SHOWN_OF_A_FAULT]
        raise InputError(f"{repository!r} is no Hub id ({reason}). Write it as OWNER/NAME.") from fault
    return repository


def upload(
    files: Sequence[PublishedFile], repository: str, *, private: bool, revision: str | None, message: str
) -> str:
    """Makes the repository (and the branch) if it is not there, sends the files in one commit; returns its URL.

    InputError in one line: no token, refused, the Hub's fault, a broken connection.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    endpoint = hub_endpoint()
    if get_token() is None:
        raise InputError("the Hub needs to know who you are. Log in with: hf auth login, or set HF_TOKEN.")
    api = HfApi(endpoint=endpoint)
    with _only_our_messages(), faults_named(repository, endpoint):
        _make_repository(api, repository, private)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=one.name, path_or_fileobj=_source(one)) for one in files]
        commit = api.create_commit(repository, operations, commit_message=message, revision=revision)
    return commit.commit_url


@contextmanager
def _only_our_messages() -> Iterator[None]:
    """Hides the client's log of its own retries, and its bars where nobody sees them move."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    level, shown = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            enable_progress_bars()


def _source(file: PublishedFile) -> str | bytes:
    return file.content if isinstance(file.content, bytes) else str(file.content)


def _make_repository(api: HfApi, repository: str, private: bool) -> None:
    """An existing one is kept, but never taken for private when it is not."""
    api.create_repo(repository, private=private or None, exist_ok=True)
    if private and not api.model_info(repository).private:
        raise InputError(
            f"{repository} exists and is public, so --private would not hold. Name another, or leave it out."
        )


@contextmanager
def faults_named(repository: str, endpoint: str) -> Iterator[None]:
    """Whatever the Hub client raises about the Hub or the way to it, as one line; a fault of ours keeps its trace."""
    from huggingface_hub.errors import HfHubHTTPError

    transport = _transport_error()
    try:
        yield
    except InputError:
        raise
    except Exception as fault:
        cause: BaseException | None = fault
        while cause is not None and not isinstance(cause, HfHubHTTPError | transport | OSError):
            cause = cause.__cause__  # uploads in threads arrive wrapped
        if isinstance(fault, ValueError) and str(fault).startswith(CARD_REFUSED):
            reason = _one_line(fault).removeprefix(CARD_REFUSED).strip(" .")
            raise InputError(f"the Hub refuses the card of {repository} ({reason}). Correct README.md.") from fault
        if isinstance(cause, HfHubHTTPError):
            raise InputError(_answer(cause, repository, endpoint)) from fault
        if cause is not None:
            raise InputError(
                f"the connection to {endpoint} broke ({type(cause).__name__}: {_one_line(cause)}). Push {repository} "
                f"again: what has arrived is not sent twice."
            ) from fault
        raise


def _transport_error() -> Any:
    """The HTTP library's root error: the client uses httpx or httpx2, by its version, and its errors build on it."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _answer(fault: Any, repository: str, endpoint: str) -> str:
    """What an HTTP error means here."""
    status = fault.response.status_code if fault.response is not None else 0
    if status == 401:
        return (
            f"{endpoint} does not accept your token (401), so {repository} was not changed. Log in with: "
            f"hf auth login, or set HF_TOKEN to a token that may write."
        )
    if status in (403, 404):
        return (
            f"{endpoint} does not let you write to {repository} ({status}). Check the name, and that your token may "
            f"write there."
        )
    if status >= 500:
        return f"{endpoint} failed ({status}) while {repository} was pushed. Try again later: nothing here is at fault."
    return f"{endpoint} refused {repository} ({status}: {_one_line(fault)}). Correct that and push again."


def _one_line(fault: BaseException) -> str:
    return " ".join(str(fault).split())[:SHOWN_OF_A_FAULT].rstrip(".") or "no reason given"


def size_text(size: int) -> str:
    """Bytes to be read: "12.3 MB"."""
    scale, unit = next((scale, unit) for scale, unit in UNITS if size >= scale or unit == "B")
    return f"{size / scale:.1f} {unit}" if scale > 1 else f"{size} B"


def main(argv: list[str], prog: str) -> int:
    """`mmzoo models push FOLDER OWNER/NAME [--record FILE]... [--dry-run]`."""
    parser = CommandParser(
        prog=prog, description="Upload a complete model folder to the Hugging Face Hub, in one commit."
    )
    add = parser.add_argument
    add("folder", type=Path, help="model folder, or a checkpoint of a run")
    add("repository", help="OWNER/NAME")
    add(
        "--record",
        type=Path,
        action="append",
        default=[],
        help="record.json of an evaluation of this model; repeatable",
    )
    add(
        "--dataset",
        metavar="OWNER/NAME",
        help="the benchmark on the Hub that the records measure: .eval_results/*.yaml",
    )
    add("--private", action="store_true", help="make a private repository")
    add("--revision", help="branch to commit to (default: main); made if it is not there")
    add("--message", help="of the commit (default: Upload NAME)")
    add("--dry-run", action="store_true", help="show what would go up, and send nothing")
    arguments = parser.parse_args(argv)
    repository = check_repository(arguments.repository)
    if arguments.dataset is not None:
        check_repository(arguments.dataset)
    files, left_out = _prepare(arguments, repository)
    for file in files:
        sys.stdout.write(f"{size_text(file.size):>9}  {file.name}\n")
    if left_out:
        sys.stderr.write(f"not uploaded: {', '.join(left_out)}\n")
    if arguments.record and arguments.dataset is None:
        sys.stderr.write("no .eval_results: they need --dataset, the benchmark on the Hub that was measured\n")
    total = f"{len(files)} files, {size_text(sum(file.size for file in files))}"
    if arguments.dry_run:
        sys.stderr.write(f"{total}; nothing was sent (--dry-run)\n")
        return 0
    message = arguments.message or f"Upload {repository.partition('/')[2]}"
    sys.stderr.write(f"{total} to {hub_endpoint()}/{repository}\n")
    url = upload(files, repository, private=arguments.private, revision=arguments.revision, message=message)
    sys.stdout.write(f"{url}\n")
    return 0


def _prepare(arguments: Any, repository: str) -> tuple[list[PublishedFile], Sequence[str]]:
    """What goes up and what stays; everything is checked before anything is sent."""
    from mmzoo.hub.evaluations import Target, read_evaluations
    from mmzoo.hub.publication import check_model_folder, published_files

    url = f"{hub_endpoint()}/{repository}/blob/{arguments.revision or 'main'}"
    target = Target(repository, url, arguments.dataset)
    model = check_model_folder(arguments.folder)
    evaluations = read_evaluations(arguments.record, target, model.folder, model.files)
    return published_files(model, evaluations, target), model.left_out
