#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library pcre2 = {"libpcre2-8.so.0", 0, ""};

const char *clazy_load_pcre2(void) { return library_load(&pcre2); }

FORWARD(&pcre2, int, PCRE2_ERROR_BADOPTION, pcre2_config_8, (uint32_t what, void *where), (what, where))
FORWARD(&pcre2, pcre2_code_8 *, 0, pcre2_compile_8,
        (PCRE2_SPTR8 pattern, PCRE2_SIZE count, uint32_t options, int *error, PCRE2_SIZE *offset,
         pcre2_compile_context_8 *context),
        (pattern, count, options, error, offset, context))
FORWARD_VOID(&pcre2, pcre2_code_free_8, (pcre2_code_8 * code), (code))
FORWARD(&pcre2, int, PCRE2_ERROR_JIT_BADOPTION, pcre2_jit_compile_8, (pcre2_code_8 * code, uint32_t options),
        (code, options))
FORWARD(&pcre2, int, PCRE2_ERROR_INTERNAL, pcre2_match_8,
        (const pcre2_code_8 *code, PCRE2_SPTR8 text, PCRE2_SIZE count, PCRE2_SIZE start, uint32_t options,
         pcre2_match_data_8 *data, pcre2_match_context_8 *context),
        (code, text, count, start, options, data, context))
FORWARD(&pcre2, int, PCRE2_ERROR_INTERNAL, pcre2_get_error_message_8, (int code, PCRE2_UCHAR8 *buffer, PCRE2_SIZE count),
        (code, buffer, count))
FORWARD(&pcre2, PCRE2_SIZE *, 0, pcre2_get_ovector_pointer_8, (pcre2_match_data_8 * data), (data))
FORWARD(&pcre2, pcre2_match_context_8 *, 0, pcre2_match_context_create_8, (pcre2_general_context_8 * context),
        (context))
FORWARD_VOID(&pcre2, pcre2_match_context_free_8, (pcre2_match_context_8 * context), (context))
FORWARD(&pcre2, pcre2_match_data_8 *, 0, pcre2_match_data_create_8, (uint32_t size, pcre2_general_context_8 *context),
        (size, context))
FORWARD_VOID(&pcre2, pcre2_match_data_free_8, (pcre2_match_data_8 * data), (data))
FORWARD(&pcre2, int, PCRE2_ERROR_INTERNAL, pcre2_pattern_info_8, (const pcre2_code_8 *code, uint32_t what, void *where),
        (code, what, where))
FORWARD(&pcre2, int, PCRE2_ERROR_INTERNAL, pcre2_set_heap_limit_8, (pcre2_match_context_8 * context, uint32_t limit),
        (context, limit))
FORWARD(&pcre2, int, PCRE2_ERROR_INTERNAL, pcre2_set_match_limit_8, (pcre2_match_context_8 * context, uint32_t limit),
        (context, limit))
