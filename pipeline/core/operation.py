"""Request, Result, Operation: one declaration that the CLI, the MCP server and Python share.

An operation is a plain typed function plus one :class:`Operation` constant. Short operations are ``f(request)``;
long ones are ``f(request, run)`` and write their progress and artifacts into the run directory they are given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.core.errors import InvalidInputError
from pipeline.core.runs import Run


class Request(BaseModel):
    """Base of requests: closed, frozen, documented by a docstring under each field."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Part(BaseModel):
    """Base of models nested in requests and results: closed, frozen, documented like them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Result(BaseModel):
    """Base of results; guidance travels in fields because MCP clients drop text beside structured content."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    warnings: list[str] = []
    """What the caller should know before relying on this result."""
    next_step: str = ""
    """The operation that usually follows, with its command."""

    def is_negative(self) -> bool:
        """True when the operation's own answer is no (CLI exit status 1)."""
        return False

    def styled_text(self) -> list[tuple[str, str]]:
        """Return (text, rich style) pieces that a terminal shows in place of the fields; none for a table of them."""
        return []


RequestT = TypeVar("RequestT", bound=Request)
ResultT = TypeVar("ResultT", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[RequestT, ResultT]):
    """One operation, declared once for all surfaces."""

    name: str
    """``group.verb``; the CLI says ``group verb``, MCP says ``group_verb``."""
    request: type[RequestT]
    result: type[ResultT]
    run: Callable[..., ResultT]
    """``f(request)``, or ``f(request, run)`` when ``long_running``."""
    read_only: bool = False
    """Changes nothing outside its run directory."""
    long_running: bool = False
    """May take more than a few seconds: gets a run directory; MCP starts it as a job."""
    destructive: bool = False
    """May overwrite or delete what the user has."""
    positional: tuple[str, ...] = ()
    """Request fields the CLI also takes without a flag, in order."""
    surfaces: tuple[Literal["cli", "mcp"], ...] = ("cli", "mcp")
    """Where it is offered; an operation that talks with a person on the terminal leaves ``mcp`` out."""

    @property
    def summary(self) -> str:
        """First docstring line of the function."""
        return (self.run.__doc__ or "").strip().split("\n")[0]

    def parse(self, values: dict[str, Any]) -> RequestT:
        """Turn untrusted values into a request; the only place that translates validation errors.

        Raises:
            InvalidInputError: If a field is missing, unknown or out of range.
        """
        try:
            return self.request.model_validate(values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, item['loc'])) or 'request'}: {item['msg']}"
                for item in error.errors(include_url=False, include_input=False)
            ]
            command = self.name.replace(".", " ")
            raise InvalidInputError(
                "; ".join(problems), hint=f"See `llmops {command} --help` for the fields.", problems=problems
            ) from error

    def execute(self, request: RequestT, run: Run | None = None) -> ResultT:
        """Run the operation; a long one gets a new run directory unless one is given."""
        if run is None and not self.long_running:
            return self.run(request)
        run = run or Run.create(self.name, request.model_dump(mode="json"))
        with run.active():
            result = self.run(request, run) if self.long_running else self.run(request)
            run.finish(result.model_dump(mode="json"))
            return result

    def call(self, values: dict[str, Any]) -> ResultT:
        """Parse and execute."""
        return self.execute(self.parse(values))
