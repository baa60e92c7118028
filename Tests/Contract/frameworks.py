"""Runs agents of LangChain, Pydantic-AI, instructor and LiteLLM in their default modes. Takes SLUICE_URL and
SLUICE_TOKEN from the environment."""

import os

import instructor
import litellm
import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

URL, TOKEN = os.environ["SLUICE_URL"] + "/v1", os.environ["SLUICE_TOKEN"]
QUESTION = "How warm is it in Paris?"


class Forecast(BaseModel):
    city: str
    degrees: int


# LangChain, with bound tools, whole and streamed.
@tool
def temperature(city: str, days: int) -> str:
    """The temperature of a city."""
    assert (city, days) == ("Paris", 7), (city, days)
    return "21 degrees"


model = ChatOpenAI(model="any", base_url=URL, api_key=TOKEN, max_retries=0, stream_usage=True)
bound = model.bind_tools([temperature])
for is_streamed in (False, True):
    messages = [HumanMessage(QUESTION)]
    answer = None
    for _ in range(2):
        if is_streamed:
            chunks = list(bound.stream(messages))
            answer = chunks[0]
            for chunk in chunks[1:]:
                answer = answer + chunk
        else:
            answer = bound.invoke(messages)
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(ToolMessage(temperature.invoke(call["args"]), tool_call_id=call["id"]))
    assert answer.content == "The tool said: 21 degrees", answer
    assert answer.usage_metadata["total_tokens"] == 3, answer
assert model.with_structured_output(Forecast).invoke(QUESTION) == Forecast(city="Paris", degrees=7)

# Pydantic-AI, with a tool and an output type, which is a tool too.
agent = Agent(OpenAIChatModel("any", provider=OpenAIProvider(base_url=URL, api_key=TOKEN)), output_type=Forecast)


@agent.tool_plain(name="temperature")
def measure(city: str, days: int) -> str:
    return f"{days} in {city}"


result = agent.run_sync(QUESTION)
assert result.output == Forecast(city="Paris", degrees=7), result
assert any(part.part_kind == "tool-return" for message in result.all_messages() for part in message.parts), result

# instructor, in its default mode, which is tools.
client = instructor.from_openai(openai.OpenAI(base_url=URL, api_key=TOKEN, max_retries=0))
created = client.chat.completions.create(
    model="any", response_model=Forecast, messages=[{"role": "user", "content": QUESTION}]
)
assert (created.city, created.degrees) == ("Paris", 7), created
partial = list(
    client.chat.completions.create_partial(
        model="any", response_model=Forecast, messages=[{"role": "user", "content": QUESTION}]
    )
)
assert (partial[-1].city, partial[-1].degrees) == ("Paris", 7), partial

# LiteLLM as a library.
completion = litellm.completion(
    model="openai/any",
    api_base=URL,
    api_key=TOKEN,
    messages=[{"role": "user", "content": QUESTION}],
    tools=[{"type": "function", "function": {"name": "temperature", "parameters": Forecast.model_json_schema()}}],
)
assert completion.choices[0].message.tool_calls[0].function.name == "temperature", completion
assert completion.choices[0].message.reasoning_content == "Let me see.", completion
print("LangChain, Pydantic-AI, instructor and LiteLLM run as agents")
