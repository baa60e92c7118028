// The least that a relay behind nginx can cost: one thread, epoll, one read and one write per token. It parses FastCGI,
// HTTP, Server-Sent Events and JSON by hand, as far as the benchmark's own model server needs it, and does nothing else:
// no authentication, no limits, no time limits, no checks. It is the kernel's share, not a server.
//
//   floor SOCKET UPSTREAM_PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTENER, CLIENT, UPSTREAM, CLOSED };

struct end {
  int kind, fd;
  struct end *other;
  // CLIENT: the request so far, the id of its FastCGI request, and whether the connection is kept.
  // UPSTREAM: the start of a line that was cut, and whether the response's head has been read.
  char *rest;
  int count, started, keep;
  unsigned char id[2];
};

static int loop, upstream_port;
static char input[65536], output[65536];

static void watch(struct end *end, int events) {
  struct epoll_event event = {.events = events, .data.ptr = end};
  epoll_ctl(loop, EPOLL_CTL_ADD, end->fd, &event);
}

// The ends that were closed in this turn. They are freed after it, because an event of theirs may be pending.
static struct end *closed[512];
static int closed_count;

static void finish(struct end *end) {
  if (end->kind == CLOSED) return;
  close(end->fd);
  free(end->rest);
  end->kind = CLOSED;
  closed[closed_count++] = end;
}

// Writes the buffered records as one FastCGI record, which starts at output + 8.
static int send_record(struct end *client, int length, int is_last) {
  unsigned char header[8] = {1, 6, client->id[0], client->id[1], length >> 8, length & 255, 0, 0};
  memcpy(output, header, 8);
  length += 8;
  if (is_last) {
    unsigned char tail[24] = {1, 6, client->id[0], client->id[1], 0, 0, 0, 0, 1, 3, client->id[0], client->id[1], 0, 8};
    memcpy(output + length, tail, 24);
    length += 24;
  }
  return write(client->fd, output, length) == length;
}

static int put(int at, const char *text, int length) {
  memcpy(output + 8 + at, text, length);
  return at + length;
}
#define PUT(at, text) put(at, text, sizeof text - 1)

static void start(struct end *client, const char *body, int length) {
  static struct sockaddr_in address;
  struct end *upstream = calloc(1, sizeof *upstream);
  int yes = 1;
  address.sin_family = AF_INET;
  address.sin_port = htons(upstream_port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  upstream->kind = UPSTREAM;
  upstream->fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(upstream->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(upstream->fd, (struct sockaddr *)&address, sizeof address)) abort();
  upstream->other = client;
  client->other = upstream;
  watch(upstream, EPOLLIN | EPOLLRDHUP);
  int count = sprintf(output, "POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Length: %d\r\n\r\n%.*s",
                      length, length, body);
  if (write(upstream->fd, output, count) != count) abort();
}

static void read_client(struct end *client) {
  int count = recv(client->fd, input, sizeof input, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) {
    if (client->other) finish(client->other);
    return finish(client);
  }
  client->rest = realloc(client->rest, client->count + count);
  memcpy(client->rest + client->count, input, count);
  client->count += count;
  char body[8192];
  int length = 0;
  for (unsigned char *at = (unsigned char *)client->rest, *end = at + client->count; at + 8 <= end;) {
    int size = at[4] << 8 | at[5];
    if (at + 8 + size + at[6] > end) return;
    if (at[1] == 1) {
      client->id[0] = at[2];
      client->id[1] = at[3];
      client->keep = at[10] & 1;
    } else if (at[1] == 5 && size) {
      memcpy(body + length, at + 8, size);
      length += size;
    } else if (at[1] == 5) {
      free(client->rest);
      client->rest = 0;
      client->count = 0;
      return start(client, body, length);
    }
    at += 8 + size + at[6];
  }
}

static void read_upstream(struct end *upstream) {
  struct end *client = upstream->other;
  if (upstream->count) memcpy(input, upstream->rest, upstream->count);
  int count = recv(upstream->fd, input + upstream->count, sizeof input - upstream->count, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) {
    finish(client);
    return finish(upstream);
  }
  count += upstream->count;
  int at = 0, is_done = 0;
  if (!upstream->started) {
    upstream->started = 1;
    at = PUT(at, "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n");
  }
  char *line = input, *end = input + count, *next;
  for (; (next = memchr(line, '\n', end - line)); line = next + 1) {
    if (at > 60000) {
      send_record(client, at, 0);
      at = 0;
    }
    if (memcmp(line, "data: ", 6)) continue;
    char *text = memmem(line, next - line, "\"content\":\"", 11);
    if (text) {
      text += 11;
      char *quote = memchr(text, '"', next - text);
      at = PUT(at, "event: token\ndata: {\"t\":\"");
      at = put(at, text, quote - text);
      at = PUT(at, "\"}\n\n");
    } else if (!memcmp(line + 6, "[DONE]", 6)) {
      at = PUT(at, "event: done\ndata: {}\n\n");
      is_done = 1;
    }
  }
  upstream->count = end - line;
  if (upstream->count) {
    upstream->rest = realloc(upstream->rest, upstream->count);
    memcpy(upstream->rest, line, upstream->count);
  }
  if (at && !send_record(client, at, is_done)) is_done = 1, client->keep = 0;
  if (!is_done) return;
  finish(upstream);
  client->other = 0;
  if (!client->keep) finish(client);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  signal(SIGPIPE, SIG_IGN);
  upstream_port = atoi(arguments[2]);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
  struct end listener = {.kind = LISTENER, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)};
  if (bind(listener.fd, (struct sockaddr *)&address, sizeof address) || listen(listener.fd, 4096)) return 1;
  loop = epoll_create1(0);
  watch(&listener, EPOLLIN);
  struct epoll_event events[256];
  for (;;) {
    int ready = epoll_wait(loop, events, 256, -1);
    for (int i = 0; i < ready; i++) {
      struct end *end = events[i].data.ptr;
      if (end->kind == UPSTREAM) {
        read_upstream(end);
      } else if (end->kind == CLIENT) {
        read_client(end);
      } else if (end->kind == LISTENER) {
        for (int fd; (fd = accept(end->fd, 0, 0)) >= 0;) {
          struct end *client = calloc(1, sizeof *client);
          client->kind = CLIENT;
          client->fd = fd;
          watch(client, EPOLLIN | EPOLLRDHUP);
        }
      }
    }
    while (closed_count) free(closed[--closed_count]);
  }
}
