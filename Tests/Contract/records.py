"""Holds the contract against a running server: it is valid OpenAPI, and every record of every dialect fits its schema.

Takes SLUICE_URL and SLUICE_TOKEN from the environment, and SLUICE_AGENT if the model calls tools. Says what was checked, and exits with 1 at the first thing that
does not fit.
"""

import json
import os
import urllib.error
import urllib.request

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

URL, TOKEN = os.environ["SLUICE_URL"], os.environ["SLUICE_TOKEN"]
SCHEMAS = {"events": "Events", "deltas": "Deltas", "chunks": "Chunks", "chat": "Chat", "openai": "OpenAI", "ui": "UI"}
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(path, body=None):
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Bearer {TOKEN}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    return opener.open(request, timeout=30).read().decode()


def records(text):
    """The events of a stream, by the rules of the HTML standard: (type, data)."""
    for block in text.split("\n\n"):
        kind, data = "message", []
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
        if data:
            text = "\n".join(data)
            yield kind, text if text == "[DONE]" else json.loads(text)


def streams(dialect):
    def completion(text, **more):
        body = {"messages": [{"role": "user", "content": text}], "stream": True, **more}
        return ask(f"/v1/chat/completions?dialect={dialect}", body)

    if os.environ.get("SLUICE_AGENT"):
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": "find", "parameters": parameters}}
        return {
            "a tool call": completion("one", tools=[tool]),
            "a refusal": completion("refuse"),
            "two choices": completion("one", n=2, logprobs=True, stream_options={"include_usage": True}),
            "a stored refusal": ask(f"/api/chat?dialect={dialect}", {"message": "refuse"}),
        }
    return {
        "a whole answer": ask(f"/api/chat?dialect={dialect}", {"message": "one two three"}),
        "a failure": ask(f"/api/ai/stream-report?dialect={dialect}", {"input": "no report"}),
        "an onboarding": ask(f"/chat/onboarding-stream?message=Ada&dialect={dialect}"),
        "with usage": completion("one two", stream_options={"include_usage": True}),
    }


contract = yaml.safe_load(ask("/openapi.yaml"))
validate(contract)
count = 0
for dialect, schema in SCHEMAS.items():
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": contract["components"]})
    for name, text in streams(dialect).items():
        found = list(records(text))
        assert found, f"{dialect}, {name}: {text}"
        for kind, data in found:
            count += 1
            errors = [error.message for error in validator.iter_errors({kind: data})]
            assert not errors, f"{dialect}, {name}: {kind} {data}: {errors}"
print(f"{count} records fit")
