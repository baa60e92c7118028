// One library that is loaded on demand, and the functions that forward to it.
#ifndef SLUICE_LIBRARY_H
#define SLUICE_LIBRARY_H

#include <stdatomic.h>

struct library {
  const char *file;
  _Atomic(void *) handle;
  // The reason why the library could not be loaded.
  char reason[512];
};

// Loads a library, once per process. Thread-safe. Returns NULL, or the reason for the failure.
const char *library_load(struct library *library);

// Returns the address of a function, which is kept in `found` once it is known. NULL if the library cannot be loaded or
// has no such function.
void *library_function(struct library *library, const char *name, _Atomic(void *) *found);

// Defines a function that forwards to the one with the same name. `otherwise` is its result if there is none.
#define FORWARD(library, type, otherwise, name, parameters, arguments)                        \
  type name parameters {                                                                      \
    static _Atomic(void *) found;                                                             \
    type(*function) parameters = library_function(library, #name, &found);                    \
    return function ? function arguments : otherwise;                                         \
  }

// The same for a function without a result.
#define FORWARD_VOID(library, name, parameters, arguments)                                    \
  void name parameters {                                                                      \
    static _Atomic(void *) found;                                                             \
    void(*function) parameters = library_function(library, #name, &found);                    \
    if (function) function arguments;                                                         \
  }

#endif
