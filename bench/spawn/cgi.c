/*
 * The least that a CGI program can be: it answers with its input.
 *
 *	cc -O2 -o cgi cgi.c
 */
#include <unistd.h>

static const char head[] = "Content-Type: text/plain\r\n\r\n";

int main(void)
{
	char buf[4096];
	ssize_t n;

	if (write(1, head, sizeof head - 1) < 0)
		return 1;
	while ((n = read(0, buf, sizeof buf)) > 0)
		if (write(1, buf, n) != n)
			return 1;
	return n < 0;
}
