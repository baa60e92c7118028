// A relay with libfcgi, one thread per stream: how its documentation shows it.
//
//   libfcgi SOCKET UPSTREAM_PORT THREADS
#include <arpa/inet.h>
#include <fcgiapp.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int listener, upstream_port;

static int connect_upstream(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(upstream_port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
    close(fd);
    return -1;
  }
  return fd;
}

static void relay(FCGX_Request *request) {
  char body[8192], head[9000];
  int length = FCGX_GetStr(body, sizeof body, request->in);
  int fd = connect_upstream();
  if (fd < 0) {
    FCGX_PutS("Status: 502\r\n\r\n", request->out);
    return;
  }
  int count = snprintf(head, sizeof head,
                       "POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
                       "Content-Length: %d\r\nConnection: close\r\n\r\n%.*s", length, length, body);
  if (write(fd, head, count) != count) goto end;
  FCGX_PutS("Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n", request->out);
  FILE *input = fdopen(fd, "r");
  char line[4096];
  while (fgets(line, sizeof line, input)) {
    if (strncmp(line, "data: ", 6)) continue;
    char *text = strstr(line, "\"content\":\"");
    if (text) {
      text += 11;
      char *end = strchr(text, '"');
      if (!end) break;
      FCGX_PutS("event: token\ndata: {\"t\":\"", request->out);
      FCGX_PutStr(text, end - text, request->out);
      FCGX_PutS("\"}\n\n", request->out);
    } else if (!strncmp(line + 6, "[DONE]", 6)) {
      FCGX_PutS("event: done\ndata: {}\n\n", request->out);
      break;
    } else {
      continue;
    }
    if (FCGX_FFlush(request->out)) break;
  }
  fclose(input);
  return;
end:
  close(fd);
}

static void *run(void *unused) {
  FCGX_Request request;
  FCGX_InitRequest(&request, listener, 0);
  while (FCGX_Accept_r(&request) == 0) {
    relay(&request);
    FCGX_Finish_r(&request);
  }
  return unused;
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  FCGX_Init();
  listener = FCGX_OpenSocket(arguments[1], 4096);
  upstream_port = atoi(arguments[2]);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  pthread_t thread;
  for (int i = 0; i < atoi(arguments[3]); i++) pthread_create(&thread, &attributes, run, 0);
  pthread_join(thread, 0);
}
