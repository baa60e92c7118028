#include <cjose/cjose.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library jose = {"libcjose.so.0", 0, ""};

const char *clazy_load_jose(void) { return library_load(&jose); }

FORWARD(&jose, cjose_jwk_t *, 0, cjose_jwk_create_oct_spec, (const uint8_t *data, size_t count, cjose_err *error),
        (data, count, error))
FORWARD(&jose, cjose_jwk_t *, 0, cjose_jwk_import, (const char *json, size_t count, cjose_err *error),
        (json, count, error))
FORWARD(&jose, size_t, 0, cjose_jwk_get_keysize, (const cjose_jwk_t *key, cjose_err *error), (key, error))
FORWARD(&jose, bool, false, cjose_jwk_release, (cjose_jwk_t * key), (key))
FORWARD(&jose, cjose_jws_t *, 0, cjose_jws_import, (const char *text, size_t count, cjose_err *error),
        (text, count, error))
FORWARD(&jose, bool, false, cjose_jws_verify, (cjose_jws_t * signed_text, const cjose_jwk_t *key, cjose_err *error),
        (signed_text, key, error))
FORWARD(&jose, bool, false, cjose_jws_get_plaintext,
        (const cjose_jws_t *signed_text, uint8_t **plain, size_t *count, cjose_err *error),
        (signed_text, plain, count, error))
FORWARD_VOID(&jose, cjose_jws_release, (cjose_jws_t * signed_text), (signed_text))
