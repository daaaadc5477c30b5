"""Ask for an optional library by its distribution name.

Uses ``importlib.metadata`` because a folder called ``datasets`` makes ``find_spec("datasets")`` succeed without the
library (docs/decisions/0002).
"""

from importlib.metadata import PackageNotFoundError, version

from pipeline.core.errors import MissingDependencyError


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def require(*distributions: str, extra: str) -> None:
    """Check that libraries of an extra are installed.

    Raises:
        MissingDependencyError: If any of them is not.
    """
    missing = [name for name in distributions if installed_version(name) is None]
    if missing:
        raise MissingDependencyError(
            f"{', '.join(missing)} not installed",
            hint=f"Run `make setup`, or `pip install -c constraints.txt -e '.[{extra}]'`; then `llmops doctor run`.",
            missing=missing,
        )
