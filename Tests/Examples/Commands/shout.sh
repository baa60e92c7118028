#!/bin/sh
# A model in a few lines of shell: it repeats the last message in capitals, a word at a time. Needs jq.
jq -r '.messages[-1].content' | tr '[:lower:]' '[:upper:]' | tr ' ' '\n' | while read -r word; do
  printf '%s ' "$word"
done
