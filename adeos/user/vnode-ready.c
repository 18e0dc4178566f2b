// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnode-ready: this vnode may be frozen now.  Where the root keeps an image of it,
 * it is frozen while this program waits, and the program ends once in each
 * incarnation that is resumed: what is run after it is begun anew in each.
 *
 *	vnode-ready && exec my-service
 *
 * Prints the incarnation.  Exit codes: 0 go on (frozen and back, or no image is
 * wanted), 1 go on, but it could not be frozen, 2 wrong usage, 5 no vnode.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEVICE	"/dev/vnode"

static const char *words_for(int error)
{
	switch (error) {
	case ECANCELED:
		return "it could not be frozen, the kernel log says why";
	case ETIMEDOUT:
		return "the root did not freeze it in time";
	}
	return strerror(error);
}

int main(int argc, char **argv)
{
	char incarnation[16] = "";
	int device, error = 0;

	if (argc > 1) {
		fprintf(stderr, "usage: %s\n", argv[0]);
		return 2;
	}
	device = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (device < 0) {
		fprintf(stderr, "vnode-ready: " DEVICE ": %s; is vnode_agent.ko loaded?\n",
			strerror(errno));
		return 5;
	}
	if (write(device, "ready", 5) < 0) {
		error = errno;
		fprintf(stderr, "vnode-ready: %s\n", words_for(error));
	}
	if (read(device, incarnation, sizeof(incarnation) - 1) > 0)
		fputs(incarnation, stdout);
	return error ? 1 : 0;
}
