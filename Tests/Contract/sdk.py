"""Asks a running server with OpenAI's own client. Takes SLUICE_URL and SLUICE_TOKEN from the environment."""

import os

import openai

URL, TOKEN = os.environ["SLUICE_URL"], os.environ["SLUICE_TOKEN"]
client = openai.OpenAI(base_url=URL + "/v1", api_key=TOKEN, max_retries=0)
say = lambda text: [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]

models = [model.id for model in client.models.list()]
assert len(models) == 1, models

whole = client.chat.completions.create(model="any", messages=say("one two three"), temperature=0.5, stop=["x"])
assert whole.choices[0].message.content == "one two three", whole
assert whole.choices[0].finish_reason == "stop" and whole.usage.completion_tokens == 3, whole

# The words come slower than heartbeats: comments between them must not disturb the client.
parts = [{"type": "text", "text": "one two"}, {"type": "text", "text": " three"}]
chunks = list(
    client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": parts}], stream=True, stream_options={"include_usage": True}
    )
)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == "one two three", chunks
assert {chunk.id for chunk in chunks} == {chunks[0].id} and {chunk.object for chunk in chunks} == {
    "chat.completion.chunk"
}, chunks
assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
assert chunks[-2].choices[0].finish_reason == "stop", chunks[-2]
assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 6, chunks[-1]

# Leaving in the middle ends it.
with client.chat.completions.create(model="any", messages=say("word " * 500), stream=True) as stream:
    for chunk in stream:
        break


def fails(kind, ask):
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"no {kind}")


error = fails(openai.BadRequestError, lambda: client.chat.completions.create(model="any", messages=[]))
assert error.code == "bad_request" and error.type == "invalid_request_error", error
stranger = openai.OpenAI(base_url=URL + "/v1", api_key="wrong", max_retries=0)
fails(openai.AuthenticationError, lambda: stranger.chat.completions.create(model="any", messages=say("x")))
fails(openai.NotFoundError, lambda: client.embeddings.create(model="any", input="x"))
print(f"openai {openai.__version__} is content")
