// The two functions that Sluice needs from simdjson: reading a chat.completion.chunk of an OpenAI-compatible API, and
// parsing any JSON array or object strictly.
#ifndef SLUICE_CSIMDJSON_H
#define SLUICE_CSIMDJSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// UTF-8 text without a terminating NUL, valid until the next call with the same parser. `bytes` is NULL if there is no
// text.
typedef struct {
  const uint8_t *_Nullable bytes;
  size_t count;
} csimdjson_text;

typedef struct {
  // delta.content of the choice with index 0, or message.content of a non-streaming response.
  csimdjson_text content;
  // finish_reason of that choice. An empty string is treated as absent.
  csimdjson_text finish_reason;
  // error.type and error.code, if they are strings.
  csimdjson_text error_type;
  csimdjson_text error_code;
  // Whether the object reports an error, in itself or in any choice, or is not a chunk.
  bool has_error;
  // Whether the choices contain more than that: other choices, or reasoning, tool calls, log probabilities and so on.
  bool has_more;
  // Whether the object contains other members that belong to the output, or further members of the usage.
  bool has_members;
  // Whether it contains members that a server repeats in every chunk, such as system_fingerprint.
  bool has_repeated_members;
  // Whether there is at least one choice, with any index.
  bool has_choice;
  bool has_usage;
  int64_t prompt_tokens;
  int64_t completion_tokens;
  int64_t total_tokens;
} csimdjson_chunk;

// Buffers that are reused for every text. A parser is not thread-safe: use one per thread.
typedef struct csimdjson_parser csimdjson_parser;

// The version of simdjson, as "3.0.1".
const char *_Nonnull csimdjson_version(void);

csimdjson_parser *_Nullable csimdjson_parser_new(void);
void csimdjson_parser_free(csimdjson_parser *_Nonnull parser);

// Reads one chunk. Returns false if the text is not a JSON object or not valid UTF-8, or if its content cannot be read.
// Ignores other fields that have an unexpected type.
bool csimdjson_read_chunk(csimdjson_parser *_Nonnull parser, const uint8_t *_Nonnull bytes, size_t count,
                          csimdjson_chunk *_Nonnull chunk);

typedef enum {
  CSIMDJSON_NULL,
  CSIMDJSON_TRUE,
  CSIMDJSON_FALSE,
  // The text is the number as written in the source.
  CSIMDJSON_NUMBER,
  // The text is unescaped. In an object, each member is a string, its name, followed by its value.
  CSIMDJSON_STRING,
  CSIMDJSON_ARRAY,
  CSIMDJSON_OBJECT,
  // The end of the innermost array or object.
  CSIMDJSON_END,
} csimdjson_kind;

typedef struct {
  csimdjson_kind kind;
  csimdjson_text text;
} csimdjson_token;

// Reads one JSON array or object (RFC 8259) into its tokens, in order. They are valid until the next call with the same
// parser. Returns false if the text is anything else, not valid UTF-8, or nested more than `depth` levels deep.
bool csimdjson_read(csimdjson_parser *_Nonnull parser, const uint8_t *_Nonnull bytes, size_t count, size_t depth,
                    const csimdjson_token *_Nullable *_Nonnull tokens, size_t *_Nonnull token_count);

#ifdef __cplusplus
}
#endif

#endif
