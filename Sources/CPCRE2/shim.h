// PCRE2 for UTF-8. Its functions are called by the names that end with _8.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
