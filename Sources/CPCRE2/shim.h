// Selects the 8-bit library of PCRE2, for UTF-8. The names of its functions end in _8.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
