#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
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
