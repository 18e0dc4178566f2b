// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnode-beat: user space's heartbeat.  One thread a CPU, pinned, at ordinary
 * priority: it beats as long as ordinary programs get to run there.  In a new
 * incarnation (a vnode that was resumed) it beats at once.
 *
 *	vnode-beat		beat for ever
 *	vnode-beat --once	one beat a CPU, then leave
 *
 * Exit codes: 0 done, 1 failed, 2 wrong usage, 5 this is no vnode.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vnode_abi.h"

#define DEVICE		"/dev/vnode"
#define STACK_BYTES	16384
#define PERIOD_US	100000	/* when the root wishes none */

static int once;
static struct timespec period;

static int pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/* Relative time: after a stop no burst of beats makes up for it. */
static void wait_period(int device)
{
	struct pollfd wait = { .fd = device, .events = POLLPRI };
	char incarnation[16];

	if (ppoll(&wait, 1, &period, NULL) == 1 &&
	    read(device, incarnation, sizeof(incarnation)) < 0)
		perror("vnode-beat: " DEVICE);
}

static void *beat(void *arg)
{
	int cpu = (int)(long)arg, device;

	/* of its own, as the incarnation that was read is kept with the file */
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		perror("vnode-beat: " DEVICE);
		return NULL;
	}
	if (pin(cpu)) {
		fprintf(stderr, "vnode-beat: cannot run on CPU %d: %s\n", cpu, strerror(errno));
		return NULL;
	}
	do {
		if (ioctl(device, VNODE_BEAT)) {
			fprintf(stderr, "vnode-beat: " DEVICE ": %s\n", strerror(errno));
			return NULL;
		}
		if (!once)
			wait_period(device);
	} while (!once);
	return arg;
}

static int start(const cpu_set_t *cpus, pthread_t *threads)
{
	pthread_attr_t attr;
	int cpu, n = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (cpu = 0; cpu < CPU_SETSIZE && n < VN_MAX_CPUS; cpu++) {
		if (!CPU_ISSET(cpu, cpus))
			continue;
		if (pthread_create(&threads[n], &attr, beat, (void *)(long)cpu))
			return -1;
		n++;
	}
	return n;
}

static int usage(void)
{
	fputs("usage: vnode-beat [--once]\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	pthread_t threads[VN_MAX_CPUS];
	struct vn_self self;
	cpu_set_t cpus;
	unsigned int us;
	int device, i, n;

	if (argc > 2 || (argc == 2 && strcmp(argv[1], "--once")))
		return usage();
	once = argc == 2;
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0 || ioctl(device, VNODE_SELF, &self)) {
		fprintf(stderr, "vnode-beat: " DEVICE ": %s; is vnode_agent.ko loaded?\n",
			strerror(errno));
		return 5;
	}
	us = self.user_period_us ? self.user_period_us : PERIOD_US;
	period.tv_sec = us / 1000000;
	period.tv_nsec = us % 1000000 * 1000L;
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		perror("vnode-beat: mlockall");
	if (sched_getaffinity(0, sizeof(cpus), &cpus)) {
		perror("vnode-beat: sched_getaffinity");
		return 1;
	}
	n = start(&cpus, threads);
	if (n < 1) {
		fputs("vnode-beat: cannot start a thread a CPU\n", stderr);
		return 1;
	}
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return once ? 0 : 1;
}
