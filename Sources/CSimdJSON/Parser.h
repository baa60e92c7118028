// Declarations that both readers share: the parser with its buffers, and strings with any escapes.
#ifndef SLUICE_CSIMDJSON_PARSER_H
#define SLUICE_CSIMDJSON_PARSER_H

#include "CSimdJSON.h"

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

struct csimdjson_parser {
  simdjson::ondemand::parser parser;
  // A copy of the text, followed by the padding that simdjson must be able to read.
  std::string padded;
  // Strings with escapes that simdjson rejects, unescaped. A deque, because their addresses must not change.
  std::deque<std::string> kept;
  // Whether a string could not be read. The complete text must then be rejected, because part of it is missing.
  bool is_broken = false;
  // The result of csimdjson_read.
  std::vector<csimdjson_token> tokens;
};

namespace csimdjson {

using namespace simdjson;

csimdjson_text text(std::string_view view);

// Unescapes the JSON string token `raw`, which includes its quotes. An unpaired surrogate, which simdjson rejects,
// becomes U+FFFD. Returns false if the token is not a valid string.
bool unescape(std::string_view raw, std::string &out);

// Returns the string in `value`, or no text if it is not a string. Sets `is_broken` if its escapes are invalid.
csimdjson_text string(csimdjson_parser &parser, ondemand::value value);

// Starts reading a text. The parser stores a copy of it.
error_code start(csimdjson_parser &parser, const uint8_t *bytes, size_t count, ondemand::document &document);

// Calls `body` with the key and the value of each field of an object. Returns false if the object is malformed; `body`
// has then been called with the fields before the error.
template <typename Body> bool each_field(ondemand::object object, Body body) {
  for (auto entry : object) {
    ondemand::field field;
    std::string_view key;
    if (std::move(entry).get(field) || field.unescaped_key().get(key)) return false;
    body(key, field.value());
  }
  return true;
}

} // namespace csimdjson

#endif
