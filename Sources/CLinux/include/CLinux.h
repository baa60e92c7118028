// The few things of Linux that Swift cannot say itself.
#ifndef SLUICE_CLINUX_H
#define SLUICE_CLINUX_H

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

// The event loop that the calling thread runs, or NULL. It is asked through C because glibc declares
// pthread_self() const: an optimiser may keep its value across a suspension, after which the code runs on
// another thread. A plain thread-local behind a function call cannot be kept.
const void *_Nullable clinux_current_loop(void);
void clinux_set_current_loop(const void *_Nullable loop);

// accept4 with SOCK_CLOEXEC; accept4 is a GNU extension that Swift's Glibc module does not export.
int clinux_accept(int listener);

// Locks one byte of a file for this open file, which loses it when it is closed (F_OFD_SETLK, fcntl(2)). 0, or -1 with
// EAGAIN when another has it.
int clinux_lock_byte(int file, off_t index);

// A file in memory without a name (memfd_create(2)), closed on exec. -1 with errno when there is no descriptor for it.
int clinux_memory_file(void);

// A pipe whose ends do not block and are closed on exec (pipe2(2)). -1 with errno when there is none.
int clinux_pipe(int *_Nonnull ends);

// Writes the number of each signal that arrives, a byte each, to a non-blocking descriptor, whichever thread it interrupts
// (sigaction(2)), until clinux_unwatch_signals(). Bit N of `signals` stands for signal N. A slot, or -1 with EAGAIN when
// there are as many watchers as there can be.
#define CLINUX_SIGNAL_WATCHERS 16
int clinux_watch_signals(int file, uint64_t signals);

// Undoes it. After the last watcher of a signal, what was installed before is there again.
void clinux_unwatch_signals(int slot);

// Names the calling thread, as `top -H` shows it; what is over 15 bytes is cut off (pthread_setname_np(3)).
void clinux_name_thread(const char *_Nonnull name);

#endif
