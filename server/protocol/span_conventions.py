"""Attributes of other tracing libraries, read as MLflow's own.

Each convention says under which attributes its spans carry their kind, inputs, outputs, token counts
and model. What MLflow's own attributes already say is never changed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.protocol.spans import (
    INPUTS,
    MODEL,
    MODEL_PROVIDER,
    OUTPUTS,
    SPAN_TYPE,
    USAGE,
    dumped,
    loaded,
    object_attribute,
)

_UNKNOWN = "UNKNOWN"
_TOOLS = "mlflow.chat.tools"
_MESSAGE_FORMAT = "mlflow.message.format"


@dataclass(frozen=True, slots=True)
class _Convention:
    kinds: Mapping[str, str] = field(default_factory=dict)
    kind_keys: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    input_tokens: tuple[str, ...] = ()
    output_tokens: tuple[str, ...] = ()
    total_tokens: tuple[str, ...] = ()
    cache_read: tuple[str, ...] = ()
    cache_creation: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    message_format: str = ""
    marks: tuple[str, ...] = ()


# Keys are regular expressions that match a whole attribute name.
_OPEN_INFERENCE = _Convention(
    kind_keys=("openinference.span.kind",),
    kinds={
        kind: kind
        for kind in (
            "TOOL",
            "CHAIN",
            "LLM",
            "RETRIEVER",
            "EMBEDDING",
            "AGENT",
            "RERANKER",
            "GUARDRAIL",
            "EVALUATOR",
        )
    },
    inputs=("input.value",),
    outputs=("output.value",),
    input_tokens=("llm.token_count.prompt",),
    output_tokens=("llm.token_count.completion",),
    total_tokens=("llm.token_count.total",),
    cache_read=("llm.token_count.prompt_details.cache_read",),
    cache_creation=("llm.token_count.prompt_details.cache_write",),
    models=(
        "llm.response.model_name",
        "llm.model_name",
        "llm.request.model_name",
        "embedding.model_name",
    ),
    providers=("llm.provider",),
)
_GEN_AI = _Convention(
    kind_keys=("gen_ai.operation.name",),
    kinds={
        "chat": "CHAT_MODEL",
        "create_agent": "AGENT",
        "embeddings": "EMBEDDING",
        "execute_tool": "TOOL",
        "generate_content": "LLM",
        "invoke_agent": "AGENT",
        "text_completion": "LLM",
        "response": "LLM",
    },
    inputs=("gen_ai.input.messages", "gen_ai.tool.call.arguments"),
    outputs=("gen_ai.output.messages", "gen_ai.tool.call.result"),
    input_tokens=("gen_ai.usage.input_tokens",),
    output_tokens=("gen_ai.usage.output_tokens",),
    cache_read=("gen_ai.usage.cache_read.input_tokens",),
    cache_creation=(
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    models=("gen_ai.response.model", "gen_ai.request.model"),
    providers=("gen_ai.provider.name",),
    tools=("gen_ai.tool.definitions",),
)
_TRACELOOP = _Convention(
    kind_keys=("traceloop.span.kind",),
    kinds={"workflow": "WORKFLOW", "task": "TASK", "agent": "AGENT", "tool": "TOOL"},
    inputs=(
        "traceloop.entity.input",
        r"gen_ai\.prompt\.\d+\.content",
        r"gen_ai\.completion\.\d+\.tool_calls\.\d+\.arguments",
    ),
    outputs=("traceloop.entity.output", r"gen_ai\.completion\.\d+\.content"),
    input_tokens=("gen_ai.usage.prompt_tokens",),
    output_tokens=("gen_ai.usage.completion_tokens",),
    total_tokens=("llm.usage.total_tokens",),
    providers=("gen_ai.system",),
)
_GOOGLE_ADK = _Convention(
    inputs=("gcp.vertex.agent.llm_request", "gcp.vertex.agent.tool_call_args"),
    outputs=("gcp.vertex.agent.llm_response", "gcp.vertex.agent.tool_response"),
)
_VERCEL_AI = _Convention(
    kind_keys=("ai.operationId",),
    kinds={
        "ai.toolCall": "TOOL",
        **{
            f"ai.{verb}{thing}{part}": "LLM"
            for verb, suffix in (("generate", ".doGenerate"), ("stream", ".doStream"))
            for thing in ("Text", "Object")
            for part in ("", suffix)
        },
        **dict.fromkeys(("ai.embed", "ai.embed.doEmbed", "ai.embedMany"), "EMBEDDING"),
    },
    inputs=("ai.prompt", "ai.toolCall.args", "ai.value", "ai.values"),
    outputs=(
        "ai.response.text",
        "ai.toolCall.result",
        "ai.response.object",
        "ai.embedding",
        "ai.embeddings",
    ),
)
_VOLT_AGENT = _Convention(
    kind_keys=("span.type", "entity.type"),
    kinds={"agent": "AGENT", "llm": "LLM", "tool": "TOOL", "memory": "MEMORY"},
    inputs=("agent.messages", "llm.messages", "input"),
    outputs=("output",),
    input_tokens=("usage.prompt_tokens", "llm.usage.prompt_tokens"),
    output_tokens=("usage.completion_tokens", "llm.usage.completion_tokens"),
    total_tokens=("usage.total_tokens", "llm.usage.total_tokens"),
    message_format="voltagent",
    marks=("voltagent.operation_id", "voltagent.conversation_id"),
)
_LIVE_KIT = _Convention(
    inputs=("lk.user_input", "lk.user_transcript", "lk.chat_ctx", "lk.input_text"),
    outputs=("lk.response.text", "lk.response.function_calls"),
    message_format="livekit",
    marks=(r"lk\..*",),
)
_LAMINAR = _Convention(
    kind_keys=("lmnr.span.type",),
    kinds={
        "LLM": "LLM",
        "TOOL": "TOOL",
        "DEFAULT": "CHAIN",
        "PIPELINE": "CHAIN",
        "EXECUTOR": "AGENT",
        "CACHED": "LLM",
        **dict.fromkeys(("EVALUATOR", "HUMAN_EVALUATOR", "EVALUATION"), "EVALUATOR"),
    },
    inputs=("lmnr.span.input",),
    outputs=("lmnr.span.output",),
    providers=("gen_ai.system",),
    message_format="openai",
    marks=("lmnr.span.type",),
)
_LANGFUSE = _Convention(
    kind_keys=("langfuse.observation.type",),
    kinds={
        "generation": "LLM",
        **{
            kind: kind.upper()
            for kind in ("embedding", "tool", "retriever", "agent", "chain", "evaluator", "guardrail")
        },
    },
    inputs=("langfuse.observation.input",),
    outputs=("langfuse.observation.output",),
)
_CONVENTIONS = (
    _OPEN_INFERENCE,
    _GEN_AI,
    _TRACELOOP,
    _GOOGLE_ADK,
    _VERCEL_AI,
    _VOLT_AGENT,
    _LIVE_KIT,
    _LAMINAR,
    _LANGFUSE,
)


def with_mlflow_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes, and what they say in another library's words said in MLflow's."""
    known = {key: _dumped_once(value) for key, value in attributes.items()}
    if loaded(known.get(SPAN_TYPE)) in (None, _UNKNOWN) and (kind := _kind(known)):
        known[SPAN_TYPE] = dumped(kind)
    for key, found in (
        (INPUTS, _first(known, "inputs")),
        (OUTPUTS, _first(known, "outputs")),
        (USAGE, _token_usage(known)),
        (_MESSAGE_FORMAT, _message_format(known)),
        (_TOOLS, _first(known, "tools")),
    ):
        if found is not None:
            known.setdefault(key, found)
    for key, found in ((MODEL, _model(known)), (MODEL_PROVIDER, _first(known, "providers"))):
        if found is not None:
            known.setdefault(key, found)
    return known


def _dumped_once(value: str) -> str:
    """Undo what a sender did that put JSON text into a text attribute."""
    outer = loaded(value)
    if isinstance(outer, str) and outer[:1] in ('"', "{", "["):
        inner = loaded(outer)
        if isinstance(inner, dict | list) or (isinstance(inner, str) and inner != outer):
            return outer
    return value


def _kind(attributes: Mapping[str, str]) -> str | None:
    for convention in _CONVENTIONS:
        for key in convention.kind_keys:
            word = loaded(attributes.get(key))
            if isinstance(word, str) and word in convention.kinds:
                return convention.kinds[word]
    return "LLM" if "gen_ai.request.model" in attributes else None


def _first(attributes: Mapping[str, str], what: str) -> str | None:
    """The first value that says something, in any convention's words."""
    for convention in _CONVENTIONS:
        for value in _matching(attributes, getattr(convention, what)):
            if loaded(value):
                return value
    return None


def _matching(attributes: Mapping[str, str], keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        if key in attributes:
            yield attributes[key]
        elif "\\" in key:
            yield from (value for name, value in attributes.items() if re.fullmatch(key, name))


def _token_usage(attributes: Mapping[str, str]) -> str | None:
    for convention in _CONVENTIONS:
        counts = {
            "input_tokens": _count(attributes, convention.input_tokens),
            "output_tokens": _count(attributes, convention.output_tokens),
            "total_tokens": _count(attributes, convention.total_tokens),
        }
        if all(count is None for count in counts.values()):
            continue
        if counts["total_tokens"] is None and None not in (counts["input_tokens"], counts["output_tokens"]):
            counts["total_tokens"] = (counts["input_tokens"] or 0) + (counts["output_tokens"] or 0)
        counts["cache_read_input_tokens"] = _count(attributes, convention.cache_read)
        counts["cache_creation_input_tokens"] = _count(attributes, convention.cache_creation)
        return dumped({key: count for key, count in counts.items() if count is not None})
    return None


def _count(attributes: Mapping[str, str], keys: tuple[str, ...]) -> int | None:
    for value in _matching(attributes, keys):
        number: Any = loaded(value)
        try:
            return int(number)
        except (ValueError, TypeError, OverflowError):
            continue
    return None


def _model(attributes: Mapping[str, str]) -> str | None:
    if found := _first(attributes, "models"):
        return found
    for key in (INPUTS, OUTPUTS):
        model = (object_attribute(attributes, key) or {}).get("model")
        if isinstance(model, str) and model:
            return json.dumps(model, ensure_ascii=False)
    return None


def _message_format(attributes: Mapping[str, str]) -> str | None:
    for convention in _CONVENTIONS:
        if any(True for _ in _matching(attributes, convention.marks)):
            return dumped(convention.message_format)
    return None
