// What the two readers share: the parser with its buffers, and strings whatever their escapes are.
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
  // The chunk with the padding that simdjson wants to be able to read behind it.
  std::string padded;
  // Where strings are kept whose escapes simdjson refuses. A deque, for they must not move.
  std::deque<std::string> kept;
  // Whether a string of this text could not be read: then none of the text may count, for something is missing.
  bool is_broken = false;
  // What csimdjson_read gives back.
  std::vector<csimdjson_token> tokens;
};

namespace csimdjson {

using namespace simdjson;

csimdjson_text text(std::string_view view);

// Undoes the escapes of the JSON string token `raw`, quotes included. A surrogate without its other half, which
// simdjson refuses, becomes U+FFFD. False when it is not a string after all.
bool unescape(std::string_view raw, std::string &out);

// The string `value` is, or no text when it is something else.
csimdjson_text string(csimdjson_parser &parser, ondemand::value value);

// Begins to read a text, of which the parser keeps a copy.
error_code start(csimdjson_parser &parser, const uint8_t *bytes, size_t count, ondemand::document &document);

// Calls `body` with the key and the value of each field of an object. False when the object is broken: its fields up to there
// have been given to `body`.
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
