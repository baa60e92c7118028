#include <errno.h>
#include <systemd/sd-daemon.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "Library.h"
#include "include/CLazyLibraries.h"

static struct library systemd = {"libsystemd.so.0", 0, ""};

const char *clazy_load_systemd(void) { return library_load(&systemd); }

FORWARD(&systemd, int, -ELIBACC, sd_journal_sendv, (const struct iovec *fields, int count), (fields, count))
FORWARD(&systemd, int, -ELIBACC, sd_listen_fds, (int unset_environment), (unset_environment))
FORWARD(&systemd, int, -ELIBACC, sd_notify, (int unset_environment, const char *state), (unset_environment, state))
FORWARD(&systemd, int, -ELIBACC, sd_watchdog_enabled, (int unset_environment, uint64_t *usec),
        (unset_environment, usec))
