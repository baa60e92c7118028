#include "Library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const char *library_load(struct library *library) {
  if (atomic_load(&library->handle)) return 0;
  pthread_mutex_lock(&lock);
  const char *failure = 0;
  if (!atomic_load(&library->handle)) {
    void *handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char *message = dlerror();
      strncpy(library->reason, message ? message : library->file, sizeof library->reason - 1);
      failure = library->reason;
    }
    atomic_store(&library->handle, handle);
  }
  pthread_mutex_unlock(&lock);
  return failure;
}

void *library_function(struct library *library, const char *name, _Atomic(void *) *found) {
  void *function = atomic_load_explicit(found, memory_order_acquire);
  if (function || library_load(library)) return function;
  function = dlsym(atomic_load(&library->handle), name);
  atomic_store_explicit(found, function, memory_order_release);
  return function;
}
