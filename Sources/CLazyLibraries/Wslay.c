#include <wslay/wslay.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library wslay = {"libwslay.so.1", 0, ""};

const char *clazy_load_wslay(void) { return library_load(&wslay); }

FORWARD(&wslay, int, WSLAY_ERR_NOMEM, wslay_event_context_server_init,
        (wslay_event_context_ptr * context, const struct wslay_event_callbacks *callbacks, void *user_data),
        (context, callbacks, user_data))
FORWARD_VOID(&wslay, wslay_event_context_free, (wslay_event_context_ptr context), (context))
FORWARD_VOID(&wslay, wslay_event_config_set_max_recv_msg_length, (wslay_event_context_ptr context, uint64_t length),
             (context, length))
FORWARD(&wslay, int, WSLAY_ERR_CALLBACK_FAILURE, wslay_event_recv, (wslay_event_context_ptr context), (context))
FORWARD(&wslay, int, WSLAY_ERR_CALLBACK_FAILURE, wslay_event_send, (wslay_event_context_ptr context), (context))
FORWARD(&wslay, int, 0, wslay_event_get_read_enabled, (wslay_event_context_ptr context), (context))
FORWARD_VOID(&wslay, wslay_event_set_error, (wslay_event_context_ptr context, int error), (context, error))
