#!/bin/sh
# llama.cpp's llama-cli as the model. It writes the text to standard output, and its messages to standard error, which
# Sluice logs. Needs jq. Usage: llama.sh MODEL.gguf
request=$(cat)
prompt=$(printf '%s' "$request" | jq -r '.messages[] | "\(.role): \(.content)"'; printf 'assistant:')
limit=$(printf '%s' "$request" | jq -r '.max_tokens // -1')
exec llama-cli --model "$1" --prompt "$prompt" --n-predict "$limit" --no-display-prompt --simple-io -no-cnv
