"""Holds the contract against a running server: it is valid OpenAPI, and every record of every dialect fits its schema.

Takes SLUICE_URL and SLUICE_TOKEN from the environment. Says what was checked, and exits with 1 at the first thing that
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


contract = yaml.safe_load(ask("/openapi.yaml"))
validate(contract)
count = 0
for dialect, schema in SCHEMAS.items():
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": contract["components"]})
    streams = {
        "a whole answer": ask(f"/api/chat?dialect={dialect}", {"message": "one two three"}),
        "a failure": ask(f"/api/ai/stream-report?dialect={dialect}", {"input": "no report"}),
        "an onboarding": ask(f"/chat/onboarding-stream?message=Ada&dialect={dialect}"),
        "with usage": ask(
            f"/v1/chat/completions?dialect={dialect}",
            {
                "messages": [{"role": "user", "content": "one two"}],
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
    }
    for name, text in streams.items():
        found = list(records(text))
        assert len(found) >= 2, f"{dialect}, {name}: {text}"
        for kind, data in found:
            count += 1
            errors = [error.message for error in validator.iter_errors({kind: data})]
            assert not errors, f"{dialect}, {name}: {kind} {data}: {errors}"
print(f"{count} records fit")
