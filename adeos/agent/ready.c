// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * User space's part in being frozen: it says when it is ready, and learns in
 * which incarnation it came back.  Scripts of /etc/vnode-debug/freeze.d run before,
 * those of thaw.d afterwards, also when it came to nothing.
 */
#include "agent.h"

#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/kmod.h>
#include <linux/namei.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define ASKED_WITHIN_MS	30000	/* for the root to freeze a vnode that is ready */

static DECLARE_WAIT_QUEUE_HEAD(outcome_wait);
static atomic_t outcomes;
static bool declared, last_resumed;

bool ready_declared(void)
{
	return READ_ONCE(declared);
}

void ready_done(bool resumed)
{
	WRITE_ONCE(last_resumed, resumed);
	atomic_inc(&outcomes);
	wake_up_all(&outcome_wait);
}

/* Returns in each incarnation that comes from the image. */
static int declare(void)
{
	int before = atomic_read(&outcomes);
	long left;

	WRITE_ONCE(declared, true);
	freeze_declare(true);
	if (!(READ_ONCE(root_side->flags) & VN_F_FREEZE))
		return 0;
	portal_ring();
	left = wait_event_freezable_timeout(outcome_wait, atomic_read(&outcomes) != before,
					    msecs_to_jiffies(ASKED_WITHIN_MS));
	if (left < 0)
		return -EINTR;
	if (!left)
		return -ETIMEDOUT;
	return READ_ONCE(last_resumed) ? 0 : -ECANCELED;
}

ssize_t ready_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	char word[8] = "";
	int rc;

	if (count >= sizeof(word))
		return -EINVAL;
	if (copy_from_user(word, buf, count))
		return -EFAULT;
	if (strcmp(strim(word), "ready"))
		return -EINVAL;
	rc = declare();
	return rc ?: count;
}

static unsigned long incarnation(void)
{
	return READ_ONCE(root_side->incarnation);
}

/* The incarnation that this file has read is its private data. */
int ready_open(struct inode *inode, struct file *file)
{
	file->private_data = (void *)incarnation();
	return nonseekable_open(inode, file);
}

ssize_t ready_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	unsigned long now = incarnation();
	char text[16];
	size_t n = scnprintf(text, sizeof(text), "%lu\n", now);

	if (count < n)
		return -EINVAL;
	file->private_data = (void *)now;
	return copy_to_user(buf, text, n) ? -EFAULT : n;
}

__poll_t ready_poll(struct file *file, struct poll_table_struct *table)
{
	poll_wait(file, &outcome_wait, table);
	return file->private_data != (void *)incarnation() ? EPOLLPRI : 0;
}

static bool exists(const char *name)
{
	struct path path;

	if (kern_path(name, LOOKUP_FOLLOW | LOOKUP_DIRECTORY, &path))
		return false;
	path_put(&path);
	return true;
}

/* The first script that fails ends it; its exit code, or a negative errno. */
int hooks_run(const char *which)
{
	static char run_all[] = "for f in /etc/vnode-debug/$0.d/*; do "
				"[ ! -x \"$f\" ] || \"$f\" || exit; done";
	char directory[40], number[40];
	char *argv[] = { "/bin/sh", "-c", run_all, (char *)which, NULL };
	char *envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", number, NULL };
	int rc;

	snprintf(directory, sizeof(directory), "/etc/vnode-debug/%s.d", which);
	if (!exists(directory))
		return 0;
	snprintf(number, sizeof(number), "VNODE_INCARNATION=%lu", incarnation());
	rc = call_usermodehelper(argv[0], argv, envp, UMH_WAIT_PROC);
	return rc > 0 ? rc >> 8 ?: -EINTR : rc;
}
