#!/usr/bin/env python3
"""A model in Python: it counts the words of the conversation, and answers one word at a time."""
import json
import sys

request = json.load(sys.stdin)
if not request["messages"]:
    sys.exit("no messages")  # Logged; a status other than 0 fails the response.
words = sum(len(message["content"].split()) for message in request["messages"])
for word in f"I have read {words} words, 🎧 among them.".split(" "):
    # Without flush=True, Python would write all of it at the end.
    print(word, end=" ", flush=True)
