"""Compares what a model server says directly with what it says through Sluice: the same requests, whole and streamed, with
the same seed. Takes SLUICE_URL, SLUICE_TOKEN and MODEL_URL from the environment."""

import os

import openai

direct = openai.OpenAI(base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0)
sluice = openai.OpenAI(base_url=os.environ["SLUICE_URL"] + "/v1", api_key=os.environ["SLUICE_TOKEN"], max_retries=0)
OWN = ["id", "created", "model", "timings"]
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "temperature", "description": "x", "parameters": PARAMETERS}}
CALL = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": '{"city":"Paris"}'}}
REQUESTS = {
    "text": {},
    "log probabilities": {"logprobs": True, "top_logprobs": 3},
    "a tool": {"tools": [TOOL], "tool_choice": "required"},
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS, "strict": True}}
    },
    "two choices": {"n": 2},
    "a result": {
        "messages": [
            {"role": "user", "content": "How warm?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "21"},
        ],
        "tools": [TOOL],
    },
}


def drop(value):
    """A response without the members that are Sluice's own or differ from run to run."""
    if isinstance(value, dict):
        return {name: drop(member) for name, member in value.items() if name not in OWN and member is not None}
    return [drop(element) for element in value] if isinstance(value, list) else value


def ask(client, request, is_streamed):
    if not is_streamed:
        return drop(client.chat.completions.create(**request).to_dict())
    with client.chat.completions.stream(stream_options={"include_usage": True}, **request) as stream:
        for _ in stream:
            pass
        try:
            return drop(stream.get_final_completion().to_dict())
        except openai.LengthFinishReasonError as error:
            return drop(error.completion.to_dict())


for name, more in REQUESTS.items():
    request = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "temperature": 0}
    request |= {"seed": 1, "extra_body": {"cache_prompt": False}, **more}
    # The client fails if the first chunk is of the second choice.
    for is_streamed in [False] if "n" in more else [False, True]:
        expected, found = ask(direct, request, is_streamed), ask(sluice, request, is_streamed)
        for choice in [*expected["choices"], *found["choices"]]:
            for call in choice["message"].get("tool_calls", []):
                # Random.
                call.pop("id", None)
            for name_of_empty in ("content", "refusal"):
                if not choice["message"].get(name_of_empty):
                    choice["message"].pop(name_of_empty, None)
        assert found == expected, f"{name}, streamed: {is_streamed}\n{expected}\n{found}"
    print(name, str(found["choices"][0])[:160])
print("The model server says the same directly and through Sluice.")
