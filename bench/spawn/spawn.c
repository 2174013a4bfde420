/*
 * The limit for a process per request: threads that posix_spawn a program,
 * write 6 bytes to it, read its output to the end and wait for it, and do
 * nothing else.
 *
 *	cc -O2 -pthread -o spawn spawn.c && ./spawn THREADS SECONDS PROGRAM
 *
 * It prints how many such processes per second it ran.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char body[] = "hello\n";
static char *program;
static atomic_bool stop;
static atomic_long total;

static void die(const char *what, int err)
{
	fprintf(stderr, "spawn: %s: %s\n", what, strerror(err));
	exit(1);
}

static void once(void)
{
	int in[2], out[2], err, status;
	posix_spawn_file_actions_t actions;
	char *argv[] = { program, NULL };
	char buf[4096];
	pid_t pid;
	ssize_t n, got = 0;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die("pipe2", errno);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	err = posix_spawnp(&pid, program, &actions, NULL, argv, environ);
	if (err)
		die("posix_spawn", err);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	if (write(in[1], body, sizeof body - 1) < 0)
		die("write", errno);
	close(in[1]);
	while ((n = read(out[0], buf, sizeof buf)) > 0)
		got += n;
	close(out[0]);
	if (waitpid(pid, &status, 0) != pid || status != 0 || got != sizeof body - 1) {
		fprintf(stderr, "spawn: status %d after %zd bytes\n", status, got);
		exit(1);
	}
}

static void *loop(void *unused)
{
	while (!atomic_load(&stop)) {
		once();
		atomic_fetch_add(&total, 1);
	}
	return unused;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s THREADS SECONDS PROGRAM\n", argv[0]);
		return 2;
	}
	int threads = atoi(argv[1]);
	double seconds = atof(argv[2]);
	program = argv[3];
	signal(SIGPIPE, SIG_IGN);

	pthread_t *ids = calloc(threads, sizeof *ids);
	struct timespec begin, end, pause = { seconds, (seconds - (long)seconds) * 1e9 };
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (int i = 0; i < threads; i++)
		pthread_create(&ids[i], NULL, loop, NULL);
	nanosleep(&pause, NULL);
	atomic_store(&stop, 1);
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	double took = end.tv_sec - begin.tv_sec + (end.tv_nsec - begin.tv_nsec) / 1e9;
	printf("%.1f\n", total / took);
	return 0;
}
