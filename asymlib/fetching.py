"""What is fetched from the hub may not be had; why is said in one sentence, in one place."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fetching(
    what: str,
    name: str,
    revision: str | None,
    expected: str,
    errors: tuple[type[Exception], ...] = (OSError, ValueError),
) -> Iterator[None]:
    """Turn the errors of a fetch into one that says what may be the matter.

    Args:
        what: The argument that is wrong, such as `dataset`.
        name: The repository, on the hub or a folder.
        revision: Its commit.
        expected: What has to be there.
        errors: What the libraries raise without a network, without access, or where there is no such thing.

    Raises:
        FileNotFoundError: It cannot be had.
    """
    try:
        yield
    except errors as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"{what}: got {name!r} at revision {revision!r}, which cannot be read ({reason}); expected {expected}"
        ) from error
