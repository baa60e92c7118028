// Reads any JSON array or object into tokens.
#include "Parser.h"

#include <cstring>

using namespace csimdjson;

namespace {

// Returns whether `raw` is a number as defined by RFC 8259, section 6.
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

// Appends the tokens of `value`. Returns false if it is not strictly valid JSON, or is nested more than `depth` levels
// deep.
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
      // The view starts at the opening quote of the key and extends to the end of the text.
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

} // namespace

bool csimdjson_read(csimdjson_parser *parser, const uint8_t *bytes, size_t count, size_t depth,
                    const csimdjson_token **tokens, size_t *token_count) {
  ondemand::document document;
  ondemand::value value;
  parser->tokens.clear();
  // get_value() fails for a document that is neither an array nor an object.
  if (start(*parser, bytes, count, document) || document.get_value().get(value) ||
      !walk(*parser, value, depth) || parser->is_broken || document.current_location().error() != OUT_OF_BOUNDS)
    return false;
  *tokens = parser->tokens.data();
  *token_count = parser->tokens.size();
  return true;
}
