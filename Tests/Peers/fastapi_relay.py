"""A relay with FastAPI and httpx, served by uvicorn: UPSTREAM_URL in the environment."""

import json
import os

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()
client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64))


@app.post("/api/chat")
async def chat(request: Request):
    body = await request.body()

    async def records():
        url = os.environ["UPSTREAM_URL"] + "/chat/completions"
        async with client.stream("POST", url, content=body, headers={"Content-Type": "application/json"}) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                data = line[6:]
                if data == "[DONE]":
                    yield "event: done\ndata: {}\n\n"
                    return
                text = json.loads(data)["choices"][0]["delta"].get("content")
                if text:
                    record = json.dumps({"t": text}, separators=(",", ":"))
                    yield f"event: token\ndata: {record}\n\n"

    return StreamingResponse(records(), media_type="text/event-stream")
