#define _GNU_SOURCE
#include "CLinux.h"

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

int clinux_accept(int listener) { return accept4(listener, 0, 0, SOCK_CLOEXEC); }
