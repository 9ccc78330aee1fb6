/* Writes COUNT records that begin with TAG to /dev/kmsg, about 95 bytes each as they are read: RATE a second, evenly by
 * the millisecond, or flat out where RATE is 0. Prints the seconds it took; fails if any write was short. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double seconds(const struct timespec *at) { return at->tv_sec + at->tv_nsec / 1e9; }

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	long count = atol(argv[2]), per_ms = atol(argv[3]) / 1000;
	int fd = open("/dev/kmsg", O_WRONLY);
	if (fd < 0)
		return 1;
	struct timespec start, next, end;
	clock_gettime(CLOCK_MONOTONIC, &start);
	next = start;
	char line[128];
	for (long i = 0; i < count; i++) {
		int size = snprintf(line, sizeof line, "<14>%s %07ld is one of many lines, number %08lx\n",
				    argv[1], i, i * 2654435761u & 0xffffffff);
		if (write(fd, line, size) != size)
			return 1;
		if (per_ms && i % per_ms == per_ms - 1) {
			next.tv_nsec += 1000000;
			if (next.tv_nsec >= 1000000000) {
				next.tv_nsec -= 1000000000;
				next.tv_sec++;
			}
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.6f\n", seconds(&end) - seconds(&start));
	return 0;
}
