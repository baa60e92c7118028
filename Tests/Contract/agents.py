"""Runs OpenAI's own client as an agent: tools, structured output, images, log probabilities. Takes SLUICE_URL and
SLUICE_TOKEN from the environment."""

import json
import os

import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=os.environ["SLUICE_URL"] + "/v1", api_key=os.environ["SLUICE_TOKEN"], max_retries=0)
# LiteLLM's proxy drops refusals, and of a stream the finish reasons of all choices but the first.
LOSSY = bool(os.environ.get("BEHIND_LITELLM"))
QUESTION = {"role": "user", "content": "How warm is it in Paris?"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "temperature",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
]


class Forecast(BaseModel):
    city: str
    degrees: int


def answer(messages, message):
    """The messages after the tools that a message calls have been run."""
    results = []
    for call in message.tool_calls:
        assert call.function.name == "temperature", call
        assert json.loads(call.function.arguments) == {"city": "Paris", "days": 7}, call
        results.append({"role": "tool", "tool_call_id": call.id, "content": "21 degrees"})
    return [*messages, message.model_dump(exclude_none=True), *results]


# The loop of an agent, once with whole responses and once with streams.
whole = client.chat.completions.create(model="any", messages=[QUESTION], tools=TOOLS, parallel_tool_calls=False)
assert whole.choices[0].finish_reason == "tool_calls" and whole.choices[0].message.content is None, whole
assert whole.choices[0].message.reasoning_content == "Let me see.", whole
assert whole.usage.completion_tokens_details.reasoning_tokens == 3, whole
last = client.chat.completions.create(
    model="any", messages=answer([QUESTION], whole.choices[0].message), tools=TOOLS
)
assert last.choices[0].message.content == "The tool said: 21 degrees", last

with client.chat.completions.stream(
    model="any", messages=[QUESTION], tools=TOOLS, stream_options={"include_usage": True}
) as stream:
    events = list(stream)
    final = stream.get_final_completion()
kinds = {event.type for event in events}
assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds, kinds
assert final.usage.total_tokens == 3, final
with client.chat.completions.stream(
    model="any", messages=answer([QUESTION], final.choices[0].message), tools=TOOLS
) as stream:
    assert "content.delta" in {event.type for event in stream}
    assert stream.get_final_completion().choices[0].message.content == "The tool said: 21 degrees"

# Structured output.
parsed = client.chat.completions.parse(model="any", messages=[QUESTION], response_format=Forecast)
assert parsed.choices[0].message.parsed == Forecast(city="Paris", degrees=7), parsed
with client.chat.completions.stream(model="any", messages=[QUESTION], response_format=Forecast) as stream:
    assert "content.done" in {event.type for event in stream}
    assert stream.get_final_completion().choices[0].message.parsed == Forecast(city="Paris", degrees=7)

# A refusal is none of the format.
if not LOSSY:
    refused = client.chat.completions.parse(
        model="any", messages=[{"role": "user", "content": "refuse"}], response_format=Forecast
    )
    assert refused.choices[0].message.refusal == "I cannot." and refused.choices[0].message.parsed is None, refused

# Images.
image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000, "detail": "low"}}
seen = client.chat.completions.create(
    model="any", messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]
)
assert seen.choices[0].message.content == "I see an image of 10022 bytes.", seen

# Log probabilities and several choices, whole and streamed.
asked = {"model": "any", "messages": [QUESTION], "logprobs": True, "top_logprobs": 1, "n": 2}
several = client.chat.completions.create(**asked)
with client.chat.completions.stream(**asked) as stream:
    assert "logprobs.content.delta" in {event.type for event in stream}
    streamed = stream.get_final_completion()
for completion in [several] if LOSSY else [several, streamed]:
    assert [choice.index for choice in completion.choices] == [0, 1], completion
    for choice in completion.choices:
        assert choice.message.content == f"{choice.index}: How warm is it in Paris?", choice
        tokens = [entry.token for entry in choice.logprobs.content]
        assert "".join(tokens) == choice.message.content and choice.logprobs.content[0].top_logprobs, choice
print(f"openai {openai.__version__} runs as an agent")
