"""WebSockets as a client of its own makes them, through nginx: handshake, messages, close codes, limits.

Takes SLUICE_URL, SLUICE_TOKEN and EXPIRING_TOKEN (which expires while this runs) from the environment. Exits with 1 at
the first thing that is wrong.
"""

import asyncio
import json
import os
import time

import websockets
from websockets.frames import Frame, Opcode

URL, TOKEN = os.environ["SLUICE_URL"].replace("http", "ws"), os.environ["SLUICE_TOKEN"]
PROTOCOLS = ["sluice.v1", "bearer." + TOKEN]


def connect(path="/ws/api/chat", **options):
    return websockets.connect(URL + path, **{"subprotocols": PROTOCOLS, "compression": None, **options})


async def send(socket, **message):
    await socket.send(json.dumps(message))


async def receive(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


def is_terminal(message):
    data = message["data"] if "data" in message else {}
    return data == "[DONE]" or message.get("event") in ("done", "complete", "error", "cancelled") or (
        isinstance(data, dict) and data.get("type") in ("complete", "error", "cancelled"))


async def messages(socket, id="a"):
    """The messages of one stream until its terminal record."""
    found = []
    while True:
        message = await receive(socket)
        if message.get("id") != id:
            continue
        found.append(message)
        if is_terminal(message):
            return found


async def streams():
    async with connect() as socket:
        assert socket.subprotocol == "sluice.v1"
        # Several at once, each with an id of the client.
        for name in "abc":
            await send(socket, type="start", id=name, body={"message": f"{name}1 {name}2", "sessionId": name})
        found = {name: [] for name in "abc"}
        while sum(is_terminal(m) for all in found.values() for m in all) < 3:
            message = await receive(socket)
            found[message["id"]].append(message)
        for name, all in found.items():
            assert [m["event"] for m in all] == ["open", "token", "token", "done"], all
            assert "".join(m["data"]["t"] for m in all[1:-1]) == f"{name}1 {name}2", all
            assert all[-1]["data"]["sessionId"] == name and all[0]["stream"] == all[-1]["data"]["messageId"], all
        # The id is free again. A stop ends the stream, before it is open too.
        words = " ".join(["word"] * 1000)
        await send(socket, type="start", id="a", body={"message": words})
        assert (await receive(socket))["event"] == "open"
        await send(socket, type="stop", id="a")
        assert (await messages(socket))[-1] == {"id": "a", "event": "cancelled", "data": {"reason": "stopped"}}
        # In one write, so that they are read together.
        pair = [{"type": "start", "id": "a", "body": {"message": "word " * 50}}, {"type": "stop", "id": "a"}]
        frames = [Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True) for message in pair]
        socket.transport.write(b"".join(frames))
        found = await messages(socket)
        assert found == [{"id": "a", "event": "cancelled", "data": {"reason": "stopped"}}], found
        # A stop of what does not run has no effect.
        await send(socket, type="stop", id="a")


async def refusals():
    async with connect() as socket:
        words = " ".join(["word"] * 1000)
        await send(socket, type="start", id="a", body={"message": words})
        assert (await receive(socket))["event"] == "open"
        for text, status, code, id in [
            ("junk", 400, "bad_request", None),
            ("[]", 400, "bad_request", None),
            ('{"type":"start","body":{}}', 400, "bad_request", None),
            ('{"type":"start","id":"","body":{}}', 400, "bad_request", None),
            ('{"type":"start","id":"a b","body":{}}', 400, "bad_request", None),
            ('{"type":"fly","id":"b"}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":[]}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":{"message":"x"},"query":{"message":"x"}}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":{"message":"x","stream":false}}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":{"message":""}}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":{"message":"x"},"idempotencyKey":5}', 400, "bad_request", "b"),
            ('{"type":"start","id":"b","body":{"message":"%s"}}' % ("x" * 70000), 413, "payload_too_large", "b"),
            ('{"type":"start","id":"b","query":{"message":"x"}}', 405, "method_not_allowed", "b"),
            ('{"type":"start","id":"b"}', 400, "bad_request", "b"),
            ('{"type":"resume","id":"b"}', 400, "bad_request", "b"),
            ('{"type":"resume","id":"b","stream":"not an id"}', 404, "not_found", "b"),
            ('{"type":"resume","id":"b","stream":"x","after":-1}', 400, "bad_request", "b"),
            ('{"type":"resume","id":"b","stream":"x"}', 404, "not_found", "b"),
            ('{"type":"start","id":"a","body":{"message":"x"}}', 409, "conflict", "a"),
        ]:
            await socket.send(text)
            message = await receive(socket)
            while message.get("event") == "token":
                message = await receive(socket)
            assert message["event"] == "error" and message["status"] == status, (text, message)
            assert message["data"]["code"] == code and message.get("id") == id, (text, message)
        # What runs was not disturbed.
        assert (await receive(socket))["event"] == "token"
        await send(socket, type="stop", id="a")
        assert (await messages(socket))[-1]["event"] == "cancelled"


async def routes():
    for path, start, last in [
        ("/ws/stream/", {"body": {"chat_id": "c", "content": "x y"}}, "[DONE]"),
        ("/ws/chat/stream", {"query": {"message": "é &=%"}}, None),
        ("/ws/api/stream/ai-block/quiz", {"query": {"input": "x y"}}, None),
        ("/ws/api/stream/ai-block/quiz", {"body": {"input": "x y"}}, None),
        ("/ws/v1/chat/completions", {"body": {"messages": [{"role": "user", "content": "x"}]}}, "[DONE]"),
        ("/ws/api/chat?dialect=ui", {"body": {"message": "x y"}}, "[DONE]"),
    ]:
        async with connect(path) as socket:
            await send(socket, type="start", id="a", **start)
            all = await messages(socket)
            assert all[0]["event"] == "open" and sum(map(is_terminal, all)) == 1, (path, all)
            assert last is None or all[-1]["data"] == last, (path, all)
            if path == "/ws/chat/stream":
                # The dialect and the token are the connection's.
                query = {"message": "x", "dialect": "openai", "token": "wrong"}
                await send(socket, type="start", id="b", query=query)
                assert (await messages(socket, "b"))[-1]["data"]["type"] == "complete"
                assert "".join(m["data"]["content"] for m in all[1:-1]) == "é &=%", all


async def floods():
    """Two hundred starts at once, and as many with the key of a running stream."""
    async with connect() as socket:
        for number in range(200):
            await send(socket, type="start", id=f"s{number}", body={"message": "x y"})
        ends = 0
        while ends < 200:
            ends += is_terminal(await receive(socket))
        body = {"message": "word " * 50}
        await send(socket, type="start", id="a", body=body, idempotencyKey="k")
        assert (await receive(socket))["event"] == "open"
        # In one write: the stop arrives while the second start is being decided on.
        pair = [{"type": "start", "id": "b", "body": body, "idempotencyKey": "k"}, {"type": "stop", "id": "b"}]
        frames = [Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True) for message in pair]
        socket.transport.write(b"".join(frames))
        ends = set()
        while len(ends) < 2:
            message = await receive(socket)
            if is_terminal(message):
                assert message["event"] == "cancelled", message
                ends.add(message["id"])


async def handshakes():
    for path, options, status in [
        ("/ws/api/chat", {"subprotocols": None}, 401),
        ("/ws/api/chat?token=wrong", {"subprotocols": None}, 401),
        ("/ws/api/chat", {"subprotocols": ["sluice.v1", "bearer.wrong"]}, 401),
        ("/ws/api/chat", {"subprotocols": ["bearer." + TOKEN]}, 400),
        ("/ws/api/chat", {"origin": "http://evil.example"}, 403),
        ("/ws/api/chat", {"origin": "null"}, 403),
        ("/ws/nothing", {}, 404),
        ("/ws/api/sessions", {}, 404),
        ("/ws/chat/message", {}, 404),
        ("/ws/api/stream/ai-block/unknown", {}, 404),
        ("/ws/api/chat?dialect=none", {}, 400),
    ]:
        try:
            async with connect(path, **options):
                raise AssertionError(f"{path} {options} was accepted")
        except websockets.InvalidStatus as refusal:
            assert refusal.response.status_code == status, (path, options, refusal.response)
            assert "code" in json.loads(refusal.response.body)["error"], refusal.response.body
    own = URL.replace("ws://", "http://")
    for path, options in [
        ("/ws/api/chat", {"origin": own}),
        ("/ws/api/chat", {"origin": own.replace("http://", "https://")}),
        ("/ws/api/chat?token=" + TOKEN, {"subprotocols": None}),
        ("/ws/api/chat", {"subprotocols": None, "additional_headers": {"Authorization": "Bearer " + TOKEN}}),
    ]:
        async with connect(path, **options) as socket:
            assert socket.subprotocol == ("sluice.v1" if "subprotocols" not in options else None)


async def close_code(frame):
    async with connect() as socket:
        socket.transport.write(frame if isinstance(frame, bytes) else frame.serialize(mask=True))
        try:
            await asyncio.wait_for(socket.recv(), 10)
        except websockets.ConnectionClosed as closed:
            return closed.rcvd and closed.rcvd.code
        raise AssertionError("still open")


async def closes():
    assert await close_code(Frame(Opcode.BINARY, b"x")) == 1003
    assert await close_code(Frame(Opcode.TEXT, b"\xff")) == 1007
    assert await close_code(b"\xc1\x81\0\0\0\0x") == 1002
    assert await close_code(Frame(Opcode.TEXT, b"x" * (1 << 20) + b"x")) == 1009
    assert await close_code(Frame(Opcode.CLOSE, b"\x03\xe8")) == 1000
    async with connect() as socket:
        await asyncio.wait_for(await socket.ping(), 10)
        # A message in fragments, with a ping between them.
        text = json.dumps({"type": "start", "id": "a", "body": {"message": "é y"}}).encode()
        for index in range(len(text)):
            first, last = index == 0, index == len(text) - 1
            frame = Frame(Opcode.TEXT if first else Opcode.CONT, text[index : index + 1], fin=last)
            socket.transport.write(frame.serialize(mask=True))
            if index % 10 == 0:
                socket.transport.write(Frame(Opcode.PING, b"p").serialize(mask=True))
        assert (await messages(socket))[-1]["event"] == "done"


async def expiry():
    async with connect(subprotocols=["sluice.v1", "bearer." + os.environ["EXPIRING_TOKEN"]]) as socket:
        words = " ".join(["word"] * 400)
        await send(socket, type="start", id="a", body={"message": words})
        assert (await receive(socket))["event"] == "open"
        expires = float(os.environ["EXPIRES"])
        await asyncio.sleep(max(0, expires - time.time()) + 1)
        await send(socket, type="start", id="b", body={"message": "x"})
        found = []
        try:
            while True:
                found.append(await receive(socket))
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1008, closed
        refused = [m for m in found if m["id"] == "b"]
        assert len(refused) == 1 and refused[0]["status"] == 401, refused
        # What ran was finished before the connection was closed.
        assert [m for m in found if m["id"] == "a"][-1]["event"] == "done", found[-1]


async def main():
    for part in [expiry, streams, refusals, routes, floods, handshakes, closes]:
        await part()
        print(part.__name__)


asyncio.run(main())
