// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The owner: one open file of /dev/kmb at a time that acts, until its last
 * descriptor and mapping is gone.
 */
#include "kmb.h"

#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>

/* guarded by kmb_lock; @owner_pid is also read under @pid_lock alone */
static struct file *owner;
static struct pid *owner_pid;
static DEFINE_SPINLOCK(pid_lock);

static void set_pid(struct pid *pid)
{
	spin_lock(&pid_lock);
	swap(owner_pid, pid);
	spin_unlock(&pid_lock);
	put_pid(pid);
}

int kmb_owner_claim(struct file *file)
{
	if (!(file->f_mode & FMODE_WRITE))
		return -EACCES;
	if (owner == file)
		return 0;
	if (owner) {
		pr_info("process %d may not claim the vnodes: process %d has them\n",
			task_tgid_nr(current), pid_nr(owner_pid));
		return -EBUSY;
	}
	owner = file;
	set_pid(get_pid(task_tgid(current)));
	return 0;
}

void kmb_owner_closed(const struct file *file)
{
	if (owner != file)
		return;
	owner = NULL;
	set_pid(NULL);
}

/* As the caller's namespace has it; wants no kmb_lock. */
pid_t kmb_owner_pid_here(void)
{
	pid_t pid;

	spin_lock(&pid_lock);
	pid = owner_pid ? pid_vnr(owner_pid) : 0;
	spin_unlock(&pid_lock);
	return pid;
}

bool kmb_owns(const struct file *file)
{
	return owner == file;
}

bool kmb_is_owner(const struct file *file)
{
	bool mine;

	mutex_lock(&kmb_lock);
	mine = kmb_owns(file);
	mutex_unlock(&kmb_lock);
	return mine;
}

pid_t kmb_owner_pid(void)
{
	return owner_pid ? pid_nr(owner_pid) : 0;
}

/* One that does not answer for its vnodes; it is the owner until the kernel is done with it. */
void kmb_owner_kill(void)
{
	static struct pid *killed;	/* compared, not used */

	if (killed != owner_pid)
		pr_warn("process %d owns the vnodes and hangs, while one of them is dead: it is killed\n",
			pid_nr(owner_pid));
	killed = owner_pid;
	kill_pid(owner_pid, SIGKILL, 1);
}
