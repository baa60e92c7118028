#include <systemd/sd-daemon.h>
// Without the line of the source, which would be that of the caller in C.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>
