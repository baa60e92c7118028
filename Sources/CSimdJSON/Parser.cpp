#include "Parser.h"

#include <cstring>
#include <new>

namespace csimdjson {

namespace {

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

// Returns the value of the four hexadecimal digits at `at`, or -1.
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

} // namespace

csimdjson_text text(std::string_view view) {
  return {reinterpret_cast<const uint8_t *>(view.data()), view.size()};
}

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

error_code start(csimdjson_parser &parser, const uint8_t *bytes, size_t count, ondemand::document &document) {
  parser.kept.clear();
  parser.is_broken = false;
  parser.padded.resize(count + SIMDJSON_PADDING);
  std::memcpy(&parser.padded[0], bytes, count);
  return parser.parser.iterate(parser.padded.data(), count, parser.padded.size()).get(document);
}

} // namespace csimdjson

csimdjson_parser *csimdjson_parser_new(void) { return new (std::nothrow) csimdjson_parser; }

void csimdjson_parser_free(csimdjson_parser *parser) { delete parser; }

#define TEXT(name) #name
#define VALUE(name) TEXT(name)

const char *csimdjson_version(void) { return VALUE(SIMDJSON_VERSION); }
