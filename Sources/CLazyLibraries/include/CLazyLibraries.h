// Loads libcurl, libcjose, libpcre2, libsystemd, libwslay and zlib when the first of their functions is called
// (dlopen(3)), instead of when the program starts. Most configurations need none of them, and libcurl alone brings 32
// other libraries: without them the program starts in half the time and needs a fifth less memory.
//
// This target defines the functions under their own names; include the libraries' headers to call them. A function of a
// library that cannot be loaded fails in its usual way.
#ifndef SLUICE_CLAZYLIBRARIES_H
#define SLUICE_CLAZYLIBRARIES_H

// Loads libcurl. Returns NULL, or the reason why it cannot be loaded, which the caller must not free.
const char *_Nullable clazy_load_curl(void);

// Loads libcjose. Returns as clazy_load_curl() does.
const char *_Nullable clazy_load_jose(void);

// Loads libpcre2. Returns as clazy_load_curl() does.
const char *_Nullable clazy_load_pcre2(void);

// Loads libsystemd. Returns as clazy_load_curl() does.
const char *_Nullable clazy_load_systemd(void);

// Loads libwslay. Returns as clazy_load_curl() does.
const char *_Nullable clazy_load_wslay(void);

// Loads zlib. Returns as clazy_load_curl() does.
const char *_Nullable clazy_load_zlib(void);

#endif
