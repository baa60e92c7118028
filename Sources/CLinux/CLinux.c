#define _GNU_SOURCE
#include "CLinux.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static _Thread_local const void *current_loop;

const void *clinux_current_loop(void) { return current_loop; }

void clinux_set_current_loop(const void *loop) { current_loop = loop; }

void clinux_name_thread(const char *name) {
  char cut[16];
  strncpy(cut, name, sizeof cut - 1);
  cut[sizeof cut - 1] = 0;
  pthread_setname_np(pthread_self(), cut);
}

int clinux_lock_byte(int file, off_t index) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = index, .l_len = 1};
  return fcntl(file, F_OFD_SETLK, &lock);
}

int clinux_memory_file(void) { return memfd_create("request", MFD_CLOEXEC); }

// The descriptor of each watcher, plus one, and its set of signals; 0 marks a free slot. Atomic, because the handler
// reads them on any thread.
static _Atomic(int) watcher_files[CLINUX_SIGNAL_WATCHERS];
static _Atomic(uint64_t) watcher_signals[CLINUX_SIGNAL_WATCHERS];
static _Atomic(int) running_handlers;
// The action that was installed before the first watcher of each signal, and the number of watchers per signal.
static pthread_mutex_t watchers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction earlier_actions[64];
static int signal_watchers[64];

static void handle_signal(int number) {
  int error = errno;
  unsigned char byte = (unsigned char)number;
  atomic_fetch_add(&running_handlers, 1);
  for (int slot = 0; slot < CLINUX_SIGNAL_WATCHERS; slot++) {
    int file = atomic_load(&watcher_files[slot]);
    if (file > 0 && atomic_load(&watcher_signals[slot]) >> number & 1) (void)!write(file - 1, &byte, 1);
  }
  atomic_fetch_sub(&running_handlers, 1);
  errno = error;
}

int clinux_watch_signals(int file, uint64_t signals) {
  pthread_mutex_lock(&watchers_lock);
  int slot = 0;
  while (slot < CLINUX_SIGNAL_WATCHERS && atomic_load(&watcher_files[slot]) != 0) slot++;
  if (slot == CLINUX_SIGNAL_WATCHERS) {
    pthread_mutex_unlock(&watchers_lock);
    errno = EAGAIN;
    return -1;
  }
  atomic_store(&watcher_signals[slot], signals);
  atomic_store(&watcher_files[slot], file + 1);
  for (int number = 1; number < 64; number++) {
    if (!(signals >> number & 1) || signal_watchers[number]++ > 0) continue;
    struct sigaction action = {.sa_handler = handle_signal, .sa_flags = SA_RESTART};
    sigaction(number, &action, &earlier_actions[number]);
  }
  pthread_mutex_unlock(&watchers_lock);
  return slot;
}

void clinux_unwatch_signals(int slot) {
  pthread_mutex_lock(&watchers_lock);
  uint64_t signals = atomic_load(&watcher_signals[slot]);
  for (int number = 1; number < 64; number++) {
    if (signals >> number & 1 && --signal_watchers[number] == 0) sigaction(number, &earlier_actions[number], 0);
  }
  atomic_store(&watcher_files[slot], 0);
  // A handler on another thread may still be using the descriptor, which the caller closes next.
  while (atomic_load(&running_handlers) > 0) sched_yield();
  pthread_mutex_unlock(&watchers_lock);
}

int clinux_pipe(int *ends) { return pipe2(ends, O_CLOEXEC | O_NONBLOCK); }

int clinux_accept(int listener) { return accept4(listener, 0, 0, SOCK_CLOEXEC); }

int clinux_send_message(int socket, const void *bytes, size_t count, const int *files, int file_count) {
  union {
    char bytes[CMSG_SPACE(CLINUX_MESSAGE_FILES * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  if (file_count > CLINUX_MESSAGE_FILES) {
    errno = EINVAL;
    return -1;
  }
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (file_count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(file_count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(file_count * sizeof(int));
    memcpy(CMSG_DATA(header), files, file_count * sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

ssize_t clinux_receive_message(int socket, void *bytes, size_t capacity, int *files, int *file_count) {
  union {
    char bytes[CMSG_SPACE(CLINUX_MESSAGE_FILES * sizeof(int))];
    struct cmsghdr alignment;
  } control;
  struct iovec part = {.iov_base = bytes, .iov_len = capacity};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
  *file_count = 0;
  ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    *file_count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(files, CMSG_DATA(header), *file_count * sizeof(int));
  }
  return count;
}

pid_t clinux_spawn_detached(const char *path, char *const *arguments, char *const *environment, int socket) {
  // Only functions that are safe in a signal handler are called in the new processes (signal-safety(7)): other threads
  // of this process can hold locks. _Fork runs no handlers of pthread_atfork(3).
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return -1;
  pid_t middle = _Fork();
  if (middle == 0) {
    pid_t child = _Fork();
    if (child != 0) {
      if (child > 0) (void)!write(report[1], &child, sizeof child);
      _exit(0);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int ready = socket == 3 ? fcntl(3, F_SETFD, 0) : dup2(socket, 3);
    if (ready >= 0) execve(path, arguments, environment);
    _exit(127);
  }
  int error = middle < 0 ? errno : EAGAIN;
  pid_t child = -1;
  close(report[1]);
  if (middle > 0) {
    if (read(report[0], &child, sizeof child) != sizeof child) child = -1;
    while (waitpid(middle, NULL, 0) < 0 && errno == EINTR) {
    }
  }
  close(report[0]);
  errno = error;
  return child;
}

// Returns the error of posix_spawn(3), or 0.
static int spawn(
    pid_t *child, const char *program, char *const *arguments, char *const *environment, const int *streams) {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  sigset_t signals;
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&attributes, 0);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  int error = 0;
  for (int number = 0; number < 3 && !error; number++) {
    error = posix_spawn_file_actions_adddup2(&actions, streams[number], number);
  }
  if (!error) error = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  if (!error) error = posix_spawn(child, program, &actions, &attributes, arguments, environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return error;
}

pid_t clinux_spawn_command(
    const char *program, char *const *arguments, char *const *environment, int input, int *process, int *output,
    int *errors) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0) return -1;
  if (pipe2(err, O_CLOEXEC) != 0) {
    int error = errno;
    close(out[0]);
    close(out[1]);
    errno = error;
    return -1;
  }
  pid_t child = -1;
  int error = spawn(&child, program, arguments, environment, (int[]){input, out[1], err[1]});
  close(out[1]);
  close(err[1]);
  if (!error) {
    // The child cannot have been reaped yet. The descriptor is closed on exec by default.
    *process = (int)syscall(SYS_pidfd_open, child, 0);
    if (*process < 0) {
      error = errno;
      kill(-child, SIGKILL);
      clinux_reap(child);
    }
  }
  if (error) {
    close(out[0]);
    close(err[0]);
    errno = error;
    return -1;
  }
  // The flag belongs to this end: the program's own end stays blocking.
  fcntl(out[0], F_SETFL, O_NONBLOCK);
  fcntl(err[0], F_SETFL, O_NONBLOCK);
  *output = out[0];
  *errors = err[0];
  return child;
}

bool clinux_has_ended(pid_t child, int *status, int *signal) {
  siginfo_t info = {0};
  *status = *signal = -1;
  if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return errno == ECHILD;
  if (info.si_pid == 0) return false;
  *(info.si_code == CLD_EXITED ? status : signal) = info.si_status;
  return true;
}

void clinux_reap(pid_t child) {
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
  }
}

void clinux_keep_child_status(void) {
  struct sigaction action;
  if (sigaction(SIGCHLD, NULL, &action) == 0 && action.sa_handler == SIG_IGN) signal(SIGCHLD, SIG_DFL);
}

bool clinux_library_path(const char *function, char *path) {
  Dl_info info;
  void *address = dlsym(RTLD_DEFAULT, function);
  return address && dladdr(address, &info) && realpath(info.dli_fname, path);
}
