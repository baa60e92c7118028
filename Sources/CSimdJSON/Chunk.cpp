// Reads one chunk of a streamed chat completion of OpenAI's API, or the object that a server sends in its place.
#include "Parser.h"

#include <cstring>

using namespace csimdjson;

namespace {

// Returns whether a value is truthy, as in an `if` of the servers' own languages. null, false, "", [], {} and a number
// that starts with 0 are not.
bool is_something(ondemand::value value) {
  std::string_view raw = value.raw_json_token();
  if (raw.empty()) return false;
  ondemand::array array;
  ondemand::object object;
  switch (raw[0]) {
  case 'n': case 'f': return false;
  case '"': return raw.size() > 1 && raw[1] != '"';
  case '[':
    if (value.get_array().get(array)) return true;
    for (auto element : array) {
      (void)element;
      return true;
    }
    return false;
  case '{':
    if (value.get_object().get(object)) return true;
    for (auto entry : object) {
      (void)entry;
      return true;
    }
    return false;
  default: return raw[0] != '0';
  }
}

void read_error(csimdjson_parser &parser, ondemand::value value, csimdjson_chunk &chunk) {
  ondemand::json_type type;
  ondemand::object error;
  if (value.type().get(type)) return;
  if (type != ondemand::json_type::object) {
    if (is_something(value)) chunk.has_error = true;
    return;
  }
  if (value.get_object().get(error)) return;
  each_field(error, [&](std::string_view key, ondemand::value member) {
    chunk.has_error = true;
    if (key != "type" && key != "code") return;
    csimdjson_text &found = key == "type" ? chunk.error_type : chunk.error_code;
    csimdjson_text text = string(parser, member);
    if (text.bytes) found = text;
  });
}

// Returns whether a value contains nothing: null, "", [] or {}.
bool is_empty(ondemand::value value) {
  std::string_view raw = value.raw_json_token();
  if (raw.empty()) return true;
  switch (raw[0]) {
  case 'n': return true;
  case '"': return raw.size() > 1 && raw[1] == '"';
  case '[': case '{': return !is_something(value);
  default: return false;
  }
}

csimdjson_text read_content(csimdjson_parser &parser, ondemand::value value, csimdjson_chunk &chunk) {
  ondemand::json_type type;
  if (value.type().get(type) || type == ondemand::json_type::null) return {nullptr, 0};
  if (type == ondemand::json_type::string) return string(parser, value);
  // Unreadable text must not be missing from a complete response, so the chunk is rejected.
  if (type == ondemand::json_type::array) chunk.has_more = true;
  else parser.is_broken = true;
  return {nullptr, 0};
}

void read_delta(csimdjson_parser &parser, ondemand::object delta, csimdjson_chunk &chunk) {
  each_field(delta, [&](std::string_view key, ondemand::value value) {
    if (key == "content") chunk.content = read_content(parser, value, chunk);
    else if (key == "error") read_error(parser, value, chunk);
    // Reasoning under any of its names, tool calls, refusals and whatever else there is.
    else if (key != "role" && !is_empty(value)) chunk.has_more = true;
  });
}

void read_finish_reason(csimdjson_parser &parser, ondemand::value value, csimdjson_chunk &chunk) {
  ondemand::json_type type;
  if (value.type().get(type) || type == ondemand::json_type::null) return;
  csimdjson_text reason = string(parser, value);
  if (!reason.bytes) chunk.has_error = true;
  else if (reason.count) chunk.finish_reason = reason;
}

// Returns an integer that can be written as 1.0 or 1e3, or `otherwise` if the value is none.
int64_t integer(ondemand::value value, int64_t otherwise) {
  ondemand::number number;
  if (value.get_number().get(number)) return otherwise;
  if (number.is_int64()) return number.get_int64();
  double real = number.as_double();
  return real >= -9e15 && real <= 9e15 && real == static_cast<double>(static_cast<int64_t>(real))
             ? static_cast<int64_t>(real) : otherwise;
}

// Reads one element of `choices`; `place` is its default index. Only the choice with index 0 is read into `chunk`; any
// other is more than its text. An error in any choice is an error of the response.
// Returns false if the element is malformed.
bool read_choice(csimdjson_parser &parser, ondemand::object choice, int64_t place, csimdjson_chunk &chunk) {
  csimdjson_chunk own = {};
  int64_t index = place;
  bool is_whole = each_field(choice, [&](std::string_view key, ondemand::value value) {
    ondemand::object delta;
    if (key == "delta" || key == "message") {
      if (!value.get_object().get(delta)) read_delta(parser, delta, own);
    } else if (key == "finish_reason") {
      read_finish_reason(parser, value, own);
    } else if (key == "error") {
      read_error(parser, value, own);
    } else if (key == "index") {
      index = integer(value, place);
    } else if (!is_empty(value)) {
      own.has_more = true;
    }
  });
  if (!is_whole) return false;
  if (own.has_error) {
    chunk.has_error = true;
    chunk.error_type = own.error_type;
    chunk.error_code = own.error_code;
  }
  chunk.has_more |= own.has_more || index != 0;
  if (index != 0) return true;
  // A second element for the same choice.
  if (chunk.content.bytes && own.content.bytes) chunk.has_more = true;
  if (own.content.bytes) chunk.content = own.content;
  if (own.finish_reason.bytes) chunk.finish_reason = own.finish_reason;
  return true;
}

void read_usage(ondemand::object usage, csimdjson_chunk &chunk) {
  each_field(usage, [&](std::string_view key, ondemand::value value) {
    int64_t *count = key == "prompt_tokens"       ? &chunk.prompt_tokens
                     : key == "completion_tokens" ? &chunk.completion_tokens
                     : key == "total_tokens"      ? &chunk.total_tokens
                                                  : nullptr;
    if (count) {
      chunk.has_usage = true;
      *count = integer(value, 0);
    } else if (!is_empty(value)) {
      chunk.has_members = true;
    }
  });
}

// Returns false if an element is malformed.
bool read_choices(csimdjson_parser &parser, ondemand::array choices, csimdjson_chunk &chunk) {
  int64_t place = 0;
  for (auto element : choices) {
    ondemand::object choice;
    if (element.get_object().get(choice) || !read_choice(parser, choice, place++, chunk)) return false;
    chunk.has_choice = true;
  }
  return true;
}

} // namespace

bool csimdjson_read_chunk(csimdjson_parser *parser, const uint8_t *bytes, size_t count, csimdjson_chunk *chunk) {
  std::memset(chunk, 0, sizeof *chunk);
  ondemand::document document;
  ondemand::object object;
  if (start(*parser, bytes, count, document) || document.get_object().get(object)) return false;
  bool is_chunk = false, has_no_field = true, is_broken = false;
  // A malformed chunk is rejected completely, including the fields that were read before the error.
  bool is_whole = each_field(object, [&](std::string_view key, ondemand::value value) {
    has_no_field = false;
    // The members that every chunk repeats.
    if (key == "id" || key == "created" || key == "model") return;
    if (key == "choices") {
      ondemand::array choices;
      if (value.get_array().get(choices)) return;
      is_chunk = true;
      if (!read_choices(*parser, choices, *chunk)) is_broken = true;
    } else if (key == "error") {
      read_error(*parser, value, *chunk);
    } else if (key == "usage") {
      ondemand::object usage;
      if (!value.get_object().get(usage)) read_usage(usage, *chunk);
    } else if (key == "object") {
      std::string_view name;
      if (value.get_string().get(name)) return;
      if (name == "chat.completion.chunk") is_chunk = true;
      if (name == "error") chunk->has_error = true;
    } else if (key == "type" && !chunk->error_type.bytes) {
      // Some servers send an error without an enclosing object: {"object":"error","type":…}.
      chunk->error_type = string(*parser, value);
    } else if (key == "detail" || key == "errors") {
      if (is_something(value)) chunk->has_error = true;
    } else if (key == "x_groq") {
      // Groq reports in x_groq.error why it stopped a stream.
      ondemand::object extension;
      if (value.get_object().get(extension)) return;
      bool is_read = each_field(extension, [&](std::string_view name, ondemand::value inner) {
        if (name == "error") read_error(*parser, inner, *chunk);
      });
      if (!is_read) is_broken = true;
      chunk->has_repeated_members = true;
    } else if (key == "system_fingerprint" || key == "service_tier" || key == "provider") {
      if (!is_empty(value)) chunk->has_repeated_members = true;
    } else if (key != "obfuscation" && !is_empty(value)) {
      chunk->has_members = true;
    }
  });
  // Any other non-empty object in place of a chunk is treated as an error, not as part of the output.
  if (!is_chunk && !chunk->has_usage && !has_no_field) chunk->has_error = true;
  return is_whole && !is_broken && !parser->is_broken && document.current_location().error() == OUT_OF_BOUNDS;
}
