// The two things of simdjson that Sluice needs: what a chat.completion.chunk of an OpenAI-compatible API says, and
// any JSON text, read strictly.
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
  // delta.content of the choice with the index 0, or message.content of a response that was not streamed.
  csimdjson_text content;
  // finish_reason of that choice; an empty one counts as none.
  csimdjson_text finish_reason;
  // error.type, or error.code where there is no type and it is a string.
  csimdjson_text error_kind;
  // Whether it reports an error, of its own or of that choice, or is not a chunk at all.
  bool has_error;
  // Whether the delta has anything besides text, such as reasoning or tool calls: the model works.
  bool is_active;
  // Whether there is a choice at all, whatever its index.
  bool has_choice;
  bool has_usage;
  int64_t prompt_tokens;
  int64_t completion_tokens;
  int64_t total_tokens;
} csimdjson_chunk;

// Buffers that are used again for every chunk. One for each thread: it is not thread-safe.
typedef struct csimdjson_parser csimdjson_parser;

csimdjson_parser *_Nullable csimdjson_parser_new(void);
void csimdjson_parser_free(csimdjson_parser *_Nonnull parser);

// Reads one JSON text. False when it is not a JSON object, or not UTF-8, or when its content cannot be read. Other fields
// of another type than expected are passed over.
bool csimdjson_read_chunk(csimdjson_parser *_Nonnull parser, const uint8_t *_Nonnull bytes, size_t count,
                          csimdjson_chunk *_Nonnull chunk);

typedef enum {
  CSIMDJSON_NULL,
  CSIMDJSON_TRUE,
  CSIMDJSON_FALSE,
  // Its text is as it was written.
  CSIMDJSON_NUMBER,
  // Its text is unescaped. In an object every second value is one: the name of a member.
  CSIMDJSON_STRING,
  CSIMDJSON_ARRAY,
  CSIMDJSON_OBJECT,
  // Of the innermost array or object.
  CSIMDJSON_END,
} csimdjson_kind;

typedef struct {
  csimdjson_kind kind;
  csimdjson_text text;
} csimdjson_token;

// Reads one JSON text (RFC 8259), an array or an object, into its tokens in order. They are good until the next call
// with the same parser. False when it is anything else, not UTF-8, or nested more than `depth` deep.
bool csimdjson_read(csimdjson_parser *_Nonnull parser, const uint8_t *_Nonnull bytes, size_t count, size_t depth,
                    const csimdjson_token *_Nullable *_Nonnull tokens, size_t *_Nonnull token_count);

#ifdef __cplusplus
}
#endif

#endif
