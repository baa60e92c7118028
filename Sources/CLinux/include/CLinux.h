// Linux functions and headers that Swift cannot use directly.
#ifndef SLUICE_CLINUX_H
#define SLUICE_CLINUX_H

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

// Returns the event loop that the calling thread runs, or NULL. It uses a C thread-local because glibc declares
// pthread_self() const: an optimiser can reuse its value across a suspension, after which the code runs on another
// thread. The result of this opaque call cannot be reused.
const void *_Nullable clinux_current_loop(void);
void clinux_set_current_loop(const void *_Nullable loop);

// Calls accept4 with SOCK_CLOEXEC. accept4 is a GNU extension that Swift's Glibc module does not export.
int clinux_accept(int listener);

// Locks one byte of a file for this open file description, until it is closed (F_OFD_SETLK, fcntl(2)). Returns 0, or -1
// with EAGAIN when another open file description holds the lock.
int clinux_lock_byte(int file, off_t index);

// Creates an anonymous in-memory file, closed on exec (memfd_create(2)). Returns -1 with errno when no descriptor is
// available.
int clinux_memory_file(void);

// Creates a pipe whose ends are non-blocking and closed on exec (pipe2(2)). Returns -1 with errno on failure.
int clinux_pipe(int *_Nonnull ends);

// Writes the number of each signal that arrives on any thread, as one byte, to a non-blocking descriptor
// (sigaction(2)), until clinux_unwatch_signals(). Bit N of `signals` stands for signal N. Returns a slot, or -1 with
// EAGAIN when all CLINUX_SIGNAL_WATCHERS slots are in use.
#define CLINUX_SIGNAL_WATCHERS 16
int clinux_watch_signals(int file, uint64_t signals);

// Stops a watch. Restores the previous action of each signal that has no other watcher.
void clinux_unwatch_signals(int slot);

// Sends a message and open descriptors over a socket that keeps the bounds of messages (SOCK_SEQPACKET; SCM_RIGHTS,
// unix(7)). Sends at most CLINUX_MESSAGE_FILES descriptors, and never waits. Returns 0, or -1 with errno.
#define CLINUX_MESSAGE_FILES 8
int clinux_send_message(int socket, const void *_Nonnull bytes, size_t count, const int *_Nonnull files, int file_count);

// Receives a message and up to CLINUX_MESSAGE_FILES descriptors, which are closed on exec. Returns its size, 0 at the end,
// or -1 with errno.
ssize_t clinux_receive_message(
    int socket, void *_Nonnull bytes, size_t capacity, int *_Nonnull files, int *_Nonnull file_count);

// Starts a program with an empty signal mask whose parent is not this process but init, or the nearest subreaper
// (prctl(2)). The program gets `socket` as descriptor 3, and no other descriptor that is closed on exec. Returns its
// process id, or -1 with errno if no process can be created; if the program cannot be executed, its end of `socket` closes.
pid_t clinux_spawn_detached(
    const char *_Nonnull path, char *const _Nullable *_Nonnull arguments, char *const _Nullable *_Nonnull environment,
    int socket);

// Starts a program by its path (posix_spawn(3)) in a process group of its own, with `input` as its standard input, pipes
// as its other standard streams, and no further descriptor. All signals have their default action there, and none is
// blocked. Writes the process's own descriptor (pidfd_open(2)), which is readable when the process has ended, and the
// pipes' ends, which are non-blocking; all three are closed on exec. Returns the process id, or -1 with errno.
pid_t clinux_spawn_command(
    const char *_Nonnull program, char *const _Nullable *_Nonnull arguments, char *const _Nullable *_Nonnull environment,
    int input, int *_Nonnull process, int *_Nonnull output, int *_Nonnull errors);

// Whether a child process has ended. It stays a zombie, and its id in use, until clinux_reap(). Writes its exit status,
// or else the signal that killed it; -1 for both if something else has reaped it.
bool clinux_has_ended(pid_t child, int *_Nonnull status, int *_Nonnull signal);
void clinux_reap(pid_t child);

// Gives SIGCHLD its default action if it is ignored: the status of a child is lost then (sigaction(2)).
void clinux_keep_child_status(void);

// Writes the path of the library that defines a function, without symbolic links, to `path`, which has PATH_MAX bytes
// (dladdr(3)). Returns whether it is known.
bool clinux_library_path(const char *_Nonnull function, char *_Nonnull path);

// Names the calling thread, as displayed by `top -H`. Truncates the name to 15 bytes (pthread_setname_np(3)).
void clinux_name_thread(const char *_Nonnull name);

#endif
