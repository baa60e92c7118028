// The least that a CGI program can cost.
#include <stdio.h>

int main(void) { return printf("Content-Type: text/plain\r\n\r\nok") < 0; }
