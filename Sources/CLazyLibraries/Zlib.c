#include <zlib.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library zlib = {"libz.so.1", 0, ""};

const char *clazy_load_zlib(void) { return library_load(&zlib); }

FORWARD(&zlib, int, Z_VERSION_ERROR, inflateInit2_, (z_streamp stream, int bits, const char *version, int size),
        (stream, bits, version, size))
FORWARD(&zlib, int, Z_STREAM_ERROR, inflate, (z_streamp stream, int flush), (stream, flush))
FORWARD(&zlib, int, Z_STREAM_ERROR, inflateReset, (z_streamp stream), (stream))
FORWARD(&zlib, int, Z_STREAM_ERROR, inflateEnd, (z_streamp stream), (stream))
