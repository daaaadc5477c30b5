# pyright: basic
"""Task agent on the OpenAI Agents SDK: tools from ``tools.json``, any OpenAI-compatible server, no OpenAI account.

The tool schemas are passed as they are: the SDK's strict form would make every argument required, and the prompt
would no longer be the one the model was trained with.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
from agents import (
    Agent,
    FunctionTool,
    ItemHelpers,
    MessageOutputItem,
    ModelSettings,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    SQLiteSession,
    ToolCallItem,
    ToolCallOutputItem,
    ToolErrorFormatterArgs,
    set_tracing_disabled,
)
from agents.exceptions import MaxTurnsExceeded, ModelBehaviorError
from agents.items import TResponseStreamEvent

from pipeline.agent.tool_calls import ToolCaller
from pipeline.agent.transcript import AgentTurn, TranscriptItem, attach_calls
from pipeline.core.errors import (
    DoesNotFitError,
    InvalidInputError,
    MissingDependencyError,
    OperationFailedError,
    PipelineError,
)
from pipeline.core.messages import Tool
from pipeline.core.settings import Settings
from pipeline.inference.chat_rules import UNPARSABLE, find_retry_temperature
from pipeline.inference.server_spec import API_KEY_VARIABLE, is_loopback
from pipeline.task_api.tools import load_tools, system_prompt

_MAX_ANSWER_TOKENS = 512
_TIMEOUT_SECONDS = 300.0
OnText = Callable[[str], None]


class TaskAgent:
    """One conversation with the agent; a context manager that closes its connection and event loop.

    Attributes:
        last_items: What the last message led to, also when it failed: then the message and the calls it had made.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        tools: ToolCaller,
        *,
        max_turns: int = 8,
        session_path: str = ":memory:",
        session_name: str = "agent",
    ) -> None:
        """Connect nothing yet; the first message does.

        Args:
            base_url: Server, ending in ``/v1``.
            model: Model name there.
            tools: Executes the calls.
            max_turns: Most model calls for one user message.
            session_path: SQLite file that keeps conversations, or ``:memory:``.
            session_name: Which conversation in it.
        """
        set_tracing_disabled(True)  # else the SDK asks for an OpenAI key to send traces with
        self.last_items: tuple[TranscriptItem, ...] = ()
        self._base_url, self._max_turns, self._tools = base_url, max_turns, tools
        self._runner = asyncio.Runner()
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=Settings.load().api_key or "none",
            max_retries=1,
            timeout=_TIMEOUT_SECONDS,
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=not is_loopback(urlsplit(base_url).hostname or "")
            ),
        )
        self._session = SQLiteSession(session_name, session_path)
        self._agent = Agent(
            name="TaskAgent",
            instructions=lambda context, agent: system_prompt(tools.store.today()),
            model=_PatientModel(model=model, openai_client=self._client),
            tools=[_make_tool(tool, tools) for tool in load_tools()],
            model_settings=ModelSettings(temperature=0, max_tokens=_MAX_ANSWER_TOKENS, include_usage=True),
        )

        def explain(args: ToolErrorFormatterArgs[Any]) -> str:
            return tools.report(args.tool_name, None, tools.store.call(args.tool_name, {}))

        # A call of a tool that does not exist goes back to the model like every other wrong call.
        self._config = RunConfig(
            tool_not_found_behavior="return_error_to_model", tool_error_formatter=explain
        )

    def __enter__(self) -> "TaskAgent":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connection, session and event loop."""
        self._runner.run(self._client.close())
        self._session.close()
        self._runner.close()

    def ask(self, text: str, on_text: OnText | None = None) -> AgentTurn:
        """Send one user message and return when the agent has answered it.

        A message that fails is forgotten, so that the conversation can go on: a call whose result the server may
        not have read, or the text it had no room for, would only fail again. The calls it had made stay made; they
        are in ``last_items`` and in the error.

        Args:
            text: What the user says.
            on_text: Told each piece of a reply as it is generated; without it nothing is streamed.

        Raises:
            MissingDependencyError: If the server cannot be reached.
            InvalidInputError: If it does not have the model, or refuses the request.
            DoesNotFitError: If the conversation is longer than its context.
            OperationFailedError: If the agent does not come to an end, or calls what does not exist.
        """
        started = time.monotonic()
        before = self._count_items()
        message = TranscriptItem(role="user", text=text)
        self.last_items = (message,)
        self._tools.reported.clear()
        try:
            result = self._runner.run(self._ask(text, on_text))
        except BaseException as error:
            self.last_items = (message, *self._tools.reported)
            while self._count_items() > before:
                self._runner.run(self._session.pop_item())
            known = self._explain(error)
            if known is None:
                raise
            attach_calls(known, self._tools.reported)
            raise known from error
        self.last_items = (message, *_read_items(result))
        usage = result.context_wrapper.usage
        return AgentTurn(
            items=self.last_items,
            output=str(result.final_output),
            num_model_calls=usage.requests,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _ask(self, text: str, on_text: OnText | None) -> RunResult | RunResultStreaming:
        options: dict[str, Any] = {
            "max_turns": self._max_turns,
            "session": self._session,
            "run_config": self._config,
        }
        if on_text is None:
            return await Runner.run(self._agent, text, **options)
        streamed = Runner.run_streamed(self._agent, text, **options)
        async for event in streamed.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                on_text(event.data.delta)
        return streamed

    def reset(self) -> None:
        """Forget the conversation; the tasks stay."""
        self._runner.run(self._session.clear_session())

    def _count_items(self) -> int:
        return len(self._runner.run(self._session.get_items()))

    def _explain(self, error: BaseException) -> PipelineError | None:
        if isinstance(error, MaxTurnsExceeded):
            return OperationFailedError(
                f"the agent had not finished after {self._max_turns} model calls",
                hint="Ask for less at once, or raise --max-turns; a model that repeats a call needs more training.",
                max_turns=self._max_turns,
            )
        if isinstance(error, ModelBehaviorError):
            return OperationFailedError(
                f"the model broke the rules of tool calling: {error}", hint="Rephrase, or train it more."
            )
        if isinstance(error, openai.APIConnectionError):
            return MissingDependencyError(
                f"the server at {self._base_url} does not answer",
                hint="Start one with `llmops deploy serve`, or leave out --base-url.",
            )
        if isinstance(error, httpx.TransportError):  # the SDK leaves a stream that breaks off as it is
            return MissingDependencyError(
                f"the server at {self._base_url} broke off in the middle of the answer",
                hint="Try again: `deploy serve` starts a server again that has died.",
            )
        return self._explain_refusal(error) if isinstance(error, openai.APIError) else None

    def _explain_refusal(self, error: openai.APIError) -> PipelineError:
        status = getattr(error, "status_code", 500)  # an error inside a stream has none
        body = error.body if isinstance(error.body, dict) else {}
        message = str(body.get("message") or error.message)
        if "context" in f"{body.get('code')} {body.get('type')}":
            return DoesNotFitError(
                message, hint="Begin a new conversation (/reset), or serve with a larger context."
            )
        if status == 401:
            return InvalidInputError("the server wants a key", hint=f"Set {API_KEY_VARIABLE} to its key.")
        if status < 500:
            return InvalidInputError(message, hint="`llmops deploy status` shows what the server has.")
        return OperationFailedError(message, hint="Try again; the server's log says more.")


class _PatientModel(OpenAIChatCompletionsModel):
    """Asks once more, hotter, when a streamed call cannot be parsed; our server does so itself when nothing is streamed.

    The runner takes calls and reply from a stream's end, so an attempt that breaks off leaves nothing but shown text.
    """

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,
        model_settings: ModelSettings,
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        try:
            async for event in super().stream_response(
                system_instructions, input, model_settings, *args, **kwargs
            ):
                yield event
        except openai.APIError as error:
            if error.code != UNPARSABLE:
                raise
        else:
            return
        hotter = replace(model_settings, temperature=find_retry_temperature(model_settings.temperature))
        async for event in super().stream_response(system_instructions, input, hotter, *args, **kwargs):
            yield event


def _make_tool(tool: Tool, tools: ToolCaller) -> FunctionTool:
    function = tool["function"]
    name: str = function["name"]

    async def invoke(context: Any, raw: str) -> str:
        return await tools.call(name, raw)

    return FunctionTool(
        name=name,
        description=function["description"],
        params_json_schema=function["parameters"],
        on_invoke_tool=invoke,
        strict_json_schema=False,
    )


def _read_items(result: RunResult | RunResultStreaming) -> list[TranscriptItem]:
    raw_outputs: list[Any] = [
        item.raw_item for item in result.new_items if isinstance(item, ToolCallOutputItem)
    ]
    outputs: dict[str, str] = {raw["call_id"]: raw["output"] for raw in raw_outputs}
    items: list[TranscriptItem] = []
    for item in result.new_items:
        if isinstance(item, MessageOutputItem):
            items.append(TranscriptItem(role="assistant", text=ItemHelpers.text_message_output(item)))
        elif isinstance(item, ToolCallItem):
            items.append(_read_call(item.raw_item, outputs))
    return items


def _read_call(raw: Any, outputs: dict[str, str]) -> TranscriptItem:
    try:
        arguments = json.loads(raw.arguments or "{}")
    except ValueError:
        arguments = None
    return TranscriptItem(
        role="tool",
        tool=raw.name,
        arguments=arguments if isinstance(arguments, dict) else None,
        result=json.loads(outputs[raw.call_id]) if raw.call_id in outputs else None,
    )
