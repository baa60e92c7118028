"""Streams that are cut and resumed at random: nothing is lost or doubled, and nothing stays behind.

  resume.py http|websocket STREAMS

Takes SLUICE_URL and SLUICE_TOKEN from the environment. Each stream is cut three times at a random moment, and at a
random byte of what has arrived, and continued from the last record that arrived whole.
"""

import asyncio
import json
import os
import random
import sys
import urllib.parse

import websockets

URL, TOKEN = urllib.parse.urlsplit(os.environ["SLUICE_URL"]), os.environ["SLUICE_TOKEN"]
TRANSPORT, STREAMS = sys.argv[1], int(sys.argv[2])
WORDS = 40
CUTS = 3
DIALECTS = ["events", "chunks", "chat", "deltas"]


def text_of(dialect, value):
    return value.get({"events": "t", "chunks": "token", "chat": "content", "deltas": "delta"}[dialect], "")


class Reader:
    """One stream and what has been received of it."""

    def __init__(self, number):
        self.random = random.Random(number)
        self.number = number
        self.dialect = DIALECTS[number % len(DIALECTS)]
        self.message = " ".join(f"{number}.{word}" for word in range(WORDS))
        self.stream = None
        self.text = []
        self.sequence = []
        self.ends = 0

    def take(self, event, value):
        if value == "[DONE]" or event in ("done", "complete", "cancelled", "error") or value.get("type") == "complete":
            assert value == "[DONE]" or event in ("done", "complete", "message"), (self.number, event, value)
            self.ends += 1
            return
        if value.get("role") == "user" or event == "heartbeat":
            return
        self.text.append(text_of(self.dialect, value))
        self.sequence.append(value.get("seq"))

    def cut(self):
        return self.random.uniform(0.02, 1.2)

    async def run(self):
        cuts = CUTS
        while self.ends == 0:
            task = asyncio.ensure_future(self.read())
            if cuts:
                cuts -= 1
                await asyncio.wait([task], timeout=self.cut())
                if not task.done():
                    task.cancel()
            try:
                await task
            except (asyncio.CancelledError, ConnectionError, websockets.ConnectionClosed):
                pass
        assert "".join(self.text) == self.message, (self.number, "".join(self.text))
        assert self.ends == 1, self.number
        if self.dialect == "chunks":
            assert self.sequence == list(range(WORDS)), (self.number, self.sequence)

    async def read(self):
        await (self.read_http() if TRANSPORT == "http" else self.read_socket())

    # MARK: HTTP

    async def read_http(self):
        reader, writer = await asyncio.open_connection(URL.hostname, URL.port, limit=1 << 20)
        received = b""
        try:
            writer.write(self.request())
            while not received.endswith(b"0\r\n\r\n"):
                more = await reader.read(65536)
                if not more:
                    break
                received += more
        finally:
            writer.transport.abort()
            # The connection can be cut at any byte.
            if not received.endswith(b"0\r\n\r\n"):
                received = received[: self.random.randint(max(0, len(received) - 60), len(received))]
            self.take_http(received)

    def request(self):
        headers = f"Host: {URL.netloc}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        if self.stream:
            if self.text:
                headers += f"Last-Event-ID: {self.stream}.{len(self.text)}\r\n"
            return f"GET /api/streams/{self.stream} HTTP/1.1\r\n{headers}\r\n".encode()
        body = json.dumps({"message": self.message})
        # Without an id, the client comes back by its key.
        headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: k{self.number}\r\n"
        return f"POST /api/chat?dialect={self.dialect} HTTP/1.1\r\n{headers}\r\n{body}".encode()

    def take_http(self, received):
        head, separator, body = received.partition(b"\r\n\r\n")
        if not separator:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            # 409: the key is taken, but the stream has not begun.
            assert not head.startswith(b"HTTP/1.1 4") or head.startswith(b"HTTP/1.1 409"), (self.number, received)
            return
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"sluice-stream-id: "):
                if self.stream is None:
                    self.stream = line[18:].decode()
                assert self.stream == line[18:].decode(), "another stream"
        text = b""
        while body:
            size, separator, body = body.partition(b"\r\n")
            if not separator or not size:
                break
            text += body[: int(size, 16)]
            body = body[int(size, 16) + 2 :]
        for block in text.split(b"\n\n")[:-1]:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" in fields:
                data = fields[b"data"].decode()
                event = fields.get(b"event", b"message").decode()
                self.take(event, data if data == "[DONE]" else json.loads(data))

    # MARK: WebSocket

    async def read_socket(self):
        url = f"ws://{URL.netloc}/ws/api/chat?dialect={self.dialect}"
        async with websockets.connect(url, subprotocols=["sluice.v1", "bearer." + TOKEN], compression=None) as socket:
            start = {"type": "start", "id": "a", "body": {"message": self.message}, "idempotencyKey": f"k{self.number}"}
            resume = {"type": "resume", "id": "a", "stream": self.stream, "after": len(self.text)}
            await socket.send(json.dumps(resume if self.stream else start))
            try:
                async for text in socket:
                    message = json.loads(text)
                    if message.get("event") == "open":
                        self.stream = message["stream"]
                    elif "status" in message:
                        assert message["status"] == 409, (self.number, message)
                        return
                    else:
                        self.take(message.get("event", "message"), message["data"])
                    if self.ends:
                        return
            finally:
                socket.transport.abort()


async def main():
    readers = [Reader(number) for number in range(STREAMS)]
    tasks = []
    for reader in readers:
        tasks.append(asyncio.ensure_future(reader.run()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    print(f"{STREAMS} streams over {TRANSPORT}: complete")


asyncio.run(main())
