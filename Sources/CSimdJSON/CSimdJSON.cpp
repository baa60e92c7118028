#include "CSimdJSON.h"

#include <cstring>
#include <deque>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

using namespace simdjson;

struct csimdjson_parser {
  ondemand::parser parser;
  // The chunk with the padding that simdjson wants to be able to read behind it.
  std::string padded;
  // Where strings are kept whose escapes simdjson refuses. A deque, for they must not move.
  std::deque<std::string> kept;
  // Whether a string of this text could not be read: then none of the text may count, for something is missing.
  bool is_broken = false;
  // What csimdjson_read gives back.
  std::vector<csimdjson_token> tokens;
};

namespace {

csimdjson_text text(std::string_view view) {
  return {reinterpret_cast<const uint8_t *>(view.data()), view.size()};
}

void append_utf8(std::string &out, uint32_t scalar) {
  if (scalar < 0x80) {
    out += char(scalar);
  } else if (scalar < 0x800) {
    out += char(0xC0 | scalar >> 6);
    out += char(0x80 | (scalar & 0x3F));
  } else if (scalar < 0x10000) {
    out += char(0xE0 | scalar >> 12);
    out += char(0x80 | (scalar >> 6 & 0x3F));
    out += char(0x80 | (scalar & 0x3F));
  } else {
    out += char(0xF0 | scalar >> 18);
    out += char(0x80 | (scalar >> 12 & 0x3F));
    out += char(0x80 | (scalar >> 6 & 0x3F));
    out += char(0x80 | (scalar & 0x3F));
  }
}

// The four hex digits at `at`, or -1.
int32_t hex4(std::string_view raw, size_t at) {
  if (at + 4 > raw.size()) return -1;
  int32_t value = 0;
  for (char digit : raw.substr(at, 4)) {
    value <<= 4;
    if (digit >= '0' && digit <= '9') value |= digit - '0';
    else if (digit >= 'a' && digit <= 'f') value |= digit - 'a' + 10;
    else if (digit >= 'A' && digit <= 'F') value |= digit - 'A' + 10;
    else return -1;
  }
  return value;
}

// Undoes the escapes of the JSON string token `raw`, quotes included. A surrogate without its other half, which
// simdjson refuses, becomes U+FFFD. False when it is not a string after all.
bool unescape(std::string_view raw, std::string &out) {
  out.clear();
  if (raw.empty() || raw[0] != '"') return false;
  for (size_t i = 1; i < raw.size();) {
    char c = raw[i++];
    if (c == '"') return true;
    if (c != '\\') {
      out += c;
      continue;
    }
    if (i == raw.size()) return false;
    switch (c = raw[i++]) {
    case '"': case '\\': case '/': out += c; break;
    case 'b': out += '\b'; break;
    case 'f': out += '\f'; break;
    case 'n': out += '\n'; break;
    case 'r': out += '\r'; break;
    case 't': out += '\t'; break;
    case 'u': {
      int32_t unit = hex4(raw, i);
      if (unit < 0) return false;
      i += 4;
      uint32_t scalar = uint32_t(unit);
      if (unit >= 0xD800 && unit < 0xE000) {
        int32_t low = unit < 0xDC00 && raw.substr(i, 2) == "\\u" ? hex4(raw, i + 2) : -1;
        if (low >= 0xDC00 && low < 0xE000) {
          scalar = 0x10000 + ((uint32_t(unit) - 0xD800) << 10) + (uint32_t(low) - 0xDC00);
          i += 6;
        } else {
          scalar = 0xFFFD;
        }
      }
      append_utf8(out, scalar);
      break;
    }
    default: return false;
    }
  }
  return false;
}

// The string `value` is, or no text when it is something else.
csimdjson_text string(csimdjson_parser &parser, ondemand::value value) {
  std::string_view raw = value.raw_json_token(), plain;
  error_code error = value.get_string().get(plain);
  if (!error) return text(plain);
  if (error != STRING_ERROR) return {nullptr, 0};
  parser.kept.emplace_back();
  if (unescape(raw, parser.kept.back())) return text(parser.kept.back());
  parser.is_broken = true;
  return {nullptr, 0};
}

// Whether a value is anything to speak of. null, false, 0, "", [] and {} are not: an `if` of the servers' own languages
// passes over them.
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
  for (auto entry : error) {
    chunk.has_error = true;
    ondemand::field field;
    std::string_view key;
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return;
    bool is_type = key == "type";
    if (!is_type && (key != "code" || chunk.error_kind.bytes)) continue;
    csimdjson_text kind = string(parser, field.value());
    if (kind.bytes) chunk.error_kind = kind;
  }
}

// Content that comes as an array of parts: the text of those that have one, joined.
csimdjson_text read_parts(csimdjson_parser &parser, ondemand::array parts, csimdjson_chunk &chunk) {
  parser.kept.emplace_back();
  std::string &joined = parser.kept.back();
  for (auto element : parts) {
    ondemand::object part;
    if (element.get_object().get(part)) {
      parser.is_broken = true;
      return {nullptr, 0};
    }
    for (auto entry : part) {
      ondemand::field field;
      std::string_view key;
      if (std::move(entry).get(field) || field.unescaped_key().get(key)) {
        parser.is_broken = true;
        return {nullptr, 0};
      }
      if (key == "text") {
        csimdjson_text piece = string(parser, field.value());
        if (piece.bytes) joined.append(reinterpret_cast<const char *>(piece.bytes), piece.count);
      } else if (key != "type" && is_something(field.value())) {
        chunk.is_active = true;
      }
    }
  }
  return text(joined);
}

csimdjson_text read_content(csimdjson_parser &parser, ondemand::value value, csimdjson_chunk &chunk) {
  ondemand::json_type type;
  ondemand::array parts;
  if (value.type().get(type) || type == ondemand::json_type::null) return {nullptr, 0};
  if (type == ondemand::json_type::string) return string(parser, value);
  if (type == ondemand::json_type::array && !value.get_array().get(parts)) return read_parts(parser, parts, chunk);
  // Text that cannot be read must not be missing from a complete answer.
  parser.is_broken = true;
  return {nullptr, 0};
}

void read_delta(csimdjson_parser &parser, ondemand::object delta, csimdjson_chunk &chunk) {
  for (auto entry : delta) {
    ondemand::field field;
    std::string_view key;
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return;
    if (key == "content") chunk.content = read_content(parser, field.value(), chunk);
    else if (key == "error") read_error(parser, field.value(), chunk);
    // Reasoning under any of its names, tool calls, a refusal.
    else if (key != "role" && is_something(field.value())) chunk.is_active = true;
  }
}

// Reads one element of `choices`, the one at `place`. Only the choice of index 0 is read into `chunk`: the text of
// another one does not belong to it. An error of any choice is one of the response.
void read_choice(csimdjson_parser &parser, ondemand::object choice, int64_t place, csimdjson_chunk &chunk) {
  csimdjson_chunk own = {};
  int64_t index = place;
  for (auto entry : choice) {
    ondemand::field field;
    std::string_view key;
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return;
    if (key == "delta" || key == "message") {
      ondemand::object delta;
      if (!field.value().get_object().get(delta)) read_delta(parser, delta, own);
    } else if (key == "finish_reason") {
      ondemand::value value = field.value();
      ondemand::json_type type;
      if (value.type().get(type) || type == ondemand::json_type::null) continue;
      csimdjson_text reason = string(parser, value);
      if (!reason.bytes) own.has_error = true;
      else if (reason.count) own.finish_reason = reason;
    } else if (key == "error") {
      read_error(parser, field.value(), own);
    } else if (key == "index") {
      if (field.value().get_int64().get(index)) index = place;
    }
  }
  if (own.has_error) {
    chunk.has_error = true;
    chunk.error_kind = own.error_kind;
  }
  if (index != 0) return;
  if (own.content.bytes) chunk.content = own.content;
  if (own.finish_reason.bytes) chunk.finish_reason = own.finish_reason;
  chunk.is_active |= own.is_active;
}

void read_usage(ondemand::object usage, csimdjson_chunk &chunk) {
  chunk.has_usage = true;
  for (auto entry : usage) {
    ondemand::field field;
    std::string_view key;
    int64_t number;
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return;
    if (key == "prompt_tokens" && !field.value().get_int64().get(number)) chunk.prompt_tokens = number;
    else if (key == "completion_tokens" && !field.value().get_int64().get(number)) chunk.completion_tokens = number;
    else if (key == "total_tokens" && !field.value().get_int64().get(number)) chunk.total_tokens = number;
  }
}

// Whether `raw` is a number of RFC 8259, section 6.
bool is_number(std::string_view raw) {
  size_t i = 0;
  auto digits = [&] {
    size_t first = i;
    while (i < raw.size() && raw[i] >= '0' && raw[i] <= '9') i++;
    return i > first;
  };
  if (i < raw.size() && raw[i] == '-') i++;
  if (i < raw.size() && raw[i] == '0') i++;
  else if (!digits()) return false;
  if (i < raw.size() && raw[i] == '.') {
    i++;
    if (!digits()) return false;
  }
  if (i < raw.size() && (raw[i] == 'e' || raw[i] == 'E')) {
    i++;
    if (i < raw.size() && (raw[i] == '+' || raw[i] == '-')) i++;
    if (!digits()) return false;
  }
  return i == raw.size();
}

void add(csimdjson_parser &parser, csimdjson_kind kind, csimdjson_text text = {nullptr, 0}) {
  parser.tokens.push_back({kind, text});
}

// Appends the tokens of `value`. False when it is not strictly JSON, or nested more than `depth` deep.
bool walk(csimdjson_parser &parser, ondemand::value value, size_t depth) {
  ondemand::json_type type;
  if (value.type().get(type)) return false;
  switch (type) {
  case ondemand::json_type::object: {
    ondemand::object object;
    if (!depth || value.get_object().get(object)) return false;
    add(parser, CSIMDJSON_OBJECT);
    for (auto entry : object) {
      ondemand::field field;
      std::string_view key;
      if (std::move(entry).get(field)) return false;
      // With its quotes, up to the end of the text.
      const char *quote = field.key().raw() - 1;
      std::string_view raw(quote, size_t(parser.padded.data() + parser.padded.size() - quote));
      if (field.unescaped_key().get(key)) {
        parser.kept.emplace_back();
        if (!unescape(raw, parser.kept.back())) return false;
        key = parser.kept.back();
      }
      add(parser, CSIMDJSON_STRING, text(key));
      if (!walk(parser, field.value(), depth - 1)) return false;
    }
    add(parser, CSIMDJSON_END);
    return true;
  }
  case ondemand::json_type::array: {
    ondemand::array array;
    if (!depth || value.get_array().get(array)) return false;
    add(parser, CSIMDJSON_ARRAY);
    for (auto element : array) {
      ondemand::value item;
      if (element.get(item) || !walk(parser, item, depth - 1)) return false;
    }
    add(parser, CSIMDJSON_END);
    return true;
  }
  case ondemand::json_type::string: {
    csimdjson_text read = string(parser, value);
    if (!read.bytes) return false;
    add(parser, CSIMDJSON_STRING, read);
    return true;
  }
  default: break;
  }
  std::string_view raw = value.raw_json_token();
  while (!raw.empty() && raw.back() && std::strchr(" \t\r\n", raw.back())) raw.remove_suffix(1);
  if (raw == "null") add(parser, CSIMDJSON_NULL);
  else if (raw == "true") add(parser, CSIMDJSON_TRUE);
  else if (raw == "false") add(parser, CSIMDJSON_FALSE);
  else if (is_number(raw)) add(parser, CSIMDJSON_NUMBER, text(raw));
  else return false;
  return true;
}

error_code start(csimdjson_parser &parser, const uint8_t *bytes, size_t count, ondemand::document &document) {
  parser.kept.clear();
  parser.is_broken = false;
  parser.padded.resize(count + SIMDJSON_PADDING);
  std::memcpy(&parser.padded[0], bytes, count);
  return parser.parser.iterate(parser.padded.data(), count, parser.padded.size()).get(document);
}

} // namespace

csimdjson_parser *csimdjson_parser_new(void) { return new (std::nothrow) csimdjson_parser; }

void csimdjson_parser_free(csimdjson_parser *parser) { delete parser; }

bool csimdjson_read_chunk(csimdjson_parser *parser, const uint8_t *bytes, size_t count, csimdjson_chunk *chunk) {
  std::memset(chunk, 0, sizeof *chunk);
  ondemand::document document;
  ondemand::object object;
  if (start(*parser, bytes, count, document) || document.get_object().get(object)) return false;
  bool is_chunk = false, is_empty = true;
  for (auto entry : object) {
    ondemand::field field;
    std::string_view key;
    // A chunk that is broken half-way is no chunk: what was read of it does not count.
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return false;
    is_empty = false;
    if (key == "choices") {
      ondemand::array choices;
      ondemand::object choice;
      int64_t place = 0;
      if (field.value().get_array().get(choices)) continue;
      is_chunk = true;
      for (auto element : choices) {
        if (element.get_object().get(choice)) return false;
        read_choice(*parser, choice, place++, *chunk);
        chunk->has_choice = true;
      }
    } else if (key == "error") {
      read_error(*parser, field.value(), *chunk);
    } else if (key == "usage") {
      ondemand::object usage;
      if (!field.value().get_object().get(usage)) read_usage(usage, *chunk);
    } else if (key == "object") {
      std::string_view name;
      if (field.value().get_string().get(name)) continue;
      if (name == "chat.completion.chunk") is_chunk = true;
      if (name == "error") chunk->has_error = true;
    } else if (key == "type" && !chunk->error_kind.bytes) {
      // Of a server that sends an error bare: {"object":"error","type":…}.
      chunk->error_kind = string(*parser, field.value());
    } else if (key == "detail" || key == "errors") {
      if (is_something(field.value())) chunk->has_error = true;
    } else if (key == "x_groq") {
      // Groq tells there why it has stopped a stream.
      ondemand::object extension;
      if (field.value().get_object().get(extension)) continue;
      for (auto member : extension) {
        ondemand::field inner;
        std::string_view name;
        if (std::move(member).get(inner) || inner.unescaped_key().get(name)) return false;
        if (name == "error") read_error(*parser, inner.value(), *chunk);
      }
    }
  }
  // Whatever else a server sends in a chunk's place is not a part of an answer.
  if (!is_chunk && !chunk->has_usage && !is_empty) chunk->has_error = true;
  return !parser->is_broken && document.current_location().error() == OUT_OF_BOUNDS;
}

bool csimdjson_read(csimdjson_parser *parser, const uint8_t *bytes, size_t count, size_t depth,
                    const csimdjson_token **tokens, size_t *token_count) {
  ondemand::document document;
  ondemand::value value;
  parser->tokens.clear();
  // What is no array and no object has no value that can be walked.
  if (start(*parser, bytes, count, document) || document.get_value().get(value) ||
      !walk(*parser, value, depth) || parser->is_broken || document.current_location().error() != OUT_OF_BOUNDS)
    return false;
  *tokens = parser->tokens.data();
  *token_count = parser->tokens.size();
  return true;
}
