// Keeps the headers from defining macros with the names of these functions.
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#include <stdarg.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library curl = {"libcurl.so.4", 0, ""};

const char *clazy_load_curl(void) { return library_load(&curl); }

FORWARD(&curl, char *, "libcurl", curl_version, (void), ())
FORWARD(&curl, CURL *, 0, curl_easy_init, (void), ())
FORWARD(&curl, CURLcode, CURLE_FAILED_INIT, curl_easy_perform, (CURL * easy), (easy))
FORWARD_VOID(&curl, curl_easy_cleanup, (CURL * easy), (easy))
FORWARD(&curl, CURLcode, CURLE_FAILED_INIT, curl_easy_pause, (CURL * easy, int mask), (easy, mask))
FORWARD(&curl, const char *, "libcurl is not available", curl_easy_strerror, (CURLcode code), (code))
FORWARD(&curl, CURLM *, 0, curl_multi_init, (void), ())
FORWARD(&curl, CURLMcode, CURLM_INTERNAL_ERROR, curl_multi_cleanup, (CURLM * multi), (multi))
FORWARD(&curl, CURLMcode, CURLM_INTERNAL_ERROR, curl_multi_add_handle, (CURLM * multi, CURL *easy), (multi, easy))
FORWARD(&curl, CURLMcode, CURLM_INTERNAL_ERROR, curl_multi_remove_handle, (CURLM * multi, CURL *easy), (multi, easy))
FORWARD(&curl, CURLMcode, CURLM_INTERNAL_ERROR, curl_multi_socket_action,
        (CURLM * multi, curl_socket_t socket, int events, int *running), (multi, socket, events, running))
FORWARD(&curl, CURLMsg *, 0, curl_multi_info_read, (CURLM * multi, int *queued), (multi, queued))
FORWARD(&curl, struct curl_slist *, 0, curl_slist_append, (struct curl_slist * list, const char *text), (list, text))
FORWARD_VOID(&curl, curl_slist_free_all, (struct curl_slist * list), (list))
FORWARD(&curl, time_t, -1, curl_getdate, (const char *text, const time_t *unused), (text, unused))

// The variadic functions take one argument, which has the size of a pointer on all 64-bit platforms. It is passed on as
// one; the ABI passes pointers, longs and offsets in the same register.
#define FORWARD_VARIADIC(type, otherwise, name, handle_type, option_type)                     \
  type name(handle_type *handle, option_type option, ...) {                                   \
    va_list list;                                                                             \
    va_start(list, option);                                                                   \
    void *argument = va_arg(list, void *);                                                    \
    va_end(list);                                                                             \
    static _Atomic(void *) found;                                                             \
    type (*function)(handle_type *, option_type, ...) = library_function(&curl, #name, &found); \
    return function ? function(handle, option, argument) : otherwise;                         \
  }

FORWARD_VARIADIC(CURLcode, CURLE_FAILED_INIT, curl_easy_setopt, CURL, CURLoption)
FORWARD_VARIADIC(CURLcode, CURLE_FAILED_INIT, curl_easy_getinfo, CURL, CURLINFO)
FORWARD_VARIADIC(CURLMcode, CURLM_INTERNAL_ERROR, curl_multi_setopt, CURLM, CURLMoption)
