// The one thing of simdjson that Sluice needs: what a chat.completion.chunk of an OpenAI-compatible API says.
#ifndef SLUICE_CSIMDJSON_H
#define SLUICE_CSIMDJSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// UTF-8 text, not terminated, good until the next call with the same parser. `bytes` is NULL when there is none.
typedef struct {
  const uint8_t *_Nullable bytes;
  size_t count;
} csimdjson_text;

typedef struct {
  // choices[0].delta.content, or .message.content of an answer that was not streamed.
  csimdjson_text content;
  // choices[0].delta.reasoning_content, or .reasoning.
  csimdjson_text reasoning;
  // choices[0].finish_reason; an empty one counts as none.
  csimdjson_text finish_reason;
  // error.type, or error.code where there is no type and it is a string.
  csimdjson_text error_kind;
  bool has_error;
  bool has_usage;
  int64_t prompt_tokens;
  int64_t completion_tokens;
  int64_t total_tokens;
} csimdjson_chunk;

// Buffers that are used again for every chunk. One for each thread: it is not thread-safe.
typedef struct csimdjson_parser csimdjson_parser;

csimdjson_parser *_Nullable csimdjson_parser_new(void);
void csimdjson_parser_free(csimdjson_parser *_Nonnull parser);

// Reads one JSON text. False when it is not a JSON object, or not UTF-8. Fields of another type than expected are
// passed over.
bool csimdjson_read_chunk(csimdjson_parser *_Nonnull parser, const uint8_t *_Nonnull bytes, size_t count,
                          csimdjson_chunk *_Nonnull chunk);

#ifdef __cplusplus
}
#endif

#endif
